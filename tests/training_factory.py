"""Tiny slice sets and settings for tests of the training side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from export.checkpoints import Checkpoint
from export.dataset import SliceSet
from export.train_settings import TrainSettings
from ildsdk.settings import MethodSettings

TINY = TrainSettings(
    schedule=((32, 3),), batch_size=4, fusion_epochs=3, fusion_per_class=2, fusion_views=2,
    embedding_size=8, validate_every=2, n_threads=1,
)  # fmt: skip


def tiny_slices(
    n_cases: int = 8, per_case: int = 2, side: int = 32, n_radiomics: int = 16
) -> SliceSet:
    """Two classes told apart by brightness and by feature 0; cases A0, A1, ..., B0, B1, ..."""
    rng = np.random.default_rng(0)
    n = n_cases * per_case
    number = np.repeat([0, 1], n // 2)
    images = rng.random((n, 1, side, side)) * 0.3 + number[:, None, None, None] * 0.5
    case = np.arange(n) // per_case % (n_cases // 2)
    radiomics = rng.normal(size=(n, n_radiomics))
    radiomics[:, 0] += 3 * number
    return SliceSet(
        images=images.astype(np.float16),
        radiomics=radiomics,
        labels=tuple("AB"[c] for c in number),
        case_ids=tuple(f"{'AB'[c]}{i}" for c, i in zip(number, case, strict=True)),
        position_mm=tuple(10.0 * i for i in range(n)),
        method=MethodSettings(input_size=side),
    )


@contextmanager
def killed_at_save(
    monkeypatch: pytest.MonkeyPatch, number: int, stage: str, *, while_writing: bool = False
) -> Iterator[None]:
    """The ``number``-th checkpoint (from 1) of the stage ends the run, as a kill would.

    ``while_writing``: half of its file is on the disk by then, else all of it.
    """
    save, write, seen = Checkpoint.save, torch.save, 0

    def half_written(state, path: Path) -> None:
        write(state, path)
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) // 2])
        raise KeyboardInterrupt

    def dying(self, state, entry) -> None:
        nonlocal seen
        if self.path.stem != stage:
            save(self, state, entry)
            return
        seen += 1
        if seen < number:
            save(self, state, entry)
        elif while_writing:
            patch.setattr(torch, "save", half_written)
            save(self, state, entry)
        else:
            save(self, state, entry)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            yield


def assert_same_weights(found: dict, expected: dict) -> None:
    """Two state dicts, bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
