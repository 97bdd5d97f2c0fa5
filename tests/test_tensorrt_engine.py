"""Finding and building engines, with a stand-in for TensorRT (tests/test_gpu.py: the real one)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from ildsdk.bundle import Bundle
from ildsdk.errors import ModelError
from ildsdk.runtime.device_session import DeviceSession
from ildsdk.runtime.engine_cache import EngineCache
from ildsdk.runtime.gpu_session import MakeProviders, open_with_engine
from ildsdk.runtime.provider_libraries import missing_for
from ildsdk.runtime.provider_options import OrtProvider, TensorrtOptions
from ildsdk.runtime.tensorrt_engine import (
    EngineRequest,
    TensorrtMachine,
    build_engine,
    find_engine,
    input_shapes,
)
from ildsdk.settings import RuntimeSettings
from tests.bundle_factory import INPUT_SIZE, write_tiny_bundle
from tests.test_engine_cache import DRIVER

MACHINE = TensorrtMachine(driver=DRIVER, tensorrt="10.13.2")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def request_fp16(bundle: Bundle) -> EngineRequest:
    return EngineRequest(model=bundle.backbone, precision="fp16")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


class Compiler:
    """Writes what TensorRT would, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[EngineRequest, TensorrtOptions]] = []

    def __call__(self, request: EngineRequest, options: TensorrtOptions) -> None:
        self.calls.append((request, options))
        name = f"{options.engine_prefix}_{len(self.calls)}_sm90"
        (options.engine_folder / f"{name}.engine").write_bytes(b"engine")
        (options.engine_folder / f"{name}.profile").write_bytes(b"profile")


def test_a_missing_engine_is_an_error_with_advice(
    request_fp16: EngineRequest, cache: EngineCache
) -> None:
    with pytest.raises(ModelError) as caught:
        find_engine(request_fp16, MACHINE, cache)
    text = str(caught.value)
    for words in (
        "no TensorRT engine of backbone.onnx in fp16 for Test GPU (compute capability 9.0)",
        "TensorRT 10.13.2",
        "driver 580.65.06",
        "`ildsdk build-engine --precision fp16`",
        "--allow-engine-build",
    ):
        assert words in text
    assert not cache.folder.exists()


def test_build_then_find(request_fp16: EngineRequest, cache: EngineCache) -> None:
    compiler = Compiler()
    engine, is_new = build_engine(request_fp16, MACHINE, cache, compiler)
    assert is_new
    assert find_engine(request_fp16, MACHINE, cache) == engine
    ((_, options),) = compiler.calls
    assert options.profile.maximum == {"image": (1, 1, INPUT_SIZE, INPUT_SIZE)}
    assert options.timing_folder is not None
    assert options.timing_folder.parent == cache.folder / "timings"
    assert options.timing_folder.stat().st_mode & 0o077 == 0
    # A query reads the engine with the options that decide whether TensorRT takes it.
    read = request_fp16.options(engine.profile, engine.folder, cuda_graph=True).to_ort()[1]
    written = options.to_ort()[1]
    differing = {name for name in {*read, *written} if read.get(name) != written.get(name)}
    assert differing == {
        "trt_engine_cache_path",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_cuda_graph_enable",
    }


def test_building_again_builds_only_when_forced(
    request_fp16: EngineRequest, cache: EngineCache
) -> None:
    compiler = Compiler()
    first, _ = build_engine(request_fp16, MACHINE, cache, compiler)
    assert build_engine(request_fp16, MACHINE, cache, compiler) == (first, False)
    second, is_new = build_engine(request_fp16, MACHINE, cache, compiler, force=True)
    assert is_new
    assert len(compiler.calls) == 2
    assert cache.scan()[0] == [second]


def test_a_larger_batch_is_another_engine(request_fp16: EngineRequest, cache: EngineCache) -> None:
    compiler = Compiler()
    larger = dataclasses.replace(request_fp16, batch_max=8)
    build_engine(larger, MACHINE, cache, compiler)
    assert compiler.calls[0][1].profile.optimum == {"image": (1, 1, INPUT_SIZE, INPUT_SIZE)}
    assert compiler.calls[0][1].profile.maximum == {"image": (8, 1, INPUT_SIZE, INPUT_SIZE)}
    assert find_engine(request_fp16, MACHINE, cache).key.batch_max == 8
    _, is_new = build_engine(request_fp16, MACHINE, cache, compiler)
    assert is_new
    assert find_engine(request_fp16, MACHINE, cache).key.batch_max == 1
    with pytest.raises(ModelError, match="no TensorRT engine"):
        find_engine(dataclasses.replace(request_fp16, batch_max=9), MACHINE, cache)


