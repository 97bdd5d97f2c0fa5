"""Where a model comes from: the commit of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """Commit of this checkout, with ``-dirty`` where tracked files differ; None outside one."""
    root = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
