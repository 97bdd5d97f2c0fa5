"""A killed and resumed training ends with the weights of an uninterrupted one, bit for bit."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from torch import nn  # noqa: E402

from export.augment import AugmentSettings  # noqa: E402
from export.checkpoints import Checkpoint  # noqa: E402
from export.models.resnet import ResNet50  # noqa: E402
from export.train_backbone import classify  # noqa: E402
from export.train_contrast import contrast  # noqa: E402
from export.training_data import roles_of  # noqa: E402
from export.training_loop import learning_rate_factor, run_epochs  # noqa: E402
from export.trunk_maps import store_maps, trunk_maps  # noqa: E402
from ildsdk.errors import ConfigError  # noqa: E402
from tests.training_factory import (  # noqa: E402
    TINY,
    assert_same_weights,
    killed_at_save,
    tiny_slices,
)

torch.set_num_threads(1)
TRAIN, VALIDATION = ("A0", "A1", "A2", "B0", "B1", "B2"), ("A3", "B3")
STOPPING = dataclasses.replace(TINY, patience=1)


@pytest.fixture(scope="module")
def slices():
    return tiny_slices()


@pytest.fixture(scope="module")
def backbone() -> ResNet50:
    """Stands for a trained one: stage 2 does not ask where it comes from."""
    torch.manual_seed(0)
    return ResNet50().eval()


@pytest.mark.parametrize("settings", [TINY, STOPPING], ids=["plain", "early-stopping"])
def test_stage_1_killed_at_each_epoch(settings, slices, tmp_path, monkeypatch) -> None:
    def run(folder):
        return classify(
            slices, TRAIN, "alexnet", tmp_path / folder, settings,
            validation_cases=VALIDATION, show_progress=False,
        )  # fmt: skip

    expected = run("whole").backbone.state_dict()
    log = _log_without_seconds(tmp_path / "whole" / "classify.csv")
    for number in range(1, len(log) + 2):  # the last one is the final, optimizer-less file
        while_writing = number % 2 == 0
        with killed_at_save(monkeypatch, number, "classify", while_writing=while_writing):
            run(str(number))
        assert_same_weights(run(str(number)).backbone.state_dict(), expected)
        assert _log_without_seconds(tmp_path / str(number) / "classify.csv") == log


@pytest.mark.parametrize(
    ("head", "settings"),
    [
        ("ild-ffn", dataclasses.replace(TINY, fusion_epochs=2)),
        ("projection", STOPPING),
        ("projection", dataclasses.replace(TINY, fusion_epochs=2, loss="proxy-anchor")),
    ],
    ids=["ild-ffn", "projection-early-stopping", "proxies"],
)
def test_stage_2_killed_again_and_again(
    head, settings, slices, backbone, tmp_path, monkeypatch
) -> None:
    def run(folder):
        return contrast(
            slices, TRAIN, head, backbone, tmp_path / folder, settings,
            maps_path=tmp_path / "maps.npy", validation_cases=VALIDATION, show_progress=False,
        )  # fmt: skip

    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    expected = run("whole")
    assert_same_weights(backbone.state_dict(), before)  # shared by the systems of a fold
    changed = {
        name
        for name, value in expected.backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {f"layer4.2.{part}" for part in _BLOCK_WEIGHTS}
    n_epochs = len(expected.log)
    for number in range(1, n_epochs + 2):
        # Each pass is killed one checkpoint further on; the first while it writes.
        with killed_at_save(monkeypatch, 1, "contrast", while_writing=number == 1):
            run("killed")
    found = run("killed")
    assert_same_weights(found.head.state_dict(), expected.head.state_dict())
    assert_same_weights(found.backbone.state_dict(), expected.backbone.state_dict())


_BLOCK_WEIGHTS = [f"conv{i}.weight" for i in (1, 2, 3)] + [
    f"bn{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")
]


def test_kill_while_the_maps_are_written(slices, backbone, tmp_path, monkeypatch) -> None:
    def run():
        return contrast(
            slices, TRAIN, "projection", backbone, tmp_path, TINY, show_progress=False
        )  # fmt: skip

    with monkeypatch.context() as patch:
        patch.setattr("export.trunk_maps.trunk_maps", _raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (tmp_path / "maps.npy").exists()
    assert (tmp_path / "maps.partial").exists()
    run()
    stored = np.load(tmp_path / "maps.npy")
    # 12 training slices in 2 views; trained without a validation or a watched case.
    assert stored.shape == (24, 2048, 1, 1)
    assert stored.any(axis=(1, 2, 3)).all()


def test_stored_maps_are_the_trunk_of_each_slice_in_its_role(slices, backbone, tmp_path) -> None:
    roles = roles_of(slices, TRAIN[:5], ("B2",), VALIDATION)  # of unequal sizes
    still = AugmentSettings(**{name: 0.0 for name in AugmentSettings.__dataclass_fields__})
    stored = store_maps(slices, roles, backbone, TINY, still, tmp_path / "m.npy", False)
    rows = np.concatenate([roles.train, roles.validation, roles.watched])
    with torch.inference_mode():
        images = torch.from_numpy(slices.images[rows].astype(np.float32))
        expected = trunk_maps(backbone, images)
    places = np.arange(rows.size)
    # rtol: stored as float16
    torch.testing.assert_close(stored.read(places), expected, rtol=2e-3, atol=2e-3)
    n_train = roles.train.size
    # View 1 is augmented by nothing here, so it must equal view 0, place by place.
    again = stored.read(places[:n_train], np.ones(n_train, dtype=np.int64))
    torch.testing.assert_close(again, expected[:n_train], rtol=1e-2, atol=1e-2)


def _raise_interrupt(*_):
    raise KeyboardInterrupt


def test_both_heads_share_one_file_of_maps_and_another_trunk_does_not(
    slices, backbone, tmp_path
) -> None:
    path, short = tmp_path / "maps.npy", dataclasses.replace(TINY, fusion_epochs=1)

    def run(head, trunk):
        folder = tmp_path / f"{head}-{len(list(tmp_path.iterdir()))}"
        contrast(slices, TRAIN, head, trunk, folder, short, maps_path=path, show_progress=False)
        return path.stat().st_mtime_ns, path.read_bytes()

    first, again = run("ild-ffn", backbone), run("projection", backbone)
    assert first == again
    torch.manual_seed(1)
    other = ResNet50()
    assert run("projection", other)[1] != first[1]


def test_early_stopping_stops_and_keeps_the_best_epoch(tmp_path) -> None:
    module = nn.Linear(1, 1)
    figures = [0.5, 0.7, 0.7, 0.6, 0.9]

    def train_epoch(epoch, optimizer):
        with torch.no_grad():
            module.weight.fill_(float(epoch))
        return {"loss": 1.0}

    def run(path, patience):
        checkpoint = Checkpoint(tmp_path / path, "same")
        run_epochs(
            checkpoint, {"module": module},
            lambda: torch.optim.SGD(module.parameters(), lr=1.0), len(figures),
            train_epoch=train_epoch, measure=lambda epoch: ({}, (figures[epoch],)),
            patience=patience,
        )  # fmt: skip
        return len(checkpoint.log), module.weight.item()

    assert run("two.pt", 2) == (4, 1.0)  # an equal figure is no better one
    assert run("three.pt", 3) == (5, 4.0)
    assert run("off.pt", 0) == (5, 4.0)
    state = torch.load(tmp_path / "two.pt", weights_only=True)
    assert (state["kept_epoch"], "optimizer" in state) == (2, False)


def test_early_stopping_without_validation_cases_is_refused(slices, tmp_path) -> None:
    with pytest.raises(ConfigError, match="validation cases"):
        classify(slices, TRAIN, "alexnet", tmp_path, STOPPING, show_progress=False)


def test_a_case_with_two_roles_is_refused(slices, tmp_path) -> None:
    with pytest.raises(ConfigError, match="'A0' is both train and watched"):
        classify(
            slices, TRAIN, "alexnet", tmp_path, TINY, watched_cases=("A0",), show_progress=False
        )


def test_watched_cases_change_no_weight(slices, tmp_path) -> None:
    """Test cases stand in the log for information: with and without, the weights are the same."""
    with_them = classify(
        slices, TRAIN, "alexnet", tmp_path / "a", TINY, watched_cases=VALIDATION,
        show_progress=False,
    )  # fmt: skip
    without = classify(slices, TRAIN, "alexnet", tmp_path / "b", TINY, show_progress=False)
    assert_same_weights(with_them.backbone.state_dict(), without.backbone.state_dict())
    assert [entry["test_accuracy_for_information"] for entry in without.log] == [None] * 3
    figures = [entry["test_accuracy_for_information"] for entry in with_them.log]
    assert figures[0] is None  # every second epoch, and the last
    assert None not in figures[1:]


def test_a_loss_that_is_not_finite_ends_the_run(slices, tmp_path) -> None:
    wild = dataclasses.replace(TINY, learning_rate=1e30, lr_schedule="constant")
    with pytest.raises(ConfigError, match="diverged"):
        classify(slices, TRAIN, "alexnet", tmp_path, wild, show_progress=False)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5 * (1 + np.cos(np.pi * p)) for p in (0.125, 0.375, 0.625, 0.875)]),
        (
            "one-cycle",
            [0.125 / 0.15]
            + [0.5 * (1 + np.cos(np.pi * (p - 0.15) / 0.85)) for p in (0.375, 0.625, 0.875)],
        ),
    ],
)
def test_learning_rate_schedules(kind, expected) -> None:
    found = [learning_rate_factor(kind, step, 4) for step in range(4)]
    np.testing.assert_allclose(found, expected)


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        Checkpoint(tmp_path / "x.pt", "f", tensorboard=True)


def test_tensorboard_gets_the_numbers_of_each_epoch(tmp_path, monkeypatch) -> None:
    """The writer is a stand-in with SummaryWriter's calls: the package is not required."""
    import sys
    import types

    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder) -> None:
            self.folder = folder

        def add_scalar(self, name, value, step) -> None:
            written.append((name, value, step))

        def flush(self) -> None:
            pass

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    checkpoint = Checkpoint(tmp_path / "x.pt", "f", tensorboard=True)
    checkpoint.save({}, {"epoch": 1, "loss": 0.5, "validation_top1": None})
    assert written == [("epoch", 1, 1), ("loss", 0.5, 1)]


def _log_without_seconds(path) -> list[dict[str, str]]:
    with path.open() as stream:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(stream)
        ]
