"""The Triton repository: parsed with Triton's own schema, compared with the ONNX graphs."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from export.cli import main
from export.triton.configs import TritonSettings
from export.triton.pbtxt import Enum, to_text
from export.triton.repository import write_repository
from export.triton.tensors import Graph
from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError, ModelError
from tests.bundle_factory import EMBEDDING_SIZE, INPUT_SIZE, N_DEEP, write_tiny_bundle

VARIANTS = {
    "ildsdk_backbone": {"config", "cpu", "tensorrt-fp32", "tensorrt-fp16"},
    "ildsdk_fusion": {"config", "cpu"},
    "ildsdk_embed": {"config"},
}


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Triton's model_config.proto, as its client package ships it.

    Loaded as a file: the package itself would want grpc.
    """
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_maps=True)


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = TritonSettings(
        max_batch_size=4, instances=2, engine_folder="/srv/engines", metric_tag="abc"
    )
    out = tmp_path_factory.mktemp("triton") / "repository"
    models = write_repository(out, bundle, settings, version=3)
    assert models == out / "models"
    return out


def configs(repository: Path, schema: ModuleType) -> dict[tuple[str, str], Any]:
    """Every configuration, parsed, by model and variant."""
    found = {}
    for path in sorted((repository / "models").rglob("*.pbtxt")):
        model = path.relative_to(repository / "models").parts[0]
        config = text_format.Parse(path.read_text(encoding="utf-8"), schema.ModelConfig())
        found[model, path.stem] = config
    return found


def test_models_versions_and_variants(repository: Path, schema: ModuleType) -> None:
    found = configs(repository, schema)
    assert {name: {v for m, v in found if m == name} for name, _ in found} == VARIANTS
    for (model, _), config in found.items():
        assert config.name == model
        assert config.max_batch_size == 4
        assert config.version_policy.latest.num_versions == 1
        assert dict(config.metric_tags) == {"bundle": "abc"}
        assert [path.name for path in (repository / "models" / model).iterdir() if path.is_dir()
                and path.name != "configs"] == ["3"]  # fmt: skip


def test_tensors_are_those_of_the_graphs(repository: Path, schema: ModuleType) -> None:
    """Against onnxruntime's view of the files in the repository, not our reader's."""
    n_compared = 0
    for (model, _), config in configs(repository, schema).items():
        if config.platform == "ensemble":
            continue
        file = repository / "models" / model / "3" / config.default_model_filename
        session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert config.backend == "onnxruntime"
        for entries, values in (
            (config.input, session.get_inputs()),
            (config.output, session.get_outputs()),
        ):
            shapes = {value.name: list(value.shape[1:]) for value in values}
            for entry in entries:
                assert list(entry.dims) == shapes[entry.name]
                assert schema.DataType.Name(entry.data_type) == "TYPE_FP32"
                n_compared += 1
        assert {entry.name for entry in config.input} == {one.name for one in session.get_inputs()}
    assert n_compared == 4 * 2 + 2 * 3