def test_a_failed_build_leaves_nothing(request_fp16: EngineRequest, cache: EngineCache) -> None:
    def fails(request: EngineRequest, options: TensorrtOptions) -> None:
        (options.engine_folder / "half.engine").write_bytes(b"half")
        raise ModelError("no memory")

    with pytest.raises(ModelError, match="no memory"):
        build_engine(request_fp16, MACHINE, cache, fails)
    assert cache.scan() == ([], [])
    assert [path.name for path in cache.folder.iterdir()] == ["timings"]


def test_a_failed_forced_build_leaves_the_engine_that_was_there(
    request_fp16: EngineRequest, cache: EngineCache
) -> None:
    engine, _ = build_engine(request_fp16, MACHINE, cache, Compiler())

    def writes_nothing(request: EngineRequest, options: TensorrtOptions) -> None:
        pass

    with pytest.raises(ModelError, match="expected an engine"):
        build_engine(request_fp16, MACHINE, cache, writes_nothing, force=True)
    assert find_engine(request_fp16, MACHINE, cache) == engine


def test_a_changed_model_has_no_engine(bundle: Bundle, cache: EngineCache, tmp_path: Path) -> None:
    copy = tmp_path / "backbone.onnx"
    copy.write_bytes(bundle.backbone.read_bytes())
    request = EngineRequest(model=copy, precision="fp32")
    build_engine(request, MACHINE, cache, Compiler())
    find_engine(request, MACHINE, cache)
    copy.write_bytes(copy.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="no TensorRT engine"):
        find_engine(request, MACHINE, cache)


class Opener:
    """Opens on the CPU what was to open on TensorRT, as a GPU's session would be opened."""

    def __init__(self, *, rebuilds: bool = False) -> None:
        self.rebuilds = rebuilds
        self.providers: list[OrtProvider] = []

    def __call__(
        self,
        model: Path,
        provider: str,
        make_providers: MakeProviders,
        device_id: int,
        batch_max: int | None,
    ) -> DeviceSession:
        self.providers = make_providers(True)
        if self.rebuilds:
            folder = Path(self.providers[0][1]["trt_engine_cache_path"])
            (folder / "ildsdk_1_sm90.engine").write_bytes(b"another engine")
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        return DeviceSession(session, provider, device="cpu", batch_max=batch_max)


def test_a_query_without_an_engine_fails_unless_told_otherwise(
    request_fp16: EngineRequest, tmp_path: Path
) -> None:
    compiler, opener = Compiler(), Opener()
    folder = tmp_path / "engines"
    settings = RuntimeSettings(provider="tensorrt", precision="fp16", engine_folder=folder)
    with pytest.raises(ModelError, match="build-engine --precision fp16"):
        open_with_engine(request_fp16, settings, MACHINE, open_session=opener)
    allowed = dataclasses.replace(settings, allow_engine_build=True, gpu_memory_bytes=1 << 30)
    open_with_engine(request_fp16, allowed, MACHINE, compile_model=compiler, open_session=opener)
    (tensorrt, options), (cuda, more) = opener.providers
    assert (tensorrt, cuda) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_engine_cache_path"].startswith(str(folder / "fp16-b1-sm90-"))
    assert options["trt_cuda_graph_enable"] == "True"
    assert more["gpu_mem_limit"] == str(1 << 30)
    session = open_with_engine(request_fp16, settings, MACHINE, open_session=opener)
    assert len(compiler.calls) == 1
    with pytest.raises(ModelError, match="engine is built for at most 1"):
        session.run_all(["deep_features"], {"image": np.zeros((2, 1, 64, 64), np.float32)})


def test_an_engine_that_tensorrt_does_not_take_is_an_error(
    request_fp16: EngineRequest, tmp_path: Path
) -> None:
    settings = RuntimeSettings(engine_folder=tmp_path / "engines", allow_engine_build=True)
    with pytest.raises(ModelError, match="did not take the engine"):
        open_with_engine(
            request_fp16,
            settings,
            MACHINE,
            compile_model=Compiler(),
            open_session=Opener(rebuilds=True),
        )


def test_input_shapes_and_no_model(bundle: Bundle, tmp_path: Path) -> None:
    assert input_shapes(bundle.fusion) == {
        "deep_features": ["batch", 8],
        "radiomics": ["batch", 102],
    }
    path = tmp_path / "backbone.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"backbone.onnx does not load") as caught:
        input_shapes(path)
    assert str(tmp_path) not in str(caught.value)


def test_this_machine_says_what_is_missing() -> None:
    if missing_for("tensorrt") is None:
        pytest.skip("TensorRT loads on this machine")
    with pytest.raises(ModelError, match=r"does not load: .* is not installed|device"):
        TensorrtMachine.here()
