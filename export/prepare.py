"""From an archive to a training set on disk, with ildsdk's own mask, radiomics and model input.

Each case becomes one file in ``cases/`` as soon as it is done, so a killed run goes on where it
stopped; at the end the files are joined (:mod:`export.joining`) and what was left out is
written to ``skipped.csv``. In memory is one case for each process, never the whole set.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from tqdm import tqdm

from export.case_files import folder_salt, is_prepared, prepare_case
from export.dataset import SCHEMA, TABLE_NAME, SliceSet, load_slice_set
from export.joining import is_complete, join
from export.sources import (
    CaseSource,
    SourceSkip,
    SourceSlice,
    archive_sources,
    phantom_sources,
)
from export.whole_files import write_whole
from ildsdk.errors import ConfigError
from ildsdk.radiomics import FEATURE_SET_VERSION
from ildsdk.settings import MethodSettings, RadiomicsEngine

__all__ = [
    "CaseSource",
    "SourceSkip",
    "SourceSlice",
    "archive_sources",
    "phantom_sources",
    "prepare",
]


def prepare(
    sources: Sequence[CaseSource],
    out: Path,
    method: MethodSettings,
    *,
    engine: RadiomicsEngine = "fast",
    n_processes: int = 2,
    show_progress: bool = True,
    warn_above: float = 0.3,
    say: Callable[[str], None] = lambda line: None,
) -> SliceSet:
    """Prepare every case of the sources into a folder and open it.

    Parameters
    ----------
    sources : sequence of CaseSource
        Each case id once.
    out : Path
        Made if missing. Cases already in it are not read again unless their origin (paths,
        sampling, seed) is another; delete the folder when files behind the same paths changed.
    method : MethodSettings
        Window, crop and input size; must match what the folder was begun with.
    engine : {"fast", "pyradiomics"}
        Same values either way.
    n_processes : int
        Worker processes; 1 works in this one.
    warn_above : float
        A class that loses a larger share of its slices is warned about.
    say : callable
        Takes the lines of the account of what was skipped.

    Raises
    ------
    ConfigError
        A case id stands twice, or the folder was begun with other settings.
    InputError
        No slice at all is usable, or a case holds two patients.
    """
    if len({source.case_id for source in sources}) != len(sources):
        raise ConfigError("a case id stands twice among the sources; join its studies first")
    (out / "cases").mkdir(parents=True, exist_ok=True)
    _check_settings(out, method)
    salt = folder_salt(out)
    if is_complete(sources, out, salt):
        say("complete already")
        return load_slice_set(out)
    # From here on the folder is in the making, whatever it was.
    (out / TABLE_NAME).unlink(missing_ok=True)
    todo = [source for source in sources if not is_prepared(out, source, salt)]
    work = partial(prepare_case, out=out, method=method, engine=engine, salt=salt)
    bar = tqdm(
        total=len(sources), initial=len(sources) - len(todo), desc="prepare", unit="case",
        disable=not show_progress,
    )  # fmt: skip
    n_slices = 0
    with bar:
        for n_new in _each_done(work, todo, n_processes):
            n_slices += n_new
            bar.set_postfix_str(f"{n_slices} slices", refresh=False)
            bar.update()
    join(sources, out, method, warn_above, say)
    return load_slice_set(out)


def _each_done(work: Callable[[CaseSource], int], todo: Sequence[CaseSource], n_processes: int):
    """Do the work for each source, in this or other processes; yields results as they come."""
    if n_processes == 1:
        yield from map(work, todo)
        return
    # spawn: a forked child of a process that has run numba or torch threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context, initializer=_die_with_parent) as pool:
        futures = [pool.submit(work, source) for source in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _die_with_parent() -> None:
    """End this worker when its parent is killed; the pool's queue would keep it for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_settings(out: Path, method: MethodSettings) -> None:
    path = out / "settings.json"
    ours = {
        "schema": SCHEMA,
        "method": dataclasses.asdict(method),
        "feature_set_version": FEATURE_SET_VERSION,
    }
    if not path.exists():
        write_whole(path, (json.dumps(ours, indent=1) + "\n").encode())
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    if theirs.get("schema") != SCHEMA:
        raise ConfigError(
            f"{out.name!r} was begun by another version of this program "
            f"({theirs.get('schema', 'export.dataset/1')}, now {SCHEMA}); use another folder or "
            "delete it"
        )
    if theirs != ours:
        raise ConfigError(
            f"{out.name!r} was begun with {theirs}, now asked for {ours}; use another folder "
            "or delete it"
        )
