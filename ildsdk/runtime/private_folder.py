"""Whether only trusted accounts can have put a file where it lies.

An optimized model is code as good as any: whoever can write it decides what the network answers.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def own_account() -> frozenset[int]:
    """Owners trusted with what this account keeps for itself."""
    return frozenset({os.geteuid()}) if hasattr(os, "geteuid") else frozenset()


def accounts_behind(source: Path) -> frozenset[int]:
    """Owners trusted with what lies beside a source file: its own, the system's, this account."""
    return own_account() | {0, source.stat().st_uid} if hasattr(os, "geteuid") else frozenset()


def is_private(path: Path, owners: frozenset[int], *, is_folder: bool) -> bool:
    """Whether a file or folder belongs to one of ``owners`` and nobody else can write it.

    A symbolic link is never private. Windows has other rights than owner and mode: there only
    links are refused, and the user's profile folder is what keeps others out.
    """
    found = os.lstat(path)
    if not (stat.S_ISDIR if is_folder else stat.S_ISREG)(found.st_mode):
        return False
    return not hasattr(os, "geteuid") or (
        found.st_uid in owners and not found.st_mode & _OTHERS_WRITE
    )


def is_private_folder(folder: Path, owners: frozenset[int]) -> bool:
    """Whether a folder is private and no folder above it lets another account replace it.

    Above it a folder may be writable for others where it is sticky (``/tmp``), and for this
    account's own group: many systems give each account a group of its own and new folders
    that mode. Where the group is shared, its members are trusted that far: they cannot put files
    of theirs in, whose owner is checked, but take the folder away.
    """
    if not is_private(folder, owners, is_folder=True):
        return False
    if not hasattr(os, "geteuid"):
        return True
    for parent in Path(os.path.realpath(folder)).parents:
        found = os.lstat(parent)
        foreign = stat.S_IWOTH if found.st_gid == os.getegid() else _OTHERS_WRITE
        is_safe = not found.st_mode & foreign or found.st_mode & stat.S_ISVTX
        if found.st_uid not in owners | {0} or not is_safe:
            return False
    return True


def make_private_folder(folder: Path, owners: frozenset[int], *, mode: int) -> bool:
    """Make a folder, and those above it, where they are missing; whether it is private then.

    Parameters
    ----------
    mode : int
        Rights of each folder that is made.

    Raises
    ------
    OSError
        It cannot be made.
    """
    for path in reversed([folder, *folder.parents]):
        if not path.is_symlink() and not path.exists():
            path.mkdir(mode=mode, exist_ok=True)
    return is_private_folder(folder, owners)
