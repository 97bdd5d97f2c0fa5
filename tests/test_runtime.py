from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ConfigError, ModelError
from ildsdk.runtime import networks, ort_session, providers
from ildsdk.runtime.cpu_features import CpuFeatures, cpu_features
from ildsdk.runtime.networks import Networks
from ildsdk.runtime.ort_session import open_session
from ildsdk.runtime.precision import RunPrecision, choose_precision
from ildsdk.runtime.session import Session
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import Precision, RuntimeSettings, settings_from_mapping
from tests.bundle_factory import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.mark.parametrize(
    ("cpu_max", "expected"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)]
)
def test_budget_follows_cgroup_quota(tmp_path: Path, cpu_max: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")
    unlimited = available_cpus(tmp_path / "absent")
    assert available_cpus(tmp_path) == (expected or unlimited)


def test_budget_reads_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus(tmp_path) == 1


def test_cpu_session_runs_what_was_asked(bundle: Bundle) -> None:
    session = open_session(bundle.backbone, RuntimeSettings(provider="cpu"), 1)
    assert session.provider == "cpu"
    output = session.run_all(["deep_features"], {"image": np.ones((2, 1, 64, 64), np.float32)})[0]
    assert output.shape == (2, 8)
    with pytest.raises(ModelError, match="failed while running"):
        session.run_all(["deep_features"], {"image": np.ones((1, 1, 8, 8), np.float32)})


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_absent_provider_is_an_error_never_the_cpu(bundle: Bundle, provider: str) -> None:
    if providers.missing_for(provider) is None:
        pytest.skip(f"{provider} loads on this machine")
    with pytest.raises(ModelError, match=f"{provider}' cannot run here: .*(missing|without)"):
        Encoder(bundle, RuntimeSettings(provider=provider))


def test_auto_without_a_gpu_is_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_has_cuda_device", lambda: False)
    assert Encoder(bundle, RuntimeSettings()).provider == "cpu"


def test_auto_whose_gpu_does_not_start_is_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if providers._has_cuda_device():
        pytest.skip("a CUDA device is there")
    monkeypatch.setattr(providers, "missing_for", lambda provider: None)
    monkeypatch.setattr(providers, "_has_cuda_device", lambda: True)
    assert Encoder(bundle, RuntimeSettings()).provider == "cpu"


def test_telemetry_of_onnxruntime_is_switched_off() -> None:
    code = (
        "import onnxruntime\n"
        "calls = []\n"
        "onnxruntime.disable_telemetry_events = lambda: calls.append('off')\n"
        "import ildsdk.runtime.ort_session\n"
        "assert calls == ['off']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "backbone.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"backbone.onnx does not load") as caught:
        open_session(path, RuntimeSettings(provider="cpu"), 1)
    assert str(tmp_path) not in str(caught.value)


def test_models_that_do_not_fit_the_manifest(bundle: Bundle) -> None:
    import dataclasses

    wrong_size = dataclasses.replace(
        bundle, method=dataclasses.replace(bundle.method, input_size=96)
    )
    with pytest.raises(ModelError, match=r"backbone.onnx input 'image' has shape"):
        Encoder(wrong_size, RuntimeSettings(provider="cpu"))
    wrong_length = dataclasses.replace(bundle, embedding_size=12)
    with pytest.raises(ModelError, match=r"fusion.onnx output 'embedding'"):
        Encoder(wrong_length, RuntimeSettings(provider="cpu"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"provider": "gpu"}, "expected one of auto, cpu"),
        ({"n_threads": 0}, "1 or more"),
        ({"thread": 2}, "did you mean 'n_threads'"),
        ({"precision": "bf16"}, "expected one of auto, fp32, int8, fp16"),
        ({"radiomics_engine": "slow"}, "fast, pyradiomics"),
    ],
)
def test_settings_check_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from_mapping(RuntimeSettings, values)


@pytest.mark.parametrize(
    ("line", "machine", "names", "is_fast"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni", "x86_64", {"fpu", "avx2", "avx512vnni"}, True),
        ("flags\t\t: fpu avx2 avx_vnni", "AMD64", {"fpu", "avx2", "avxvnni"}, True),
        ("flags\t\t: fpu avx2 avx512f", "x86_64", {"fpu", "avx2", "avx512f"}, False),
        ("Features\t: fp asimddp", "aarch64", {"fp", "dotprod"}, True),
        ("Features\t: fp asimd", "aarch64", {"fp", "asimd"}, False),
        ("Features\t: fp asimddp", "riscv64", {"fp", "dotprod"}, False),
    ],
)
def test_cpu_features_of_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, machine: str, names: set[str],
    is_fast: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr("platform.machine", lambda: machine)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: x\n{line}\n\nflags : none\n")
    found = cpu_features(tmp_path / "cpuinfo")
    assert found.names == names
    assert found.has_fast_int8 is is_fast


def test_cpu_features_without_proc_agree_about_int8(tmp_path: Path) -> None:
    asked = cpu_features(tmp_path / "absent")
    assert asked.names
    assert asked.has_fast_int8 == cpu_features().has_fast_int8


_OLD = CpuFeatures(machine="x86_64", names=frozenset({"avx2"}))
_NEW = CpuFeatures(machine="x86_64", names=frozenset({"avx512vnni"}))


