"""The provider asked for runs, or an error names what is missing; never silently the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ModelError
from ildsdk.runtime.gpu_session import start
from ildsdk.runtime.provider_libraries import missing_for, tensorrt_library
from ildsdk.runtime.provider_options import CudaOptions, ShapeProfile, TensorrtOptions
from ildsdk.runtime.providers import choose_provider
from ildsdk.settings import RuntimeSettings
from tests.bundle_factory import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def skip_if_it_loads(provider: str) -> None:
    if provider.upper() not in " ".join(ort.get_available_providers()).upper():
        pytest.skip(f"onnxruntime without {provider}")
    if missing_for(provider) is None:
        pytest.skip(f"{provider} loads on this machine")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_an_absent_provider_is_an_error_that_names_the_library(
    bundle: Bundle, provider: str
) -> None:
    skip_if_it_loads(provider)
    message = rf"'{provider}' cannot run here: a library is missing: lib\S+\.so"
    for ask in (
        lambda: choose_provider(provider),
        lambda: Encoder(bundle, RuntimeSettings(provider=provider)),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            ask()
        assert "site-packages" not in str(caught.value)


def test_onnxruntime_would_fall_back_from_cuda_and_we_do_not(bundle: Bundle) -> None:
    """Told to use a CUDA that does not load, ONNX Runtime runs on the CPU without an error."""
    skip_if_it_loads("cuda")
    providers = [CudaOptions().to_ort()]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    silent = ort.InferenceSession(str(bundle.backbone), options, providers=providers)
    assert silent.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(ModelError, match="ONNX Runtime runs on CPUExecutionProvider"):
        start(bundle.backbone, "cuda", providers)


def test_nor_from_tensorrt(bundle: Bundle, tmp_path: Path) -> None:
    skip_if_it_loads("tensorrt")
    profile = ShapeProfile.of_batches({"image": ["batch", 1, 64, 64]}, optimum=1, maximum=1)
    options = TensorrtOptions(
        precision="fp32", profile=profile, engine_folder=tmp_path, engine_prefix="x"
    )
    with pytest.raises(ModelError, match=r"backbone.onnx does not load on 'tensorrt'") as caught:
        start(bundle.backbone, "tensorrt", [options.to_ort(), CudaOptions().to_ort()])
    assert str(tmp_path) not in str(caught.value)
    assert str(bundle.folder) not in str(caught.value)


def test_auto_is_never_tensorrt() -> None:
    assert choose_provider("auto") in ("cpu", "cuda")


def test_the_tensorrt_that_this_onnxruntime_wants() -> None:
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime without TensorRT")
    assert "nvinfer" in tensorrt_library()
