from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ConfigError, ModelError
from ildsdk.runtime import providers
from ildsdk.runtime.session import open_session
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import RuntimeSettings, settings_from_mapping
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
    output = session.run("deep_features", {"image": np.ones((2, 1, 64, 64), np.float32)})
    assert output.shape == (2, 8)
    with pytest.raises(ModelError, match="failed while running"):
        session.run("deep_features", {"image": np.ones((1, 1, 8, 8), np.float32)})


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_absent_provider_is_an_error_never_the_cpu(bundle: Bundle, provider: str) -> None:
    if providers.missing_for(provider) is None:
        pytest.skip(f"{provider} loads on this machine")
    with pytest.raises(ModelError, match=f"{provider}' cannot run here: .*(missing|without)"):
        Encoder(bundle, RuntimeSettings(provider=provider))


def test_silent_fallback_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # ONNX Runtime itself falls back to the CPU here: the session's own word is what counts.
    monkeypatch.setattr(providers, "missing_for", lambda provider: None)
    if providers._has_cuda_device():
        pytest.skip("a CUDA device is there")
    with pytest.raises(ModelError, match=r"CPUExecutionProvider|does not load"):
        open_session(bundle.backbone, RuntimeSettings(provider="cuda"), 1)


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
    assert open_session(bundle.backbone, RuntimeSettings(), 1).provider == "cpu"


def test_provider_options_carry_the_device() -> None:
    names = [name for name, _ in providers.provider_options("tensorrt", 3)]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert all(
        options["device_id"] == 3 for _, options in providers.provider_options("tensorrt", 3)
    )
    assert providers.provider_options("cpu", 0) == [("CPUExecutionProvider", {})]


@pytest.mark.gpu
def test_cuda_agrees_with_cpu(bundle: Bundle) -> None:
    image = np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
    outputs = [
        open_session(bundle.backbone, RuntimeSettings(provider=provider), 1).run(
            "deep_features", {"image": image}
        )
        for provider in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)


def test_telemetry_of_onnxruntime_is_switched_off() -> None:
    code = (
        "import onnxruntime\n"
        "calls = []\n"
        "onnxruntime.disable_telemetry_events = lambda: calls.append('off')\n"
        "import ildsdk.runtime.session\n"
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
        ({"radiomics_engine": "slow"}, "fast, pyradiomics"),
    ],
)
def test_settings_check_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from_mapping(RuntimeSettings, values)
