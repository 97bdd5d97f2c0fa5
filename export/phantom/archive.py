"""Writes whole phantom archives: a folder per case and the table of cases."""

from __future__ import annotations

import concurrent.futures
import csv
import multiprocessing
import pathlib
from collections.abc import Callable

from export.phantom.case import generate_case
from export.phantom.dicom_writer import write_case
from export.phantom.settings import LABELS, PhantomSettings, case_id_of

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""

CASE_COLUMNS = ("path", "case_id", "label", "site", "verification")


def _write_one(out: pathlib.Path, label: str, seed: int, settings: PhantomSettings) -> int:
    case = generate_case(label, seed, settings)
    return len(write_case(case, out / case.case_id))


def write_archive(
    out: pathlib.Path | str,
    n_cases_per_label: int,
    seed: int = 0,
    settings: PhantomSettings | None = None,
    n_workers: int = 1,
    *,
    progress: Progress | None = None,
) -> int:
    """Write ``n_cases_per_label`` cases of each class under ``out``, and ``cases.csv``.

    Parameters
    ----------
    out : path
        Folder to write into (made if missing): one folder per case, named by its case id.
    seed : int
        The cases of each label have the seeds ``seed`` onwards, so archives with distant
        seeds share no patient.
    n_workers : int
        Processes. The pixels do not depend on it.
    progress : callable, optional
        Called as each case is done.

    Returns
    -------
    int
        Number of slices written.

    Notes
    -----
    ``cases.csv`` has the columns path (relative to it), case_id, label, site, verification.
    It is written last, so an interrupted run leaves no table that promises missing cases.
    """
    if n_cases_per_label < 1:
        raise ValueError(f"n_cases_per_label is {n_cases_per_label}, expected 1 or more")
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = settings or PhantomSettings()
    jobs = [(label, seed + index) for index in range(n_cases_per_label) for label in LABELS]
    n_slices = 0
    if n_workers <= 1:
        for done, (label, case_seed) in enumerate(jobs, start=1):
            n_slices += _write_one(out, label, case_seed, settings)
            if progress:
                progress(done, len(jobs))
    else:
        # Threads of the parent (progress bars, BLAS) must not be forked.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(n_workers, mp_context=context) as pool:
            futures = [pool.submit(_write_one, out, *job, settings) for job in jobs]
            for done, future in enumerate(concurrent.futures.as_completed(futures), start=1):
                n_slices += future.result()
                if progress:
                    progress(done, len(jobs))
    with (out / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CASE_COLUMNS)
        for label, case_seed in sorted(jobs, key=lambda job: (LABELS.index(job[0]), job[1])):
            case_id = case_id_of(label, case_seed)
            writer.writerow([case_id, case_id, label, "phantom", "synthetic"])
    return n_slices
