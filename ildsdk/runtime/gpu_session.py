"""Sessions on CUDA and TensorRT: opened with all their options, and made sure of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.assignment import check_assignment, record_assignment
from ildsdk.runtime.device_session import DeviceSession
from ildsdk.runtime.engine_cache import EngineCache
from ildsdk.runtime.provider_libraries import EP_NAMES
from ildsdk.runtime.provider_options import (
    CudaOptions,
    GpuPrecision,
    OrtProvider,
    TensorrtOptions,
)
from ildsdk.runtime.tensorrt_engine import (
    CompileModel,
    EngineRequest,
    TensorrtMachine,
    build_engine,
    find_engine,
)
from ildsdk.settings import RuntimeSettings

_LOG_FATAL = 4
_GRAPH_REFUSED = "graph capture feature"
_CUDA_FAILURE = re.compile(r"C(?:UDA|UDNN|UBLAS) failure \d+: [^;\n]+")

MakeProviders = Callable[[bool], list[OrtProvider]]
"""Providers and options of a session, with CUDA graphs or without."""
OpenSession = Callable[[Path, str, MakeProviders, int, int | None], DeviceSession]
"""Opens a model on a provider: model, provider, its options, device, largest batch."""


def open_gpu_session(
    model: Path, provider: str, settings: RuntimeSettings, precision: GpuPrecision
) -> DeviceSession:
    """Load a network on a GPU.

    Parameters
    ----------
    model : Path
        ONNX file, checked by the bundle beforehand.
    provider : {"cuda", "tensorrt"}
        Its libraries load (:func:`ildsdk.runtime.providers.resolve`).
    settings : RuntimeSettings
        Device, memory limit, folder of engines, and whether one may be built.
    precision : {"fp32", "fp16", "int8"}
        "fp16" and "int8" are TensorRT's.

    Raises
    ------
    ModelError
        It does not load, the network would run elsewhere, or TensorRT has no engine for it.
    """
    if provider == "cuda":

        def make_providers(cuda_graph: bool) -> list[OrtProvider]:
            return [dataclasses.replace(_cuda(settings), cuda_graph=cuda_graph).to_ort()]

        return _open(model, provider, make_providers, settings.device_id)
    return open_with_engine(
        EngineRequest(model=model, precision=precision, device_id=settings.device_id),
        settings,
        TensorrtMachine.here(),
    )


def open_with_engine(
    request: EngineRequest,
    settings: RuntimeSettings,
    machine: TensorrtMachine,
    *,
    compile_model: CompileModel | None = None,
    open_session: OpenSession | None = None,
) -> DeviceSession:
    """Load a network on TensorRT, from an engine that is there or, where allowed, built now.

    Parameters
    ----------
    request : EngineRequest
    settings : RuntimeSettings
    machine : TensorrtMachine
    compile_model, open_session : callable, optional
        What needs a GPU: :func:`compile_with_tensorrt`, and the opening of the session.

    Raises
    ------
    ModelError
        There is no engine, or TensorRT did not take it.
    """
    if settings.engine_folder is None:
        raise ModelError(
            "provider 'tensorrt' needs a folder of engines, and none is named (engine_folder); "
            "`ildsdk build-engine` builds them and says where"
        )
    cache = EngineCache(settings.engine_folder)
    if settings.allow_engine_build:
        compile_model = compile_model or compile_with_tensorrt
        engine, _ = build_engine(request, machine, cache, compile_model)
    else:
        engine = find_engine(request, machine, cache)

    def make_providers(cuda_graph: bool) -> list[OrtProvider]:
        options = request.options(engine.profile, engine.folder, cuda_graph=cuda_graph)
        # What TensorRT has no kernel for goes to CUDA, as ONNX Runtime's documentation asks.
        return [options.to_ort(), _cuda(settings).to_ort()]

    before = _stamp(engine.folder)
    session = (open_session or _open)(
        request.model, "tensorrt", make_providers, request.device_id, engine.key.batch_max
    )
    if _stamp(engine.folder) != before:
        raise ModelError(
            f"TensorRT did not take the engine {engine.folder.name} and built another; build it "
            "anew (`ildsdk build-engine --force`) and report this"
        )
    return session


def compile_with_tensorrt(request: EngineRequest, options: TensorrtOptions) -> None:
    """Have TensorRT build an engine into ``options.engine_folder``, and run it once.

    Raises
    ------
    ModelError
        It does not build, does not run, or leaves arithmetic to another provider.
    """
    providers = [options.to_ort(), CudaOptions(device_id=request.device_id).to_ort()]
    session = start(request.model, "tensorrt", providers)
    inputs = {name: np.zeros(shape, np.float32) for name, shape in options.profile.maximum.items()}
    try:
        session.run(None, inputs)
    except Exception as error:  # onnxruntime raises its own unrelated exception classes
        raise ModelError(
            f"the new engine of {request.model.name} does not run: "
            f"{_without(error, request.model.parent, options.engine_folder)}"
        ) from error


def start(model: Path, provider: str, providers: list[OrtProvider]) -> ort.InferenceSession:
    """Start a session that runs on this provider and no other.

    Raises
    ------
    ModelError
        It does not start, or its arithmetic would run elsewhere.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # for the few operators about shapes
    options.log_severity_level = _LOG_FATAL  # what matters is raised below, not logged
    record_assignment(options)
    try:
        session = ort.InferenceSession(
            str(model), sess_options=options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises its own unrelated exception classes
        folders = [
            Path(value)
            for _, values in providers
            for name, value in values.items()
            if name.endswith("_path")
        ]
        raise ModelError(
            f"model {model.name} does not load on {provider!r}: "
            f"{_without(error, model.parent, *folders)}; verify the bundle (ildsdk bundle verify) "
            "and the provider (ildsdk doctor)"
        ) from error
    running = session.get_providers()[0]
    if running != EP_NAMES[provider]:
        raise ModelError(
            f"execution provider {provider!r} was asked for, but ONNX Runtime runs on {running}; "
            "see ildsdk doctor for what is missing, or ask for provider 'cpu'"
        )
    check_assignment(session, provider, model)
    return session


def _open(
    model: Path,
    provider: str,
    make_providers: MakeProviders,
    device_id: int,
    batch_max: int | None = None,
) -> DeviceSession:
    """Session with CUDA graphs, or without where ONNX Runtime refuses them for this network."""
    has_graph = True
    try:
        session = start(model, provider, make_providers(True))
    except ModelError as error:
        if _GRAPH_REFUSED not in str(error):
            raise
        has_graph = False
        session = start(model, provider, make_providers(False))
    return DeviceSession(
        session,
        provider,
        device="cuda",
        device_id=device_id,
        batch_max=batch_max,
        has_cuda_graph=has_graph,
    )


def _cuda(settings: RuntimeSettings) -> CudaOptions:
    return CudaOptions(device_id=settings.device_id, memory_limit_bytes=settings.gpu_memory_bytes)


def _stamp(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file: changes when one is written."""
    states = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


def _without(error: Exception, *folders: Path) -> str:
    """Message of an error without the folders files lie in, or the failure of CUDA within it."""
    text = str(error)
    of_cuda = _CUDA_FAILURE.search(text)
    if of_cuda is not None:  # the rest is template arguments and the name of the machine
        return of_cuda.group().strip()
    for folder in folders:
        text = text.replace(str(folder), "...")
    return text
