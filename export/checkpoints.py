"""Checkpoints of a training stage: one file, replaced whole after each epoch, and its log."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ildsdk.errors import ConfigError

Entry = dict[str, float | int | str | None]


class Checkpoint:
    """State of one stage on disk, resumable after a kill at any moment.

    Parameters
    ----------
    path : Path
        ``.pt`` file; a ``.csv`` beside it holds the log.
    fingerprint : str
        What the run depends on (settings, data). A checkpoint of another run is refused.
    tensorboard : bool
        Also write each entry's numbers for TensorBoard, in ``tensorboard/`` beside the file.

    Raises
    ------
    ConfigError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, fingerprint: str, tensorboard: bool = False) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.log: list[Entry] = []
        self._writer = _tensorboard_writer(path) if tensorboard else None

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
        self._write_csv()  # a kill may have come between checkpoint and log
        return state

    def save(self, state: Mapping[str, Any], entry: Entry | None) -> None:
        """Write the state and the log with one more entry; readers see the old or the new file."""
        if entry is not None:
            self.log.append(entry)
        draft = self.path.with_suffix(".partial")
        torch.save({**state, "fingerprint": self.fingerprint, "log": self.log}, draft)
        os.replace(draft, self.path)
        self._write_csv()
        if self._writer is not None and entry is not None:
            for name, value in entry.items():
                if isinstance(value, float | int):
                    self._writer.add_scalar(name, value, entry["epoch"])
            self._writer.flush()

    def _write_csv(self) -> None:
        if not self.log:
            return
        draft = self.path.with_suffix(".csv.partial")
        with draft.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(self.log[0]))
            writer.writeheader()
            writer.writerows(self.log)
        os.replace(draft, self.path.with_suffix(".csv"))


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: names, shapes and values, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _tensorboard_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "logs for TensorBoard need the package tensorboard, which is not installed: "
            "`pip install tensorboard`, or leave the setting off (the CSV log is always written)"
        ) from error
    return SummaryWriter(path.parent / "tensorboard" / path.stem)
