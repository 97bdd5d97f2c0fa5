"""The six systems: what each trains, that its vectors are what its stage says, its file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.models.ild_ffn import IldFfn  # noqa: E402
from export.models.projection import Projection  # noqa: E402
from export.systems import SYSTEMS  # noqa: E402
from export.train import TrainedSystem, load_trained, train_system  # noqa: E402
from export.train_settings import (  # noqa: E402
    _BOTH_STAGES,
    _STAGE_1,
    _STAGE_2,
    TrainSettings,
)
from export.training_data import hold_out_validation  # noqa: E402
from ildsdk.errors import ConfigError  # noqa: E402
from tests.training_factory import (  # noqa: E402
    TINY,
    assert_same_weights,
    killed_at_save,
    tiny_slices,
)

torch.set_num_threads(1)
TRAIN = ("A0", "A1", "A2", "B0", "B1", "B2")
SHORT = dataclasses.replace(TINY, schedule=((32, 1),), fusion_epochs=1)


@pytest.fixture(scope="module")
def slices():
    return tiny_slices()


@pytest.fixture(scope="module")
def fold(slices, tmp_path_factory):
    """All six systems of one fold, trained side by side as an experiment does."""
    folder = tmp_path_factory.mktemp("fold-0")
    trained = {
        name: train_system(
            slices, TRAIN, system, folder / name, SHORT,
            classify_folder=folder / f"classify-{system.backbone}",
            maps_path=folder / "maps.npy", show_progress=False,
        )
        for name, system in SYSTEMS.items()
    }  # fmt: skip
    return folder, trained


def test_the_systems_are_those_of_table_2() -> None:
    assert [(s.name, s.title, s.backbone, s.head) for s in SYSTEMS.values()] == [
        ("vgg", "VGG", "vgg16", "none"),
        ("alexnet", "AlexNet", "alexnet", "none"),
        ("resnet50", "ResNet50", "resnet50", "none"),
        ("omic", "Omic (radiomics alone)", None, "none"),
        ("resnet50-scl", "ResNet50 + SCL", "resnet50", "projection"),
        ("ild-ffn-scl", "ILD-FFN + SCL", "resnet50", "ild-ffn"),
    ]


def test_each_system_embeds_as_its_stage_says(fold, slices) -> None:
    _, trained = fold
    rows = slices.rows_of(TRAIN)
    mean, scale = slices.radiomics[rows].mean(axis=0), slices.radiomics[rows].std(axis=0)
    radiomics = np.clip((slices.radiomics - mean) / scale, -6, 6).astype(np.float32)
    images = torch.from_numpy(slices.images.astype(np.float32))
    sizes = {}
    for name, system in trained.items():
        found = system.embed(slices)
        sizes[name] = found.shape[1]
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        with torch.inference_mode():
            if name == "omic":
                raw = radiomics
            else:
                deep = system.backbone.gem(system.backbone.feature_map(images))
                raw = deep.numpy()
                if system.head is not None:
                    raw = system.head.fused(deep, torch.from_numpy(radiomics)).numpy()
        expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        part = np.array([3, 14])
        np.testing.assert_allclose(system.embed(slices, part), found[part], atol=2e-5)
    assert sizes == {
        "vgg": 512, "alexnet": 256, "resnet50": 2048, "omic": 16, "resnet50-scl": 8,
        "ild-ffn-scl": 8,
    }  # fmt: skip
    assert isinstance(trained["resnet50-scl"].head, Projection)
    assert isinstance(trained["ild-ffn-scl"].head, IldFfn)


def test_the_systems_of_a_fold_share_stage_1(fold) -> None:
    folder, trained = fold
    own = trained["resnet50"].backbone.state_dict()
    for name in ("resnet50-scl", "ild-ffn-scl"):
        theirs = trained[name].backbone.state_dict()
        trunk = [key for key in own if not key.startswith("layer4.2.")]
        assert_same_weights({k: theirs[k] for k in trunk}, {k: own[k] for k in trunk})
        # Stage 2 trains the last block; its batch norms keep their statistics.
        assert not torch.equal(theirs["layer4.2.conv2.weight"], own["layer4.2.conv2.weight"])
        assert torch.equal(theirs["layer4.2.bn3.running_var"], own["layer4.2.bn3.running_var"])
    assert len(list(folder.glob("**/classify.pt"))) == 3
    assert len(list(folder.glob("**/maps*.npy"))) == 1


def test_files_load_to_the_same_vectors_and_hold_no_code(fold, slices) -> None:
    folder, trained = fold
    for name, system in trained.items():
        path = folder / name / "model.pt"
        torch.load(path, weights_only=True)
        again = TrainedSystem.load(path)
        np.testing.assert_array_equal(again.embed(slices), system.embed(slices))
        assert again.system == SYSTEMS[name]
        assert (again.train_cases, again.held_out_cases) == (TRAIN, ("A3", "B3"))
    assert load_trained(folder / "ild-ffn-scl" / "model.pt").fusion.n_radiomics == 16
    with pytest.raises(ConfigError, match="'vgg'"):
        load_trained(folder / "vgg" / "model.pt")


def test_fold_killed_between_the_stages_and_in_stage_2_ends_the_same(
    fold, slices, tmp_path, monkeypatch
) -> None:
    _, trained = fold

    def run():
        return train_system(
            slices, TRAIN, SYSTEMS["ild-ffn-scl"], tmp_path, SHORT, show_progress=False
        )

    with killed_at_save(monkeypatch, 2, "classify"):  # stage 1 is whole, nothing else begun
        run()
    assert not (tmp_path / "maps.npy").exists()
    with killed_at_save(monkeypatch, 1, "contrast"):
        run()
    found, expected = run(), trained["ild-ffn-scl"]
    assert_same_weights(found.backbone.state_dict(), expected.backbone.state_dict())
    assert_same_weights(found.head.state_dict(), expected.head.state_dict())
    np.testing.assert_array_equal(found.embed(slices), expected.embed(slices))


def test_bfloat16_trains_near_float32_and_keeps_float32_weights(slices, tmp_path) -> None:
    from export.train_backbone import classify

    runs = {}
    for precision in ("float32", "bfloat16"):
        settings = dataclasses.replace(TINY, precision=precision)
        runs[precision] = classify(
            slices, TRAIN, "alexnet", tmp_path / precision, settings, show_progress=False
        )
    losses = [[entry["loss"] for entry in run.log] for run in runs.values()]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert losses[0] != losses[1]  # or the setting would do nothing
    assert {p.dtype for p in runs["bfloat16"].backbone.parameters()} == {torch.float32}


def test_validation_cases_come_out_of_the_training_cases(slices, tmp_path) -> None:
    settings = dataclasses.replace(SHORT, patience=1, validation_share=0.4)
    fitted, validation = hold_out_validation(slices, TRAIN, settings)
    assert sorted(fitted + validation) == sorted(TRAIN)
    assert sorted(case[0] for case in validation) == ["A", "B"]
    assert hold_out_validation(slices, TRAIN, SHORT) == (sorted(TRAIN), [])
    trained = train_system(
        slices, TRAIN, SYSTEMS["alexnet"], tmp_path, settings, show_progress=False
    )
    assert trained.validation_cases == tuple(validation)
    assert not set(trained.validation_cases) & set(trained.held_out_cases)
    with pytest.raises(ConfigError, match="'A3' is not a training case"):
        train_system(
            slices, TRAIN, SYSTEMS["alexnet"], tmp_path / "x", settings,
            validation_cases=["A3"], show_progress=False,
        )  # fmt: skip


def test_every_setting_counts_for_a_stage_or_is_known_not_to() -> None:
    """A setting that changes weights and stands in no list would let a stale checkpoint pass."""
    free = {"validation_share", "validate_every", "tensorboard"}  # the cases are in the fingerprint
    known = set(_BOTH_STAGES) | set(_STAGE_1) | set(_STAGE_2) | free
    assert {field.name for field in dataclasses.fields(TrainSettings)} == known


def test_other_settings_of_stage_2_leave_stage_1_as_it_is(fold, slices, tmp_path) -> None:
    folder, _ = fold
    other = dataclasses.replace(SHORT, margin=0.5, loss="supcon")
    before = (folder / "classify-resnet50" / "classify.pt").stat().st_mtime_ns
    trained = train_system(
        slices, TRAIN, SYSTEMS["resnet50-scl"], tmp_path, other,
        classify_folder=folder / "classify-resnet50", maps_path=folder / "maps.npy",
        show_progress=False,
    )  # fmt: skip
    assert trained.description["settings"]["loss"] == "supcon"
    assert (folder / "classify-resnet50" / "classify.pt").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="other settings or data"):
        train_system(
            slices, TRAIN, SYSTEMS["resnet50-scl"], folder / "resnet50-scl", other,
            classify_folder=folder / "classify-resnet50", maps_path=folder / "maps.npy",
            show_progress=False,
        )  # fmt: skip
