"""Whether execution providers and precisions work here: each runs, and agrees with the CPU."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk import defaults
from ildsdk.bundle import Bundle
from ildsdk.check import Check, tried
from ildsdk.encoder import Encoder
from ildsdk.errors import ModelError
from ildsdk.runtime.bundle_engines import engine_requests
from ildsdk.runtime.engine_cache import EngineCache
from ildsdk.runtime.nvidia import read_driver
from ildsdk.runtime.precision import int8_backbone
from ildsdk.runtime.provider_libraries import installed_tensorrt_version, missing_for
from ildsdk.runtime.provider_options import GpuPrecision
from ildsdk.runtime.tensorrt_engine import TensorrtMachine
from ildsdk.settings import Provider, RuntimeSettings

# Rounding stays far above these; another network, another input or a wrong kernel far below.
_MIN_COSINE: dict[GpuPrecision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}

Embedding = npt.NDArray[np.float32]


def gpu_facts() -> list[Check]:
    """NVIDIA driver, devices and TensorRT, as their libraries tell."""
    checks = [tried("gpu", "TensorRT", installed_tensorrt_version, absent="missing")]
    try:
        driver = read_driver()
    except ModelError as error:
        return [Check(area="gpu", name="driver", status="missing", detail=str(error)), *checks]
    version = driver.version or "version unknown"
    devices = [
        Check(
            area="gpu",
            name=f"device {gpu.index}",
            status="ok",
            detail=f"{gpu.name}, compute capability {gpu.compute_capability}, "
            f"{gpu.memory_bytes / 2**30:.1f} GiB",
        )
        for gpu in driver.gpus
    ]
    detail = f"{version}, runs CUDA {driver.cuda_version} and older"
    return [Check(area="gpu", name="driver", status="ok", detail=detail), *devices, *checks]


def provider_trials(engine_folder: Path | None) -> list[Check]:
    """Run the embedded bundle on each provider in each precision, and compare its embedding.

    Parameters
    ----------
    engine_folder : Path or None
        Where TensorRT engines lie.
    """
    reference: list[Embedding] = []

    def run_reference() -> str:
        reference.append(_embedding("cpu", "fp32", None))
        return "embedded bundle runs"

    checks = [tried("provider", "cpu fp32", run_reference)]
    if not reference:
        return checks
    bundle = Bundle.open(defaults.bundle_path())
    if int8_backbone(bundle, "cpu") is not None:
        checks.append(_trial("cpu", "int8", engine_folder, reference[0]))
    checks.append(
        _absent("cuda") or _trial("cuda", "fp32", engine_folder, reference[0]),
    )
    return [*checks, *_tensorrt_trials(bundle, engine_folder, reference[0])]


def _tensorrt_trials(
    bundle: Bundle, engine_folder: Path | None, reference: Embedding
) -> list[Check]:
    absent = _absent("tensorrt")
    if absent is not None:
        return [absent]
    if engine_folder is None:
        detail = "no folder of engines is named"
        return [Check(area="provider", name="tensorrt", status="missing", detail=detail)]
    precisions: list[GpuPrecision] = ["fp32", "fp16"]
    if int8_backbone(bundle, "tensorrt") is not None:
        precisions.append("int8")
    engines = tried("engines", "TensorRT", lambda: _engine_state(engine_folder))
    return [
        engines,
        *(
            _without_engine(bundle, precision, engine_folder)
            or _trial("tensorrt", precision, engine_folder, reference)
            for precision in precisions
        ),
    ]


def _absent(provider: Provider) -> Check | None:
    missing = missing_for(provider)
    if missing is None:
        try:
            read_driver()
            return None
        except ModelError as error:
            missing = str(error)
    return Check(area="provider", name=provider, status="missing", detail=missing)


def _without_engine(bundle: Bundle, precision: GpuPrecision, folder: Path) -> Check | None:
    """Say which engine is not built; None where all are, or where the trial will tell why not."""
    try:
        machine, cache = TensorrtMachine.here(), EngineCache(folder)
        lacking = [
            request.model.name
            for request in engine_requests(bundle, precision)
            if cache.find(request.key(machine)) is None
        ]
    except ModelError:
        return None
    if not lacking:
        return None
    return Check(
        area="provider",
        name=f"tensorrt {precision}",
        status="missing",
        detail=f"no engine of {', '.join(lacking)}; `ildsdk build-engine --precision {precision}`",
    )


def _engine_state(folder: Path) -> str:
    engines, problems = EngineCache(folder).scan()
    if problems:
        raise ModelError("; ".join(problems))
    return f"{len(engines)} engines, {sum(engine.n_bytes for engine in engines) / 1e6:.0f} MB"


def _trial(
    provider: Provider, precision: GpuPrecision, engine_folder: Path | None, reference: Embedding
) -> Check:
    trial = functools.partial(_agreement, provider, precision, engine_folder, reference)
    return tried("provider", f"{provider} {precision}", trial)


def _agreement(
    provider: Provider, precision: GpuPrecision, engine_folder: Path | None, reference: Embedding
) -> str:
    cosine = float(_embedding(provider, precision, engine_folder) @ reference)
    text = f"embedding has cosine {cosine:.6f} to that of fp32 on the CPU"
    if not cosine >= _MIN_COSINE[precision]:
        raise ModelError(
            f"{text}, expected {_MIN_COSINE[precision]} or more: it computes something else; take "
            "another precision or provider, and report this"
        )
    return text


def _embedding(
    provider: Provider, precision: GpuPrecision, engine_folder: Path | None
) -> Embedding:
    settings = RuntimeSettings(provider=provider, precision=precision, engine_folder=engine_folder)
    return Encoder(Bundle.open(defaults.bundle_path()), settings).self_test()
