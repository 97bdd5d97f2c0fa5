"""What only a GPU can show. Run with ``pytest -m gpu`` on a machine with CUDA (and TensorRT)."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ildsdk import defaults
from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ModelError
from ildsdk.runtime.assignment import operators_by_provider
from ildsdk.runtime.bundle_engines import engine_requests
from ildsdk.runtime.device_session import DeviceChain, DeviceSession
from ildsdk.runtime.engine_cache import EngineCache
from ildsdk.runtime.gpu_session import (
    compile_with_tensorrt,
    open_gpu_session,
    open_with_engine,
    start,
)
from ildsdk.runtime.nvidia import read_driver
from ildsdk.runtime.ort_session import open_session
from ildsdk.runtime.provider_libraries import EP_NAMES, missing_for
from ildsdk.runtime.provider_options import CudaOptions, GpuPrecision
from ildsdk.runtime.tensorrt_engine import TensorrtMachine, build_engine
from ildsdk.settings import Provider, RuntimeSettings
from tests.bundle_factory import INPUT_SIZE, write_tiny_bundle

pytestmark = pytest.mark.gpu

CUDA = RuntimeSettings(provider="cuda")
_MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_maps=True)


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return Bundle.open(defaults.bundle_path())


@pytest.fixture
def tensorrt() -> TensorrtMachine:
    missing = missing_for("tensorrt")
    if missing is not None:
        pytest.skip(missing)
    return TensorrtMachine.here()


def images(n: int, batch: int = 1) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.random((batch, 1, INPUT_SIZE, INPUT_SIZE), np.float32) for _ in range(n)]


def test_onnxruntime_took_every_cuda_option(tiny: Bundle) -> None:
    name, options = CudaOptions(memory_limit_bytes=1 << 30).to_ort()
    taken = start(tiny.backbone, "cuda", [(name, options)]).get_provider_options()[name]
    differing = {key for key, value in options.items() if taken.get(key) != value}
    assert differing == set()


def test_an_unknown_cuda_option_is_refused(tiny: Bundle) -> None:
    name, options = CudaOptions().to_ort()
    with pytest.raises(ModelError):
        start(tiny.backbone, "cuda", [(name, {**options, "no_such_option": "1"})])


def test_cuda_agrees_with_the_cpu_again_and_again(tiny: Bundle) -> None:
    """The second and later runs replay the graph captured by the first."""
    cpu = open_session(tiny.backbone, RuntimeSettings(provider="cpu"), 1)
    cuda = open_gpu_session(tiny.backbone, "cuda", CUDA, "fp32")
    assert cuda.provider == "cuda"
    assert cuda.has_cuda_graph
    for batch in (1, 3, 1):
        for image in images(4, batch):
            names = ["deep_features", "feature_map"]
            for one, other in zip(
                cpu.run_all(names, {"image": image}), cuda.run_all(names, {"image": image}),
                strict=True,
            ):  # fmt: skip
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_chain_stays_on_the_device(tiny: Bundle) -> None:
    backbone, fusion = (
        open_gpu_session(model, "cuda", CUDA, "fp32") for model in (tiny.backbone, tiny.fusion)
    )
    assert isinstance(backbone, DeviceSession)
    chain = DeviceChain(backbone, fusion)
    run = backbone.fixed_run()
    assert run is not None
    assert run.outputs["deep_features"].device_name().lower() == "cuda"
    radiomics = np.random.default_rng(1).normal(size=(1, 102)).astype(np.float32)
    apart = Encoder(tiny, RuntimeSettings(provider="cpu"))._networks
    for image in images(3):
        found = chain.run_all(["embedding"], {"image": image, "radiomics": radiomics})[0]
        expected = apart.embed(image, lambda: radiomics)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_threads_share_an_encoder(tiny: Bundle) -> None:
    networks = Encoder(tiny, CUDA)._networks
    radiomics = np.zeros((1, 102), np.float32)
    inputs = images(16)
    serial = [networks.embed(image, lambda: radiomics)[0] for image in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: networks.embed(image, lambda: radiomics)[0], inputs))
    np.testing.assert_allclose(found, serial, rtol=1e-5, atol=1e-6)


def test_the_embedded_network_runs_on_cuda(embedded: Bundle) -> None:
    options = [CudaOptions().to_ort()]
    for model in (embedded.backbone, embedded.fusion):
        counts = operators_by_provider(start(model, "cuda", options))
        assert counts[EP_NAMES["cuda"]].total() > 0
    assert _cosine(embedded, "cuda", "fp32", None) > _MIN_COSINE["fp32"]


def test_auto_takes_the_gpu(tiny: Bundle) -> None:
    assert Encoder(tiny, RuntimeSettings()).provider == "cuda"


def test_a_device_that_is_not_there(tiny: Bundle) -> None:
    n_devices = len(read_driver().gpus)
    with pytest.raises(ModelError):
        open_gpu_session(
            tiny.backbone, "cuda", RuntimeSettings(provider="cuda", device_id=n_devices), "fp32"
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_of_the_embedded_bundle(
    embedded: Bundle, tensorrt: TensorrtMachine, tmp_path: Path, precision: GpuPrecision
) -> None:
    if precision == "int8" and embedded.backbone_int8_symmetric is None:
        pytest.skip("the embedded bundle has no 8-bit network for TensorRT")
    cache = EngineCache(tmp_path / "engines")
    settings = RuntimeSettings(provider="tensorrt", precision=precision, engine_folder=cache.folder)
    with pytest.raises(ModelError, match="build-engine"):
        Encoder(embedded, settings)
    for request in engine_requests(embedded, precision):
        _, is_new = build_engine(request, tensorrt, cache, compile_with_tensorrt)
        assert is_new
        _, is_new = build_engine(request, tensorrt, cache, compile_with_tensorrt)
        assert not is_new
    before = sorted((path, path.stat().st_mtime_ns) for path in cache.folder.rglob("*"))
    assert _cosine(embedded, "tensorrt", precision, cache.folder) > _MIN_COSINE[precision]
    assert sorted((path, path.stat().st_mtime_ns) for path in cache.folder.rglob("*")) == before


def test_batches_of_an_engine(tiny: Bundle, tensorrt: TensorrtMachine, tmp_path: Path) -> None:
    settings = RuntimeSettings(provider="tensorrt", engine_folder=tmp_path / "engines")
    request = engine_requests(tiny, "fp32", batch_max=4)[0]
    build_engine(request, tensorrt, EngineCache(tmp_path / "engines"), compile_with_tensorrt)
    session = open_with_engine(request, settings, tensorrt)
    cpu = open_session(tiny.backbone, RuntimeSettings(provider="cpu"), 1)
    for batch in (1, 4, 2, 1):
        image = images(1, batch)[0]
        found, expected = (
            one.run_all(["deep_features"], {"image": image})[0] for one in (session, cpu)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
    with pytest.raises(ModelError, match="--batch-max 5"):
        session.run_all(["deep_features"], {"image": images(1, 5)[0]})


def test_the_command_builds_and_the_doctor_agrees(
    tensorrt: TensorrtMachine, tmp_path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ildsdk", *arguments, "--engine-folder", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    tmp_path.chmod(0o700)
    built = run("build-engine", "--precision", "fp16")
    assert built.returncode == 0, built.stderr
    assert "building backbone.onnx fp16" in built.stderr
    doctor = run("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "tensorrt fp16: embedding has cosine 0.99" in doctor.stdout
    assert "tensorrt fp32: no engine of backbone.onnx" in doctor.stdout


def _cosine(
    bundle: Bundle, provider: Provider, precision: GpuPrecision, engine_folder: Path | None
) -> float:
    reference = Encoder(bundle, RuntimeSettings(provider="cpu", precision="fp32")).self_test()
    settings = RuntimeSettings(provider=provider, precision=precision, engine_folder=engine_folder)
    return float(Encoder(bundle, settings).self_test() @ reference)