@pytest.mark.parametrize(
    ("asked", "provider", "default", "has_int8", "cpu", "expected"),
    [
        ("auto", "cpu", "int8", True, _NEW, "int8"),
        ("auto", "cpu", "int8", True, _OLD, "fp32"),
        ("auto", "cpu", "int8", False, _NEW, "fp32"),
        ("auto", "cpu", "fp32", True, _NEW, "fp32"),
        ("auto", "cuda", "int8", True, _NEW, "fp32"),
        ("auto", "tensorrt", "int8", True, _NEW, "fp32"),
        ("int8", "cpu", "fp32", True, _OLD, "int8"),
        ("fp32", "cpu", "int8", True, _NEW, "fp32"),
        ("fp16", "tensorrt", "fp32", False, _OLD, "fp16"),
        ("fp16", "cpu", "fp32", True, _NEW, "precision 'fp16' does not run on provider 'cpu'"),
        ("fp16", "cuda", "fp32", True, _NEW, "or for provider tensorrt"),
        ("int8", "cuda", "int8", True, _NEW, "which runs fp32;"),
        ("int8", "cpu", "fp32", False, _NEW, r"no 8-bit network for it \(backbone-int8.onnx\)"),
        ("int8", "tensorrt", "int8", True, _OLD, "int8"),
        ("int8", "tensorrt", "int8", False, _NEW, r"\(backbone-int8-symmetric.onnx\); .* 'fp16'"),
    ],
)
def test_precision_that_runs(
    asked: Precision, provider: str, default: Literal["fp32", "int8"], has_int8: bool,
    cpu: CpuFeatures, expected: str,
) -> None:  # fmt: skip
    arguments = {"bundle_default": default, "has_int8": has_int8, "cpu": cpu}
    if expected in get_args(RunPrecision):
        assert choose_precision(asked, provider, **arguments) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            choose_precision(asked, provider, **arguments)


class _OnTensorrt:
    """A session of the CPU that says it were TensorRT's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.provider = "tensorrt"

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


@pytest.mark.parametrize("with_symmetric", [True, False])
def test_tensorrt_takes_the_symmetric_graph_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_symmetric: bool
) -> None:
    made = write_tiny_bundle(tmp_path / "both", with_int8=True, with_symmetric=with_symmetric)
    opened = []

    def on_tensorrt(model: Path, *_: object, precision: str = "fp32") -> Session:
        opened.append((model.name, precision))
        return _OnTensorrt(open_session(model, RuntimeSettings(provider="cpu"), 1))

    monkeypatch.setattr(networks, "open_session", on_tensorrt)
    settings = RuntimeSettings(provider="tensorrt", precision="int8")
    if with_symmetric:
        assert Networks(made, settings, 1).precision == "int8"
        assert opened[1:] == [("backbone-int8-symmetric.onnx", "int8")]
    else:
        with pytest.raises(ConfigError, match=r"backbone-int8-symmetric\.onnx"):
            Networks(made, settings, 1)
    opened.clear()
    assert Networks(made, RuntimeSettings(provider="tensorrt"), 1).precision == "fp32"
    assert opened[1:] == [("backbone.onnx", "fp32")]


def test_fp16_on_a_cpu_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="'fp16' does not run on provider 'cpu'"):
        Encoder(bundle, RuntimeSettings(provider="cpu", precision="fp16"))
    with pytest.raises(ConfigError, match="has no 8-bit network"):
        Encoder(bundle, RuntimeSettings(provider="cpu", precision="int8"))
    assert Encoder(bundle, RuntimeSettings(provider="cpu")).precision == "fp32"


def test_maps_do_not_depend_on_the_precision(tmp_path: Path) -> None:
    made = write_tiny_bundle(tmp_path / "both", with_int8=True, with_maps=True)
    image = np.random.default_rng(3).random((1, 1, 64, 64), np.float32)
    exact, rounded = (
        Networks(made, RuntimeSettings(provider="cpu", precision=precision), 1)
        for precision in ("fp32", "int8")
    )
    radiomics = np.zeros((1, 102), np.float32)
    exact_embedding, exact_map = exact.embed(image, lambda: radiomics, with_map=True)
    embedding, missing = rounded.embed(image, lambda: radiomics, with_map=True)
    assert missing is None
    feature_map = rounded.feature_map(image)
    assert exact_map is not None
    assert feature_map is not None
    assert feature_map.tobytes() == exact_map.tobytes()
    assert embedding.tobytes() != exact_embedding.tobytes()
    # Asked for without a map, the answer is the same.
    assert embedding.tobytes() == rounded.embed(image, lambda: radiomics)[0].tobytes()


def test_int8_agrees_guarded_against_saturation_and_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels of a processor without VNNI run on this one too; it never saturates."""
    made = write_tiny_bundle(tmp_path / "both", with_int8=True)
    settings = RuntimeSettings(provider="cpu", precision="int8")
    image = np.random.default_rng(3).random((1, 1, 64, 64), np.float32)
    if not cpu_features().has_fast_int8:
        pytest.skip("this processor saturates without the guard")
    plain = Networks(made, settings, 1).backbone.run_all(["deep_features"], {"image": image})[0]
    monkeypatch.setattr(ort_session, "cpu_features", lambda: _OLD)
    assert ort_session.needs_saturation_guard("int8")
    assert not ort_session.needs_saturation_guard("fp32")
    options = ort_session.session_options(1, "int8")
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    guarded = Networks(made, settings, 1).backbone.run_all(["deep_features"], {"image": image})[0]
    np.testing.assert_allclose(guarded, plain, rtol=1e-5)
