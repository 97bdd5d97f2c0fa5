"""Checkpoints of a training run: one file, replaced whole after each epoch, and its CSV log."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import torch

from ildsdk.errors import ConfigError


class Checkpoint:
    """State of one stage on disk, resumable after a kill.

    Parameters
    ----------
    path : Path
        ``.pt`` file; a ``.csv`` beside it holds the log.
    fingerprint : str
        What the run depends on (settings, data). A checkpoint of another run is refused.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.log: list[dict[str, float | int | str | None]] = []

    def load(self) -> dict[str, Any] | None:
        """State of the last finished epoch, or None where there is none.

        Raises
        ------
        ConfigError
            The file belongs to a run with other settings or data.
        """
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            raise ConfigError(
                f"checkpoint {self.path.name} belongs to a run with other settings or data; use "
                "another folder or delete it"
            )
        self.log = state["log"]
        return state

    def save(self, state: dict[str, Any], entry: dict[str, float | int | str | None]) -> None:
        """Write the state and the log with one more entry; readers see the old or the new file."""
        self.log.append(entry)
        draft = self.path.with_suffix(".partial")
        torch.save({**state, "fingerprint": self.fingerprint, "log": self.log}, draft)
        os.replace(draft, self.path)
        with self.path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(entry))
            writer.writeheader()
            writer.writerows(self.log)
