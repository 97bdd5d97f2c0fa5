"""Folders that keep optimized models between processes; knows files only, no engine.

An entry is a folder ``<model>-<key>`` with the files of one optimized model and ``entry.json``:
the whole key it was made for, size and SHA-256 of each file. It is made under another name and
renamed, so that it is there whole or not at all. Whatever does not fit (another key, a
damaged file, a folder that others can write) is as good as absent: the model is then
optimized anew. No error comes out of here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ildsdk.runtime.private_folder import (
    accounts_behind,
    is_private,
    is_private_folder,
    make_private_folder,
    own_account,
)

MAX_ENTRIES = 4
"""Of one folder: the least recently used are removed when another is added."""
_SCHEMA = "ildsdk.model-cache/1"
_ENTRY_NAME = "entry.json"
_MAX_ENTRY_BYTES = 64 * 1024
_NOT_AN_ENTRY = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_DRAFT_PREFIX = ".draft-"
_DRAFT_LIFETIME_S = 3600.0
_ENTRY_FOLDER = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")
# Python's own folder for what is compiled from the sources beside it; never part of a wheel.
_BESIDE_PACKAGE = Path(__file__).parent / "__pycache__" / "models"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """What an optimized model depends on.

    Attributes
    ----------
    model_sha256 : str
        Of everything the model is read from.
    facts : mapping of str to str
        Engine and its version, options, processor.
    """

    model_sha256: str
    facts: Mapping[str, str]

    @property
    def folder_name(self) -> str:
        """Name of its entry; entries of one model have the first half in common."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"{self.model_sha256[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def to_dict(self) -> dict[str, object]:
        """Mapping for ``entry.json``."""
        return {"model_sha256": self.model_sha256, "facts": dict(self.facts)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheFolder:
    """One place for entries and who is trusted with it.

    Attributes
    ----------
    path : Path
    owners : frozenset of int
        Accounts whose files are used.
    is_shared : bool
        Entries are made readable for other accounts.
    """

    path: Path
    owners: frozenset[int]
    is_shared: bool

    @classmethod
    def of_user(cls, path: Path) -> CacheFolder:
        """Folder for this account alone."""
        return cls(path=path, owners=own_account(), is_shared=False)

    @classmethod
    def beside_package(cls) -> CacheFolder:
        """Folder inside the installation, as ``ildsdk warmup`` fills it; trusted like its code."""
        return cls(path=_BESIDE_PACKAGE, owners=accounts_behind(Path(__file__)), is_shared=True)

    def find(self, key: CacheKey) -> Path | None:
        """Folder of the entry for a key, its files checked; None where there is none."""
        folder = self.path / key.folder_name
        with contextlib.suppress(*_NOT_AN_ENTRY):
            if is_private_folder(self.path, self.owners) and self._is_intact(folder, key):
                with contextlib.suppress(OSError):  # read-only: nothing is removed there
                    os.utime(folder)
                return folder
        return None

    def _is_intact(self, folder: Path, key: CacheKey) -> bool:
        description = folder / _ENTRY_NAME
        if not is_private(folder, self.owners, is_folder=True) or not is_private(
            description, self.owners, is_folder=False
        ):
            return False
        with description.open("rb") as stream:
            entry = json.loads(stream.read(_MAX_ENTRY_BYTES))
        if entry["schema"] != _SCHEMA or entry["key"] != key.to_dict() or not entry["files"]:
            return False
        return {path.name for path in folder.iterdir()} == {_ENTRY_NAME, *entry["files"]} and all(
            is_private(folder / name, self.owners, is_folder=False)
            and _describe(folder / name) == expected
            for name, expected in entry["files"].items()
        )

    @contextlib.contextmanager
    def draft(self, key: CacheKey) -> Iterator[Draft | None]:
        """A folder to write an entry into; what is not published is gone afterwards.

        Yields
        ------
        Draft or None
            None where nothing can be kept here.
        """
        try:
            mode = 0o755 if self.is_shared else 0o700
            if not make_private_folder(self.path, self.owners, mode=mode):
                raise PermissionError
            folder = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=self.path))
        except OSError:
            yield None
            return
        try:
            yield Draft(self, key, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, key: CacheKey, draft: Path) -> bool:
        """Turn the files of a draft into the entry of a key; see :meth:`Draft.publish`."""
        try:
            files = {path.name: _describe(path) for path in sorted(draft.iterdir())}
            entry = {"schema": _SCHEMA, "key": key.to_dict(), "files": files}
            (draft / _ENTRY_NAME).write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
            for path in draft.iterdir():
                path.chmod(0o644 if self.is_shared else 0o600)
            draft.chmod(0o755 if self.is_shared else 0o700)
            final = self.path / key.folder_name
            if self.find(key) is None:
                _remove(final)  # damaged, or it would have been used
            draft.rename(final)
        except OSError:  # the disk is full, or another process was first
            return self.find(key) is not None
        self._tidy(final)
        return True

    def _tidy(self, newest: Path) -> None:
        """Remove the least recently used of too many entries, and left drafts."""
        now = time.time()
        with contextlib.suppress(OSError):
            entries = []
            for path in self.path.iterdir():
                age_s = now - path.lstat().st_mtime
                if path.name.startswith(_DRAFT_PREFIX) and age_s > _DRAFT_LIFETIME_S:
                    _remove(path)
                elif path == newest or not _ENTRY_FOLDER.fullmatch(path.name):
                    continue
                else:
                    entries.append((age_s, path))
            for _, path in sorted(entries)[MAX_ENTRIES - 1 :]:
                _remove(path)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelCache:
    """Where optimized models are looked for, and where a missing one is kept.

    Attributes
    ----------
    read : tuple of CacheFolder
        Looked into in order.
    write : tuple of CacheFolder
        The first one that can keep a missing model does; empty: nothing is written.
    """

    read: tuple[CacheFolder, ...] = ()
    write: tuple[CacheFolder, ...] = ()

    @classmethod
    def with_user_folder(cls, path: Path | None) -> ModelCache:
        """Read beside the package and in a folder of the user, write to the latter, if given."""
        of_user = () if path is None else (CacheFolder.of_user(path),)
        return cls(read=(CacheFolder.beside_package(), *of_user), write=of_user)

    def find(self, key: CacheKey) -> Path | None:
        """Folder of the first sound entry for a key."""
        return next((found for one in self.read if (found := one.find(key)) is not None), None)

    @contextlib.contextmanager
    def draft(self, key: CacheKey) -> Iterator[Draft | None]:
        """A draft in the first folder that takes one; see :meth:`CacheFolder.draft`."""
        with contextlib.ExitStack() as stack:
            drafts = (stack.enter_context(folder.draft(key)) for folder in self.write)
            yield next((draft for draft in drafts if draft is not None), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """An entry that is being written into :attr:`folder`."""

    _cache: CacheFolder
    _key: CacheKey
    folder: Path

    def publish(self) -> bool:
        """Make an entry of the files in the folder; whether the key has a sound one then."""
        return self._cache.publish(self._key, self.folder)


def _describe(path: Path) -> dict[str, object]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder; under a hidden name first, so that no reader sees half."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        hidden = path.with_name(f"{_DRAFT_PREFIX}{path.name}-{os.getpid()}-{time.time_ns()}")
        path.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
