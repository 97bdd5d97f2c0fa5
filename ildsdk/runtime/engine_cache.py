"""TensorRT engines on disk: complete, unchanged, private, and known to fit.

``CACHE/KEY/`` holds what TensorRT wrote and ``engine.json`` (:data:`ENGINE_SCHEMA`) with key,
profile, size and SHA-256 of each file. The manifest is written last and the folder renamed into
its place, so a folder without one is no engine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ildsdk._version import __version__
from ildsdk.errors import ModelError
from ildsdk.runtime.engine_key import EngineKey
from ildsdk.runtime.private_folder import (
    is_private,
    is_private_folder,
    make_private_folder,
    own_account,
)
from ildsdk.runtime.provider_options import ShapeProfile

ENGINE_SCHEMA = "ildsdk.engine/1"
MANIFEST_NAME = "engine.json"
ENGINE_PREFIX = "ildsdk"
_TIMINGS_NAME = "timings"
_DRAFT_PREFIX = ".build-"
_OLD_PREFIX = ".old-"
_MAX_MANIFEST_BYTES = 256 * 1024
_ABANDONED_AFTER_S = 24 * 3600
_CHUNK_BYTES = 1 << 20
_ROOT = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A complete engine.

    Attributes
    ----------
    key : EngineKey
    profile : ShapeProfile
    folder : Path
    n_bytes : int
        Of all files together.
    build_seconds : float
    """

    key: EngineKey
    profile: ShapeProfile
    folder: Path
    n_bytes: int
    build_seconds: float


