"""Folders that only their owner can write: for what is loaded as code.

A TensorRT engine or an optimised graph decides what the process executes. It is read only from a
folder that neither another user nor a link laid by one can change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ildsdk.errors import ModelError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0


def user_cache_folder() -> Path:
    """Where this user's caches of ildsdk lie by default (not made by this call)."""
    return Path.home() / ".cache" / "ildsdk"


def make_private_folder(folder: Path) -> Path:
    """Make a folder (and those above it) for this user only, or check the one that is there.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
        The same folder without links in its path.

    Raises
    ------
    ModelError
        It cannot be made, or another user can change it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cache folder {folder.name!r} cannot be made: {error.strerror}; name a folder that "
            "you can write"
        ) from error
    return check_private_folder(folder)


def check_private_folder(folder: Path) -> Path:
    """Check that nobody but this user (or root) can change a folder or swap it for another.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
        The same folder without links in its path.

    Raises
    ------
    ModelError
        It is missing, no folder, a link, or writable by another user, it or one above it.

    Notes
    -----
    A folder above with the sticky bit (``/tmp``) is fine: in it, others cannot rename what is not
    theirs. Where users have no numbers (Windows), the profile's access list is relied on.
    """
    _refuse_unless(_state(folder), stat.S_ISDIR, folder, "a folder")
    real = folder.resolve()
    if not hasattr(os, "geteuid"):
        return real
    for part in (real, *real.parents):
        state = _state(part)
        if _is_foreign(state):
            raise ModelError(
                f"cache folder {folder.name!r} is not safe: {part.name or '/'!r} on its path "
                "belongs to another user; what lies there is executed, so it is not read. Take a "
                "folder of your own"
            )
        is_shared_above = part != real and state.st_mode & stat.S_ISVTX
        if state.st_mode & _OTHERS_WRITE and not is_shared_above:
            raise ModelError(
                f"cache folder {folder.name!r} is not safe: other users can write "
                f"{part.name or '/'!r} on its path (mode {stat.S_IMODE(state.st_mode):o}); what "
                "lies there is executed, so it is not read. Take the right away (chmod go-w)"
            )
    return real


def check_private_file(path: Path) -> None:
    """Check a file inside a private folder: regular, no link, changed by nobody else.

    Raises
    ------
    ModelError
        It is missing, a link, or writable by another user.
    """
    state = _state(path)
    _refuse_unless(state, stat.S_ISREG, path, "a file")
    if hasattr(os, "geteuid") and (_is_foreign(state) or state.st_mode & _OTHERS_WRITE):
        raise ModelError(
            f"cached file {path.name!r} can be changed by another user, and it is executed; it is "
            "not read. Remove it and make it again"
        )


def _state(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise ModelError(f"{path.name!r} cannot be read: {error.strerror}") from error


def _is_foreign(state: os.stat_result) -> bool:
    return state.st_uid not in (os.geteuid(), _ROOT)


def _refuse_unless(state: os.stat_result, is_kind: Callable[[int], bool], path: Path, words: str) -> None:
    if not is_kind(state.st_mode):
        found = "a link" if stat.S_ISLNK(state.st_mode) else "something else"
        raise ModelError(f"{path.name!r} in the cache is {found}, expected {words}; remove it")
