"""A tiny trained bundle, its prepared set and index, for the int8 export: seconds, not minutes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.compress import compress_weights
from export.dataset import SliceSet
from ildsdk.bundle import Bundle, write_bundle
from ildsdk.index import Index, ItemRecord
from ildsdk.radiomics.names import FEATURE_NAMES
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings
from tests.bundle_factory import write_fusion

SIDE, N_DEEP, N_MIDDLE = 32, 8, 96
LABELS = ("A", "B")
TRAIN = tuple(f"{label}-{number}" for label in LABELS for number in range(4))
HELD_OUT = tuple(f"{label}-{number}" for label in LABELS for number in (4, 5))
N_PER_CASE = 4


@dataclasses.dataclass(frozen=True)
class World:
    bundle: Bundle
    slices: SliceSet
    index: Path


def float_backbone(rng: np.random.Generator) -> onnx.ModelProto:
    """Convolutions with ReLU, max-pooling, and an addition: every kind of step there is."""

    def weights(name: str, *shape: int) -> list[onnx.TensorProto]:
        values = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        bias = rng.normal(size=shape[0]) * 0.1
        return [
            numpy_helper.from_array(values.astype(np.float32), f"{name}.weight"),
            numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias"),
        ]

    def conv(name: str, source: str, side: int) -> onnx.NodeProto:
        pad = side // 2
        return helper.make_node(
            "Conv", [source, f"{name}.weight", f"{name}.bias"], [f"{name}.out"], name=f"/{name}",
            kernel_shape=[side, side], pads=[pad] * 4, strides=[1, 1],
        )  # fmt: skip

    nodes = [
        conv("first", "image", 3),
        helper.make_node("Relu", ["first.out"], ["first.relu"], name="/relu"),
        helper.make_node(
            "MaxPool", ["first.relu"], ["pooled"], name="/pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        conv("branch", "pooled", 3),
        conv("skip", "pooled", 1),
        helper.make_node("Add", ["branch.out", "skip.out"], ["sum"], name="/add"),
        helper.make_node("Relu", ["sum"], ["sum.relu"], name="/relu_1"),
        conv("last", "sum.relu", 3),
        helper.make_node("Relu", ["last.out"], ["feature_map"], name="/relu_2"),
        helper.make_node("GlobalAveragePool", ["feature_map"], ["p"], name="/average"),
        helper.make_node("Flatten", ["p"], ["deep_features"], name="/flatten"),
    ]
    grid = SIDE // 2
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("deep_features", TensorProto.FLOAT, ["batch", N_DEEP]),
            helper.make_tensor_value_info(
                "feature_map", TensorProto.FLOAT, ["batch", N_DEEP, grid, grid]
            ),
        ],
        [
            *weights("first", 16, 1, 3, 3),
            *weights("branch", N_MIDDLE, 16, 3, 3),
            *weights("skip", N_MIDDLE, 16, 1, 1),
            *weights("last", N_DEEP, N_MIDDLE, 3, 3),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_world(folder: Path) -> World:
    rng = np.random.default_rng(7)
    parts = folder / "parts"
    parts.mkdir(parents=True)
    onnx.save(compress_weights(float_backbone(rng)), parts / "backbone.onnx")
    write_fusion(parts / "fusion.onnx", rng)
    n_features = len(FEATURE_NAMES)
    bundle = write_bundle(
        folder / "bundle",
        name="tiny",
        method=MethodSettings(input_size=SIDE),
        backbone=parts / "backbone.onnx",
        fusion=parts / "fusion.onnx",
        scaler=FeatureScaler(np.zeros(n_features), np.ones(n_features)),
        labels=LABELS,
        embedding_size=16,
        gem_p=3.0,
        is_synthetic=True,
        provenance={"training": {"train_cases": TRAIN, "held_out_cases": HELD_OUT}},
        figures={},
        license="Apache-2.0",
        intended_use="tests",
    )
    slices = _slices(rng)
    return World(bundle, slices, _index(folder / "index", bundle, slices))


def _slices(rng: np.random.Generator) -> SliceSet:
    cases = [case for case in (*TRAIN, *HELD_OUT) for _ in range(N_PER_CASE)]
    labels = tuple(case[0] for case in cases)
    own = np.array([LABELS.index(label) for label in labels])
    n = len(cases)
    images = rng.random((n, 1, SIDE, SIDE)) * np.where(own, 0.9, 0.4)[:, None, None, None]
    images[:, :, :4] = 0
    return SliceSet(
        images=images.astype(np.float16),
        radiomics=rng.normal(size=(n, len(FEATURE_NAMES))) * 0.05 + own[:, None] * 0.2,
        labels=labels,
        case_ids=tuple(cases),
        position_mm=(None,) * n,
        method=MethodSettings(input_size=SIDE),
    )


def _index(folder: Path, bundle: Bundle, slices: SliceSet) -> Path:
    from export.quantization.embedding import deep_features, embed
    from export.quantization.queries import prepared_queries

    rows = slices.rows_of(TRAIN)
    queries = prepared_queries(slices, rows, bundle)
    embeddings = embed(
        bundle.fusion, deep_features(bundle.backbone, queries.images), queries.radiomics
    )
    items = [
        ItemRecord(
            item_id=f"1.2.{row}", case_id=slices.case_ids[row], label=slices.labels[row],
            study_instance_uid=f"1.3.{slices.case_ids[row][2:]}", series_instance_uid="1.4",
            sop_instance_uid=f"1.2.{row}",
        )
        for row in rows
    ]  # fmt: skip
    with Index.create(
        folder, bundle_hash=bundle.bundle_hash, embedding_size=16, name="tiny", is_synthetic=True
    ) as index:
        index.add(embeddings, items, [b"picture"] * len(items))
    return folder
