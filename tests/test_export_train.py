"""Tiny training runs end to end: resume equals uninterrupted, export, evaluation."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.augment import AugmentSettings, augment  # noqa: E402
from export.bundling import assemble_bundle, export_trained  # noqa: E402
from export.dataset import SliceSet  # noqa: E402
from export.evaluate import evaluate  # noqa: E402
from export.train import load_trained, train  # noqa: E402
from export.train_settings import TrainSettings  # noqa: E402
from ildsdk.bundle import Bundle  # noqa: E402
from ildsdk.errors import ConfigError  # noqa: E402
from ildsdk.settings import MethodSettings  # noqa: E402

TINY = TrainSettings(
    schedule=((32, 1), (48, 1)), batch_size=6, fusion_epochs=2, fusion_per_class=2,
    fusion_views=2, embedding_size=16, validate_every=2,
    n_threads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def slices() -> SliceSet:
    """Two classes, three cases each, told apart by brightness and by feature 0."""
    rng = np.random.default_rng(0)
    number = np.repeat([0, 1], 9)
    images = rng.random((18, 1, 64, 64)) * 0.3 + number[:, None, None, None] * 0.5
    return SliceSet(
        images=images.astype(np.float16),
        radiomics=rng.normal(size=(18, 102)) + 3 * number[:, None] * (np.arange(102) == 0),
        labels=tuple("AB"[n] for n in number),
        case_ids=tuple(f"{'AB'[n]}{i % 3}" for i, n in enumerate(number)),
        position_mm=tuple(10.0 * i for i in range(18)),
        method=MethodSettings(input_size=64),
    )


@pytest.fixture(scope="module")
def trained_folder(slices, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("training")
    train(slices, out, TINY, test_share=0.34, show_progress=False)
    return out


def test_training_leaves_weights_and_logs(trained_folder, slices) -> None:
    trained = load_trained(trained_folder / "model.pt")
    assert (len(trained.train_cases), len(trained.held_out_cases)) == (4, 2)
    rows = slices.rows_of(trained.train_cases)
    np.testing.assert_allclose(trained.scaler.mean, slices.radiomics[rows].mean(axis=0))
    with (trained_folder / "classify.csv").open() as stream:
        log = list(csv.DictReader(stream))
    assert [(row["epoch"], row["side"]) for row in log] == [("1", "32"), ("2", "48")]
    with (trained_folder / "contrast.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2


def test_run_killed_in_both_stages_and_resumed_equals_an_uninterrupted_one(
    slices, trained_folder, tmp_path, monkeypatch
) -> None:
    from export.checkpoints import Checkpoint

    save = Checkpoint.save

    for stage in ("classify", "contrast"):

        def killed(self, state, entry, stage=stage):
            save(self, state, entry)
            if self.path.stem == stage:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", killed)
            with pytest.raises(KeyboardInterrupt):
                train(slices, tmp_path, TINY, test_share=0.34, show_progress=False)
    train(slices, tmp_path, TINY, test_share=0.34, show_progress=False)
    expected = torch.load(trained_folder / "model.pt", weights_only=True)
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    for part in ("backbone", "fusion"):
        for name, value in expected[part].items():
            assert torch.equal(found[part][name], value), name


def test_checkpoint_of_another_run_is_refused(slices, trained_folder) -> None:
    other = TrainSettings(**{**{f: getattr(TINY, f) for f in TINY.__slots__}, "seed": 9})
    with pytest.raises(ConfigError, match="other settings or data"):
        train(slices, trained_folder, other, test_share=0.34, show_progress=False)


def test_export_evaluate_and_bundle_of_a_trained_model(trained_folder, slices, tmp_path) -> None:
    trained = load_trained(trained_folder / "model.pt")
    lines: list[str] = []
    export_trained(slices, trained, tmp_path / "onnx", say=lines.append)
    assert len(lines) == 6
    result = evaluate(
        slices, trained, tmp_path / "onnx", tmp_path / "evaluation", is_synthetic=True,
        show_progress=False,
    )  # fmt: skip
    assert set(result["systems"]) == {"fusion", "deep", "radiomics"}
    assert result["systems"]["fusion"]["n_query_slices"] == 6
    report = (tmp_path / "evaluation" / "evaluation.md").read_text()
    assert report.count("PHANTOM (synthetic)") == 3
    json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assemble_bundle(
        tmp_path / "bundle", "tiny", trained, tmp_path / "onnx", tmp_path / "evaluation",
        slices.method, is_synthetic=True, license="Apache-2.0", intended_use="Tests.",
    )  # fmt: skip
    bundle = Bundle.open(tmp_path / "bundle")
    assert (bundle.labels, bundle.embedding_size) == (("A", "B"), 16)
    assert bundle.provenance["training"]["settings"]["seed"] == 0


def test_augmentation_stays_in_range_keeps_the_outside_and_follows_the_seed() -> None:
    images = torch.zeros(4, 1, 64, 64)
    images[:, :, 16:48, 16:48] = 0.2 + 0.5 * torch.rand(4, 1, 32, 32)

    def run(seed: int, **changes) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return augment(images, 64, 1500.0, AugmentSettings(**changes), generator)

    first = run(0)
    assert first.shape == images.shape
    assert 0 <= first.min() <= first.max() <= 1
    assert (first[:, :, :4] == 0).all()  # noise and offset stop at the mask
    assert torch.equal(first, run(0))
    assert not torch.equal(first, run(1))
    still = {name: 0.0 for name in AugmentSettings.__dataclass_fields__}
    torch.testing.assert_close(run(0, **still), images, rtol=0, atol=1e-5)
    flipped = run(0, **{**still, "flip_probability": 1.0})
    torch.testing.assert_close(flipped, images.flip(3), rtol=0, atol=1e-5)
    offset = run(0, **{**still, "offset_hu": 15.0})
    change = (offset - images)[:, :, 16:48, 16:48].abs()
    assert 0 < change.max() <= 0.01 + 1e-5  # 15 of 1500 HU


def test_settings_refuse_nonsense() -> None:
    for bad in ({"schedule": ()}, {"batch_size": 1}, {"margin": 0}, {"fusion_views": 0}):
        with pytest.raises(ConfigError):
            TrainSettings(**bad)


def test_help_is_fast_and_loads_no_torch() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom export.cli import main\n"
        "out = CliRunner().invoke(main, ['default-bundle', '--help'])\n"
        "assert out.exit_code == 0 and '--work' in out.output, out.output\n"
        "assert not {'torch', 'onnx', 'numba'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
