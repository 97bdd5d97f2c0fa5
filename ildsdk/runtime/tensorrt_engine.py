"""The TensorRT engine of a network: found, or built where that is allowed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.runtime.engine_cache import ENGINE_PREFIX, Engine, EngineCache
from ildsdk.runtime.engine_key import EngineKey, engine_key
from ildsdk.runtime.nvidia import NvidiaDriver, read_driver
from ildsdk.runtime.provider_libraries import installed_tensorrt_version
from ildsdk.runtime.provider_options import (
    DEFAULT_BUILDER_LEVEL,
    DEFAULT_WORKSPACE_BYTES,
    GpuPrecision,
    ShapeProfile,
    TensorrtOptions,
)

_LOG_FATAL = 4
_OPTIMUM_BATCH = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtMachine:
    """What of this machine an engine depends on.

    Attributes
    ----------
    driver : NvidiaDriver
    tensorrt : str
        Version, for example ``"10.13.2"``.
    """

    driver: NvidiaDriver
    tensorrt: str

    @classmethod
    def here(cls) -> TensorrtMachine:
        """Facts of this machine.

        Raises
        ------
        ModelError
            It has no NVIDIA driver, no device or no TensorRT; the message names what is missing.
        """
        return cls(driver=read_driver(), tensorrt=installed_tensorrt_version())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """Which engine is wanted.

    Attributes
    ----------
    model : Path
        ONNX file.
    precision : {"fp32", "fp16", "int8"}
    batch_max : int
    device_id : int
    builder_level, workspace_bytes : int
        As in :class:`~ildsdk.runtime.provider_options.TensorrtOptions`.
    """

    model: Path
    precision: GpuPrecision
    batch_max: int = 1
    device_id: int = 0
    builder_level: int = DEFAULT_BUILDER_LEVEL
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES

    def key(self, machine: TensorrtMachine) -> EngineKey:
        """Key of that engine on a machine.

        Raises
        ------
        ModelError
            There is no such device, or the model cannot be read.
        """
        return engine_key(
            self.model,
            self.precision,
            batch_max=self.batch_max,
            driver=machine.driver,
            device_id=self.device_id,
            tensorrt=machine.tensorrt,
            builder_level=self.builder_level,
            workspace_bytes=self.workspace_bytes,
        )

    def options(
        self, profile: ShapeProfile, engine_folder: Path, *, cuda_graph: bool
    ) -> TensorrtOptions:
        """Options of a session that reads its engine from a folder, or writes it there."""
        return TensorrtOptions(
            precision=self.precision,
            profile=profile,
            engine_folder=engine_folder,
            engine_prefix=ENGINE_PREFIX,
            device_id=self.device_id,
            workspace_bytes=self.workspace_bytes,
            builder_level=self.builder_level,
            cuda_graph=cuda_graph,
        )


CompileModel = Callable[[EngineRequest, TensorrtOptions], None]
"""Starts a session with these options, which has TensorRT write the engine, and runs it once."""


def find_engine(request: EngineRequest, machine: TensorrtMachine, cache: EngineCache) -> Engine:
    """Engine that was built ahead of time.

    Raises
    ------
    ModelError
        There is none, or it cannot be trusted; the message says how to build one.
    """
    key = request.key(machine)
    engine = cache.find(key, batch=request.batch_max)
    if engine is None:
        raise ModelError(
            f"there is no TensorRT engine of {request.model.name} in {request.precision} for "
            f"{key.gpu} (compute capability {key.compute_capability}) with TensorRT "
            f"{key.tensorrt}, onnxruntime {key.onnxruntime} and driver {key.driver}, and building "
            "one takes minutes; build it ahead of time (`ildsdk build-engine --precision "
            f"{request.precision}`, with --bundle for your own), or allow it now "
            "(allow_engine_build, --allow-engine-build)"
        )
    return engine


def build_engine(
    request: EngineRequest,
    machine: TensorrtMachine,
    cache: EngineCache,
    compile_model: CompileModel,
    *,
    force: bool = False,
) -> tuple[Engine, bool]:
    """Build an engine, unless there is one.

    Parameters
    ----------
    request : EngineRequest
    machine : TensorrtMachine
    cache : EngineCache
    compile_model : callable
        :func:`ildsdk.runtime.gpu_session.compile_with_tensorrt`, which needs a GPU.
    force : bool
        Build anew.

    Returns
    -------
    engine : Engine
    is_new : bool

    Raises
    ------
    ModelError
        TensorRT could not build it, or it could not be kept; nothing half-built stays.
    """
    key = request.key(machine)
    if not force:
        engine = cache.find(key, batch=request.batch_max)
        if engine is not None and engine.key == key:
            return engine, False
    try:
        profile = ShapeProfile.of_batches(
            input_shapes(request.model), optimum=_OPTIMUM_BATCH, maximum=request.batch_max
        )
    except ValueError as error:
        raise ModelError(f"{request.model.name} fits no engine: {error}") from error
    started = time.perf_counter()
    with cache.draft(key) as draft:
        options = dataclasses.replace(
            request.options(profile, draft, cuda_graph=False),
            timing_folder=cache.timing_folder(key),
        )
        compile_model(request, options)
        return cache.commit(draft, key, profile, time.perf_counter() - started), True


def input_shapes(model: Path) -> dict[str, list[int | str | None]]:
    """Axes of a model's inputs, read on the CPU without optimising anything.

    Raises
    ------
    ModelError
        The model does not load.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _LOG_FATAL
    try:
        session = ort.InferenceSession(
            str(model), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own unrelated exception classes
        text = str(error).replace(str(model.parent), "...")
        raise ModelError(f"model {model.name} does not load: {text}") from error
    return {value.name: value.shape for value in session.get_inputs()}