def test_the_ensemble_connects_them(repository: Path, schema: ModuleType) -> None:
    found = configs(repository, schema)
    ensemble = found["ildsdk_embed", "config"]
    assert [(one.name, list(one.dims)) for one in ensemble.input] == [
        ("image", [1, INPUT_SIZE, INPUT_SIZE]),
        ("radiomics", [102]),
    ]
    assert [(one.name, list(one.dims)) for one in ensemble.output] == [
        ("embedding", [EMBEDDING_SIZE])
    ]
    known = {one.name: list(one.dims) for one in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        part = found[step.model_name, "config"]
        assert step.model_version == -1
        for entries, mapping in ((part.input, step.input_map), (part.output, step.output_map)):
            assert set(mapping) == {entry.name for entry in entries}
        for entry in part.input:
            assert known[step.input_map[entry.name]] == list(entry.dims)
        known |= {step.output_map[entry.name]: list(entry.dims) for entry in part.output}
    assert known["deep_features"] == [N_DEEP]
    assert {one.name for one in ensemble.output} <= set(known)
    assert list((repository / "models" / "ildsdk_embed" / "3").iterdir()) == []


def test_batching_instances_and_warm_up(repository: Path, schema: ModuleType) -> None:
    for (_, variant), config in configs(repository, schema).items():
        if config.platform == "ensemble":
            continue
        assert config.dynamic_batching.max_queue_delay_microseconds == 2000
        (group,) = config.instance_group
        kind = schema.ModelInstanceGroup.Kind.Name(group.kind)
        assert (group.count, kind) == (2, "KIND_CPU" if variant == "cpu" else "KIND_GPU")
        assert [one.batch_size for one in config.model_warmup] == [1, 4]
        for warmup in config.model_warmup:
            assert set(warmup.inputs) == {entry.name for entry in config.input}
            for entry in config.input:
                assert list(warmup.inputs[entry.name].dims) == list(entry.dims)
                assert warmup.inputs[entry.name].data_type == entry.data_type
                assert warmup.inputs[entry.name].random_data


def test_accelerators(repository: Path, schema: ModuleType) -> None:
    found = configs(repository, schema)

    def accelerators(variant: str) -> dict[str, dict[str, str]]:
        execution = found["ildsdk_backbone", variant].optimization.execution_accelerators
        return {one.name: dict(one.parameters) for one in execution.gpu_execution_accelerator}

    assert accelerators("cpu") == {}
    assert accelerators("config") == {"cuda": {"use_tf32": "0"}}
    for variant, precision in (("tensorrt-fp32", "FP32"), ("tensorrt-fp16", "FP16")):
        options = accelerators(variant)["tensorrt"]
        assert options["precision_mode"] == precision
        # Engines of two bundles have the same names: each bundle has a folder of its own.
        bundle = json.loads((repository / "model.json").read_text())["bundle_hash"][:12]
        own = f"/srv/engines/{bundle}-{precision.lower()}"
        assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == own
        assert options["trt_profile_min_shapes"] == f"image:1x1x{INPUT_SIZE}x{INPUT_SIZE}"
        assert options["trt_profile_max_shapes"] == f"image:4x1x{INPUT_SIZE}x{INPUT_SIZE}"
        parameters = found["ildsdk_backbone", variant].parameters
        # As numbers: 1 is HEURISTIC, 1 is kSameAsRequested.
        assert {key: value.string_value for key, value in parameters.items()} == {
            "cudnn_conv_algo_search": "1",
            "arena_extend_strategy": "1",
        }


def test_files_are_the_bundles_and_the_client_learns_what_it_must(
    repository: Path, bundle: Bundle
) -> None:
    facts = json.loads((repository / "model.json").read_text())
    for name, model in (("backbone.onnx", "ildsdk_backbone"), ("fusion.onnx", "ildsdk_fusion")):
        content = (repository / "models" / model / "3" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == facts["files_sha256"][name]
        assert facts["files_sha256"][name] == bundle.checksums[name]
    assert facts["bundle_hash"] == bundle.bundle_hash
    assert facts["feature_names"] == list(bundle.feature_names)
    assert facts["labels"] == ["A", "B"]
    # The rule the README gives, applied to what stands in the JSON, is the scaler's.
    values = np.random.default_rng(0).normal(scale=5e3, size=102)
    scaler = facts["scaler"]
    by_rule = np.clip((values - scaler["mean"]) / scaler["scale"], -scaler["clip"], scaler["clip"])
    np.testing.assert_array_equal(by_rule.astype(np.float32), bundle.scaler.transform(values))
    text = (repository / "README.md").read_text()
    assert "clip((value - mean) / scale, -clip, clip)" in text
    assert "SYNTHETIC" in text
    assert "No server has run this repository" in text


def test_the_8_bit_backbone_lies_beside_its_weights(
    bundle: Bundle, tmp_path: Path, schema: ModuleType
) -> None:
    with pytest.raises(ConfigError, match="has no 8-bit network"):
        write_repository(tmp_path / "out", bundle, TritonSettings(), with_int8=True)
    int8 = write_tiny_bundle(tmp_path / "int8", with_int8=True)
    out = tmp_path / "out"
    write_repository(out, int8, TritonSettings(), with_int8=True)
    folder = out / "models" / "ildsdk_backbone" / "1"
    assert {path.name for path in folder.iterdir()} == {"backbone.onnx", "backbone-int8.onnx"}
    config = configs(out, schema)["ildsdk_backbone", "cpu-int8"]
    assert config.default_model_filename == "backbone-int8.onnx"
    assert "cpu-int8" in (out / "README.md").read_text()
    ort.InferenceSession(str(folder / "backbone-int8.onnx"), providers=["CPUExecutionProvider"])


def test_nothing_is_overwritten_and_nothing_half_written(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_repository(out, bundle, TritonSettings())
    with pytest.raises(ConfigError, match="max_batch_size is 0, expected 1"):
        TritonSettings(max_batch_size=0)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be written"):
        write_repository(tmp_path / "file" / "out", bundle, TritonSettings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]
    assert list(out.iterdir()) == []


def test_graphs_that_do_not_fit_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = dataclasses.replace(bundle, embedding_size=EMBEDDING_SIZE + 1)
    with pytest.raises(ModelError, match=r"not so that fusion.onnx gives the embedding"):
        write_repository(tmp_path / "out", other, TritonSettings())
    model = onnx.load(bundle.backbone)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(ModelError, match="expected a known type, a free batch axis"):
        Graph.read(tmp_path / "fixed.onnx")
    (tmp_path / "none.onnx").write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        Graph.read(tmp_path / "none.onnx")


def test_text_format(schema: ModuleType) -> None:
    odd = 'quote " backslash \\ line\nfeed ü \x01'
    text = to_text({"name": odd, "max_batch_size": 3, "backend": "b",
                    "instance_group": [{"kind": Enum("KIND_CPU"), "passive": True}]})  # fmt: skip
    config = text_format.Parse(text, schema.ModelConfig())
    assert (config.name, config.max_batch_size) == (odd, 3)
    assert config.instance_group[0].passive


def test_the_command(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    arguments = ["triton", str(out), "--bundle", str(bundle.folder), "--max-batch", "2"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "bundle" in (out / "models" / "ildsdk_embed" / "config.pbtxt").read_text()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "exists already" in again.output
