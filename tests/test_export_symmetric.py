"""The symmetric 8-bit graph: what TensorRT's parser asks of it, and that it computes float32's."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
from onnx import TensorProto, numpy_helper  # noqa: E402

from export.quantization.activations import Distribution, collect, ranges  # noqa: E402
from export.quantization.bias_correction import correct_biases  # noqa: E402
from export.quantization.embedding import open_graph  # noqa: E402
from export.quantization.qdq import (  # noqa: E402
    Range,
    steps_of,
    symmetric_scale,
    tensors_of,
    to_qdq,
)
from tests.quantize_factory import World, make_world  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("symmetric"))


@pytest.fixture(scope="module")
def images(world: World) -> list[np.ndarray]:
    return [world.slices.images[row : row + 1].astype(np.float32) for row in range(6)]


@pytest.fixture(scope="module")
def model(world: World) -> onnx.ModelProto:
    return onnx.load(world.bundle.backbone)


@pytest.fixture(scope="module")
def limits(model: onnx.ModelProto, images: list[np.ndarray]) -> dict[str, Range]:
    seen = collect(model, tensors_of(steps_of(model, symmetric=True)), images)
    return ranges(seen, "mse", symmetric=True)


@pytest.fixture(scope="module")
def graph(model: onnx.ModelProto, limits: dict[str, Range]) -> onnx.ModelProto:
    return to_qdq(model, limits, symmetric=True)


def run(graph: onnx.ModelProto, image: np.ndarray, output: str = "feature_map") -> np.ndarray:
    return open_graph(graph.SerializeToString(), 1).run([output], {"image": image})[0]


def test_what_the_parser_of_tensorrt_asks(graph: onnx.ModelProto) -> None:
    """Three inputs, int8 only, zero points 0, scales above 0; biases are no integers."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    pairs = [n for n in graph.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 2 * 3 + 4  # three tensors that convolutions read, four weights
    for node in pairs:
        _, scale, zero = node.input
        assert constants[zero].data_type == TensorProto.INT8
        assert not numpy_helper.to_array(constants[zero]).any()
        assert (numpy_helper.to_array(constants[scale]) > 0).all()
        assert constants[zero].dims == constants[scale].dims
    weights = [node for node in pairs if node.input[0] in constants]
    assert len(weights) == 4
    assert all(constants[node.input[0]].data_type == TensorProto.INT8 for node in weights)
    for node in graph.graph.node:
        if node.op_type == "Conv":
            assert constants[node.input[2]].data_type == TensorProto.FLOAT
    kinds = {tensor.data_type for tensor in graph.graph.initializer}
    assert not kinds & {TensorProto.UINT8, TensorProto.INT32}
    assert [node.op_type for node in graph.graph.node].count("Relu") == 3
    onnx.checker.check_model(graph, full_check=True)


def test_only_what_convolutions_read_is_rounded(graph: onnx.ModelProto) -> None:
    made_by = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        kinds = [made_by[name].op_type for name in node.input if name in made_by]
        if node.op_type == "Conv":
            assert kinds == ["DequantizeLinear"] * 2
        elif node.op_type != "DequantizeLinear":
            assert "DequantizeLinear" not in kinds


def test_it_computes_what_float32_computes(
    model: onnx.ModelProto, graph: onnx.ModelProto, images: list[np.ndarray]
) -> None:
    for image in images:
        expected, found = run(model, image), run(graph, image)
        assert found.min() >= 0
        assert 0 < np.abs(found - expected).max() < 0.1 * expected.max()


def test_its_weights_are_those_of_the_backbone(
    model: onnx.ModelProto, graph: onnx.ModelProto
) -> None:
    stored = {t.name: t.raw_data for t in model.graph.initializer if t.data_type == 3}
    assert len(stored) == 2
    kept = {tensor.name: tensor.raw_data for tensor in graph.graph.initializer}
    assert all(kept[name] == raw for name, raw in stored.items())


def test_scale_takes_the_larger_side() -> None:
    assert symmetric_scale((-1.0, 12.7)) == np.float32(0.1)
    assert symmetric_scale((-12.7, 1.0)) == np.float32(0.1)
    assert symmetric_scale((0.0, 0.0)) == 1.0


def test_half_the_levels_are_cut_earlier() -> None:
    """With 127 levels for what is never negative, a rare large value costs more than with 255."""
    counts = np.zeros(4096, np.int64)
    counts[:1024] = 10_000
    counts[1024:2048] = 20
    seen = {"x": Distribution(0.0, 4.0, counts)}
    signed = ranges(seen, "mse", symmetric=True)["x"][1]
    assert signed < ranges(seen, "mse")["x"][1]


def test_corrected_biases_take_the_shift_out(
    model: onnx.ModelProto, limits: dict[str, Range], images: list[np.ndarray]
) -> None:
    wide = {name: (low, 1.5 * high) for name, (low, high) in limits.items()}
    corrected = correct_biases(model, wide, (), images, symmetric=True)

    def shift(candidate: onnx.ModelProto) -> float:
        graph = to_qdq(candidate, wide, symmetric=True)
        change = [run(graph, image) - run(model, image) for image in images]
        return float(np.abs(np.mean(change, axis=(0, 1, 3, 4))).sum())

    assert shift(corrected) < 0.6 * shift(model)


def test_a_step_left_in_float(model: onnx.ModelProto, limits: dict[str, Range], images) -> None:
    names = [step.name for step in steps_of(model, symmetric=True)]
    assert names == ["/first", "/branch", "/skip", "/last"]
    all_float = to_qdq(model, limits, names, symmetric=True)
    assert np.array_equal(run(all_float, images[0]), run(model, images[0]))
