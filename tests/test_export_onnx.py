"""Export to ONNX: contract, parity gate, compressed weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402

from export import to_onnx  # noqa: E402
from export.compress import compress_weights  # noqa: E402
from export.models.ild_ffn import IldFfn  # noqa: E402
from export.models.resnet import ResNet50  # noqa: E402
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
    report = to_onnx.export_models(*networks, out, **inputs, say=lines.append)
    return report, lines


def test_files_keep_the_contract(exported) -> None:
    report, lines = exported
    contract = {
        report.backbone: {"image": ["batch", 1, SIDE, SIDE], "deep_features": ["batch", 2048]},
        report.fusion: {
            "deep_features": ["batch", 2048],
            "radiomics": ["batch", 102],
            "embedding": ["batch", 128],
        },
    }
    for path, axes in contract.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = {v.name: v.shape for v in (*session.get_inputs(), *session.get_outputs())}
        assert found == axes
        graph = onnx.load(path, load_external_data=False)
        assert graph.opset_import[0].version == to_onnx.OPSET
        assert not any(t.external_data for t in graph.graph.initializer)
        assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
        about = {prop.key: prop.value for prop in graph.metadata_props}
        assert about["gem_p"] == "3"
        assert f"{about['role']}.onnx" == path.name
    assert report.backbone.stat().st_size < 25e6
    assert sorted(p.name for p in report.backbone.parent.iterdir()) == [
        "backbone.onnx",
        "fusion.onnx",
    ]
    assert len(lines) == 3
    assert "max" in lines[0]
    assert "cosine" in lines[2]


def test_files_answer_as_torch_does(exported, networks, inputs) -> None:
    report, _ = exported
    backbone, fusion = networks
    with torch.inference_mode():
        expected = fusion(
            backbone(torch.from_numpy(inputs["images"])), torch.from_numpy(inputs["radiomics"])
        ).numpy()
    x = to_onnx.run_graph(onnx.load(report.backbone), {"image": inputs["images"]})
    found = to_onnx.run_graph(
        onnx.load(report.fusion), {"deep_features": x, "radiomics": inputs["radiomics"]}
    )
    assert (found * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert all(p.max_difference <= 1e-5 * max(1, p.largest_value) for p in report.parity)


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


@pytest.mark.parametrize("victim", ["FoldedBackbone", "FoldedFusion"])
def test_parity_gate_fails_on_perturbed_weights_and_leaves_no_file(
    victim, networks, inputs, tmp_path, monkeypatch
) -> None:
    original = getattr(to_onnx, victim)

    def perturbed(trained):
        folded = original(trained)
        with torch.no_grad():
            for parameter in folded.parameters():
                if parameter.ndim > 1:  # one output channel of each weight, by one percent
                    parameter[0].mul_(1.01)
        return folded

    monkeypatch.setattr(to_onnx, victim, perturbed)
    with pytest.raises(ModelError, match="torch vs ONNX Runtime max"):
        to_onnx.export_models(*networks, tmp_path / "out", **inputs, compress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_compression_gate_fails_and_leaves_no_file(networks, inputs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(to_onnx, "MIN_COMPRESSED_COSINE", 1.5)
    with pytest.raises(ModelError, match="cosine"):
        to_onnx.export_models(*networks, tmp_path / "out", **inputs)
    assert list((tmp_path / "out").iterdir()) == []
