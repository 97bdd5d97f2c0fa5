"""Export to ONNX: contract, parity gate, compressed weights."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402

from export import to_onnx  # noqa: E402
from export.compress import compress_weights  # noqa: E402
from export.explain.locations import Locations  # noqa: E402
from export.folding import FoldedBackbone  # noqa: E402
from export.models.ild_ffn import IldFfn  # noqa: E402
from export.models.resnet import ResNet50  # noqa: E402
from export.onnx_graph import run_graph, traced  # noqa: E402
from ildsdk.errors import ModelError  # noqa: E402

SIDE = 64
torch.set_num_threads(1)  # two threads on a busy machine wait for each other


@pytest.fixture(scope="module")
def networks() -> tuple[ResNet50, IldFfn]:
    torch.manual_seed(0)
    backbone, fusion = ResNet50().eval(), IldFfn(2048, 102, 128).eval()
    for module in [*backbone.modules(), *fusion.modules()]:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.3, 0.7)
    return backbone, fusion


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.random((4, 1, SIDE, SIDE), dtype=np.float32),
        "radiomics": rng.normal(size=(4, 102)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def exported(networks, inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("onnx")
    lines: list[str] = []
    report = to_onnx.export_models(
        *networks, out, **inputs, metadata={"model_hash": "0" * 64}, say=lines.append
    )
    return report, lines


def test_files_keep_the_contract(exported) -> None:
    report, lines = exported
    contract = {
        report.backbone: {
            "image": ["batch", 1, SIDE, SIDE],
            "deep_features": ["batch", 2048],
            "feature_map": ["batch", 2048, SIDE // 32, SIDE // 32],
        },
        report.fusion: {
            "deep_features": ["batch", 2048],
            "radiomics": ["batch", 102],
            "embedding": ["batch", 128],
        },
        report.explain: {
            "feature_map": ["batch", 2048, SIDE // 32, SIDE // 32],
            "radiomics": ["batch", 102],
            "locations": ["batch", (SIDE // 32) ** 2, 128],
        },
    }
    for path, axes in contract.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = {v.name: v.shape for v in (*session.get_inputs(), *session.get_outputs())}
        assert found == axes
        graph = onnx.load(path, load_external_data=False)
        assert [(o.domain, o.version) for o in graph.opset_import] == [("", to_onnx.OPSET)]
        assert not any(t.external_data for t in graph.graph.initializer)
        assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
        about = {prop.key: prop.value for prop in graph.metadata_props}
        assert about["gem_p"] == "3"
        assert about["opset"] == "17"
        assert about["model_hash"] == "0" * 64
        assert about["weights"] == ("int8 per channel" if path == report.backbone else "float32")
        assert f"{about['role']}.onnx" == path.name
    # Pads and cuts go into the convolutions, or ONNX Runtime changes the layout around each.
    fusion_operators = {node.op_type for node in onnx.load(report.fusion).graph.node}
    assert not fusion_operators & {"Pad", "Slice"}
    assert report.backbone.stat().st_size < 25e6
    assert sorted(p.name for p in report.backbone.parent.iterdir()) == [
        "backbone.onnx",
        "explain.onnx",
        "fusion.onnx",
    ]
    checked = ("deep_features", "feature_map", "embedding", "locations", "maps")
    for line, output in zip(lines[:-1], checked, strict=True):
        assert f"{output}: torch vs ONNX Runtime max" in line
    assert "cosine" in lines[-1]


def test_files_answer_as_torch_does(exported, networks, inputs) -> None:
    report, _ = exported
    backbone, fusion = networks
    with torch.inference_mode():
        expected = fusion(
            backbone(torch.from_numpy(inputs["images"])), torch.from_numpy(inputs["radiomics"])
        ).numpy()
    x = run_graph(onnx.load(report.backbone), {"image": inputs["images"]})
    found = run_graph(
        onnx.load(report.fusion), {"deep_features": x, "radiomics": inputs["radiomics"]}
    )
    assert (found * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert all(p.max_difference <= 1e-5 * max(1, p.largest_value) for p in report.parity)


def test_deep_features_alone_are_those_of_a_graph_without_feature_map(networks, inputs) -> None:
    class DeepOnly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.folded = FoldedBackbone(networks[0])

        def forward(self, image):
            return self.folded(image)[0]

    image = {"image": inputs["images"]}
    old = traced(DeepOnly(), image, ["deep_features"], {})
    new = traced(FoldedBackbone(networks[0]), image, ["deep_features", "feature_map"], {})
    np.testing.assert_array_equal(run_graph(new, image, "deep_features"), run_graph(old, image))
    # One ReLU more, which ONNX Runtime else merges with GeM's clamp, and no other node.
    counts = [Counter(node.op_type for node in graph.graph.node) for graph in (old, new)]
    assert counts[1] - counts[0] == Counter(Relu=1)
    assert counts[0] - counts[1] == Counter()


def test_simplifying_leaves_no_constants_to_fold(networks) -> None:
    locations = Locations(networks[1], networks[0].gem).eval()
    example = {
        "feature_map": np.ones((2, 2048, 2, 2), np.float32),
        "radiomics": np.ones((2, 102), np.float32),
    }
    graph = traced(locations, example, ["locations"], {}).graph
    assert len(graph.node) < 120  # 267 before
    assert not {"Constant", "Identity"} & {node.op_type for node in graph.node}
    # No weight is stored twice.
    fusion = sum(p.numel() for p in networks[1].parameters())
    assert sum(math.prod(t.dims) for t in graph.initializer) < 1.02 * fusion


def test_onnx_runtime_folds_compressed_weights_to_plain_convolutions(exported, tmp_path) -> None:
    report, _ = exported
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(report.backbone, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Cast", "Mul"}
    weights = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert weights[node.input[1]].data_type == onnx.TensorProto.FLOAT


def test_compression_rounds_each_weight_by_half_a_step_at_most() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(32, 16, 3, 3)).astype(np.float32)
    weight[5] = 0
    helper = onnx.helper
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [1, 16, 3, 3])],
        [value("y", onnx.TensorProto.FLOAT, [1, 32, 1, 1])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    small = compress_weights(model)
    onnx.checker.check_model(small, full_check=True)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in small.graph.initializer}
    assert stored["w.int8"].dtype == np.int8
    again = stored["w.int8"].astype(np.float32) * stored["w.scale"]
    half_step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127 / 2
    assert (np.abs(again - weight) <= half_step * (1 + 1e-5)).all()
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).dtype == np.float32


@pytest.mark.parametrize("victim", ["FoldedBackbone", "FoldedFusion", "Locations"])
def test_parity_gate_fails_on_perturbed_weights_and_leaves_no_file(
    victim, networks, inputs, tmp_path, monkeypatch
) -> None:
    original = getattr(to_onnx, victim)

    def perturbed(*trained):
        folded = original(*trained)
        with torch.no_grad():
            for weight in (*folded.parameters(), *folded.buffers()):
                if weight.ndim > 1:  # one channel of each weight, by one percent
                    weight[0].mul_(1.01)
        return folded

    monkeypatch.setattr(to_onnx, victim, perturbed)
    with pytest.raises(ModelError, match="torch vs ONNX Runtime max"):
        to_onnx.export_models(*networks, tmp_path / "out", **inputs, compress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_parity_gate_fails_on_a_wrong_weight_in_the_explain_graph(
    networks, inputs, tmp_path, monkeypatch
) -> None:
    def planted(module, example, outputs, metadata):
        graph = traced(module, example, outputs, metadata)
        for tensor in graph.graph.initializer:
            if tensor.name == "of_deep":
                value = onnx.numpy_helper.to_array(tensor).copy()
                value[7] += 1
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        return graph

    monkeypatch.setattr(to_onnx, "traced", planted)
    with pytest.raises(ModelError, match=r"explain\.onnx locations: torch vs ONNX Runtime max"):
        to_onnx.export_models(*networks, tmp_path / "out", **inputs, compress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_compression_gate_fails_and_leaves_no_file(networks, inputs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(to_onnx, "MIN_COMPRESSED_COSINE", 1.5)
    with pytest.raises(ModelError, match="cosine"):
        to_onnx.export_models(*networks, tmp_path / "out", **inputs)
    assert list((tmp_path / "out").iterdir()) == []