class EngineCache:
    """Folder of engines of one user.

    Parameters
    ----------
    folder : Path
        Made when the first engine is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: EngineKey, *, batch: int = 1) -> Engine | None:
        """Smallest engine of this key, its largest batch left open, that takes ``batch``.

        Returns
        -------
        Engine or None
            None where none was built.

        Raises
        ------
        ModelError
            Another user can change the folder or an engine in it, or the engine is damaged.
        """
        engines, _ = self.scan()
        fitting = [
            engine
            for engine in engines
            if engine.key.with_batch_max(key.batch_max) == key and engine.key.batch_max >= batch
        ]
        if not fitting:
            # A damaged engine of another key keeps nobody from building this one.
            if os.path.lexists(self.folder / key.folder_name / MANIFEST_NAME):
                _read(self.folder / key.folder_name)
            return None
        return _checked(min(fitting, key=lambda engine: engine.key.batch_max))

    def scan(self) -> tuple[list[Engine], list[str]]:
        """All complete engines, whatever they were built for; their checksums are not read.

        Returns
        -------
        engines : list of Engine
        problems : list of str
            One sentence for each engine that is malformed or that another user can change.

        Raises
        ------
        ModelError
            Another user can change the folder itself.
        """
        if not os.path.lexists(self.folder):
            return [], []
        _check_folder(self.folder)
        engines, problems = [], []
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(".") or not os.path.lexists(path / MANIFEST_NAME):
                continue
            try:
                engines.append(_read(path))
            except ModelError as error:
                problems.append(str(error))
        return engines, problems

    def timing_folder(self, key: EngineKey) -> Path:
        """Folder of the build timings for this machine and TensorRT, made if missing."""
        return _made(_made(_made(self.folder) / _TIMINGS_NAME) / key.timing_name)

    @contextlib.contextmanager
    def draft(self, key: EngineKey) -> Iterator[Path]:
        """Empty private folder to build in; gone afterwards, whatever happens, unless committed.

        Parameters
        ----------
        key : EngineKey
        """
        _remove_abandoned(_made(self.folder))
        path = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(
        self, draft: Path, key: EngineKey, profile: ShapeProfile, build_seconds: float
    ) -> Engine:
        """Describe the files of a draft and put it into its place, instead of an older one.

        Raises
        ------
        ModelError
            The draft holds no engine, or cannot be put into its place.
        """
        names = sorted(path.name for path in draft.iterdir())
        if not any(name.endswith(".engine") for name in names):
            raise ModelError(
                f"TensorRT wrote {names or 'nothing'} for {key.precision}, expected an engine: no "
                "part of the network ran on TensorRT"
            )
        files = {}
        for name in names:
            (draft / name).chmod(0o600)
            files[name] = {"bytes": (draft / name).stat().st_size, "sha256": _sha256(draft / name)}
        manifest = {
            "schema": ENGINE_SCHEMA,
            "created_with": f"ildsdk {__version__}",
            "key": dataclasses.asdict(key),
            "profile": profile.to_dict(),
            "build_seconds": round(build_seconds, 1),
            "files": files,
        }
        text = json.dumps(manifest, indent=1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(draft / MANIFEST_NAME, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        final = draft.parent / key.folder_name
        _put(draft, final)
        return _checked(_read(final))

    def remove(self, engine: Engine) -> None:
        """Delete an engine."""
        shutil.rmtree(engine.folder)


def _put(draft: Path, final: Path) -> None:
    """Rename a folder to its place; one that stands there is moved aside first, then deleted."""
    aside = final.with_name(f"{_OLD_PREFIX}{draft.name.removeprefix(_DRAFT_PREFIX)}")
    try:
        if os.path.lexists(final):
            final.rename(aside)
        draft.rename(final)
    except OSError as error:
        raise ModelError(
            f"engine {final.name} cannot be put into the cache: {error.strerror}; is another "
            "build of it running?"
        ) from error
    shutil.rmtree(aside, ignore_errors=True)


def _read(folder: Path) -> Engine:
    _check_folder(folder)
    path = folder / MANIFEST_NAME
    _check_file(path)
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise _damaged(folder, "its manifest is too long")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] != ENGINE_SCHEMA:
            raise ValueError(f"schema {manifest['schema']!r}, expected {ENGINE_SCHEMA!r}")
        key = EngineKey.from_dict(manifest["key"])
        if key.folder_name != folder.name:
            raise ValueError(f"its key belongs to {key.folder_name}")
        return Engine(
            key=key,
            profile=ShapeProfile.from_dict(manifest["profile"]),
            folder=folder,
            n_bytes=sum(int(file["bytes"]) for file in manifest["files"].values()),
            build_seconds=float(manifest["build_seconds"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise _damaged(folder, f"its manifest is malformed ({error})") from error


def _checked(engine: Engine) -> Engine:
    """The same engine, its files compared with its manifest."""
    manifest: dict[str, Any] = json.loads((engine.folder / MANIFEST_NAME).read_text("utf-8"))
    found = {path.name for path in engine.folder.iterdir()}
    expected = {MANIFEST_NAME, *manifest["files"]}
    if found != expected:
        raise _damaged(engine.folder, f"it holds {sorted(found)}, its manifest {sorted(expected)}")
    for name, file in manifest["files"].items():
        path = engine.folder / name
        _check_file(path)
        if path.stat().st_size != file["bytes"] or _sha256(path) != file["sha256"]:
            raise _damaged(engine.folder, f"{name} is not what was built")
    return engine


def _trusted() -> frozenset[int]:
    """Own account, and root, who can change what it runs anyway (engines baked into an image)."""
    return own_account() | {_ROOT}


def _check_folder(folder: Path) -> None:
    if not is_private_folder(folder, _trusted()):
        raise _unsafe(f"folder {folder.name!r}")


def _check_file(path: Path) -> None:
    if not os.path.lexists(path) or not is_private(path, _trusted(), is_folder=False):
        raise _unsafe(f"file {path.name!r} of {path.parent.name!r}")


def _made(folder: Path) -> Path:
    try:
        is_safe = make_private_folder(folder, _trusted(), mode=0o700)
    except OSError as error:
        raise ModelError(
            f"engine folder {folder.name!r} cannot be made: {error.strerror}; name one that you "
            "can write"
        ) from error
    if not is_safe:
        raise _unsafe(f"folder {folder.name!r}")
    return folder


def _unsafe(what: str) -> ModelError:
    return ModelError(
        f"TensorRT engines are executed, and {what} is a link, or another account can change it "
        "or a folder above it; expected one of your own that nobody else writes (chmod go-w), or "
        "name another engine folder"
    )


def _damaged(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"TensorRT engine {folder.name} is damaged: {why}; build it anew "
        "(`ildsdk build-engine --force`)"
    )


def _remove_abandoned(folder: Path) -> None:
    """Delete what builds left that were killed a day ago or earlier."""
    for path in folder.iterdir():
        if path.name.startswith((_DRAFT_PREFIX, _OLD_PREFIX)):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
