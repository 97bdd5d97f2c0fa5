"""Model card and provenance: filled from what was recorded, and nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training side needs torch")

from export.dataset import SliceSet
from export.model_card import UNKNOWN, model_card
from export.models.gem import GeM
from export.models.ild_ffn import IldFfn
from export.provenance import data_hash, model_hash, versions
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings

HEADINGS = [
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
    "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
]  # fmt: skip
ABOUT = {
    "name": "tiny",
    "license": "Apache-2.0",
    "intended_use": "Testing.",
    "labels": ("A", "B"),
    "method": MethodSettings(input_size=64),
    "embedding_size": 16,
    "gem_p": 3.0,
}
FIGURES = {
    "systems": {
        "fusion": {
            "n_query_slices": 123, "n_query_cases": 7, "n_index_slices": 456, "n_index_cases": 21,
            "labels": ["A", "B"], "top_n": 10, "no_match_threshold": 0.9123,
            "slice_top1": {
                "precision": 0.711, "recall": 0.722, "f1": 0.733, "recall_by_class": [0.6, 0.844],
            },
            "precision_at_n": 0.744, "mean_average_precision": 0.755,
            "case_top1": {"accuracy": 0.766},
        }
    }
}  # fmt: skip


def sections(card: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", card, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_card_holds_what_was_recorded_under_mitchells_headings() -> None:
    provenance = {
        "training": {
            "settings": {"seed": 5}, "n_train_slices": 456, "train_cases": ["a"] * 21,
            "held_out_cases": ["case-x", "case-y"], "initial_weights_sha256": None,
        },
        "model_hash": "m" * 64, "data_sha256": "d" * 64, "git_commit": "c" * 40,
        "data": {"difficulty": 0.5}, "versions": {"torch": "9.9"},
    }  # fmt: skip
    card = model_card(**ABOUT, is_synthetic=True, provenance=provenance, figures=FIGURES)
    found = sections(card)
    assert list(found) == HEADINGS
    for heading, words in {
        "Model details": ["seed 5", "c" * 40, "m" * 64, "torch 9.9", "64 x 64", "random weights"],
        "Intended use": ["Testing.", "must not be used", "diagnosis", "on patients at all"],
        "Evaluation data": ["123 slices of 7 held-out cases", "case-x, case-y", "456 slices of 21"],
        "Training data": ["456 slices of 21 cases", "d" * 64, "difficulty 0.5", "phantom"],
        "Quantitative analyses": [
            "| 71.1 | 72.2 | 73.3 | 74.4 | 75.5 | 76.6 |",
            "A 60.0, B 84.4",
        ],
        "Caveats and recommendations": ["0.9123", "123 held-out slices"],
    }.items():
        for word in words:
            assert word in found[heading], (heading, word)
    assert UNKNOWN not in card.replace("How the figures", "")


@pytest.mark.parametrize("is_synthetic", [True, False])
def test_card_says_what_is_not_known_instead_of_guessing(is_synthetic) -> None:
    card = model_card(**ABOUT, is_synthetic=is_synthetic, provenance={}, figures={})
    found = sections(card)
    assert list(found) == HEADINGS
    unmeasured = ("Model details", "Metrics", "Evaluation data", "Training data")
    for heading in (*unmeasured, "Quantitative analyses", "Caveats and recommendations"):
        assert UNKNOWN in found[heading], heading
    assert ("phantom" in card) == is_synthetic
    assert ("Consent and permission for the data: not known" in card) != is_synthetic
    assert not re.search(r"\d+\.\d", found["Quantitative analyses"])


class Trained:
    def __init__(self) -> None:
        self.backbone, self.fusion = IldFfn(8, 8, 4), IldFfn(8, 8, 4)
        self.backbone.gem = GeM(3.0)
        self.scaler = FeatureScaler.fit(np.arange(24.0).reshape(8, 3))
        self.label_names = ("A", "B")


def test_model_hash_sees_weights_labels_and_method() -> None:
    trained, method = Trained(), MethodSettings(input_size=64)
    first = model_hash(trained, method)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert model_hash(trained, method) == first
    assert model_hash(trained, MethodSettings(input_size=96)) != first
    trained.label_names = ("A", "C")
    assert model_hash(trained, method) != first
    trained.label_names = ("A", "B")
    trained.backbone.gem.p = 4.0
    assert model_hash(trained, method) != first
    trained.backbone.gem.p = 3.0
    assert model_hash(trained, method) == first
    trained.scaler = FeatureScaler.fit(np.arange(24.0).reshape(8, 3) ** 2)
    assert model_hash(trained, method) != first
    trained.scaler = Trained().scaler
    trained.fusion.linear.bias.data[1] += 1e-3
    assert model_hash(trained, method) != first


def test_data_hash_sees_every_part_of_the_set() -> None:
    rng = np.random.default_rng(0)

    def made(**changes) -> SliceSet:
        parts = {
            "images": np.zeros((130, 1, 32, 32), np.float16),
            "radiomics": np.ones((130, 3)),
            "labels": ("A",) * 130,
            "case_ids": ("c",) * 130,
            "position_mm": (None,) * 130,
            "method": MethodSettings(input_size=32),
        }
        return SliceSet(**(parts | changes))

    late = np.zeros((130, 1, 32, 32), np.float16)
    late[129, 0, 31, 31] = 1
    different = [
        made(),
        made(images=late),
        made(radiomics=rng.random((130, 3))),
        made(labels=("B",) * 130),
        made(case_ids=("d",) * 130),
        made(position_mm=(1.0,) * 130),
    ]
    assert len({data_hash(slices) for slices in different}) == len(different)
    assert data_hash(made()) == data_hash(different[0])


def test_versions_name_what_computes() -> None:
    assert set(versions()) == {"python", "ildsdk", "torch", "onnx", "onnxruntime", "numpy"}
