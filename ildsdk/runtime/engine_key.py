"""What a TensorRT engine was built for: it serves there and nowhere else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import onnxruntime as ort

from ildsdk.bundle.layout import BACKBONE_NAME, GRAPHS_BY_REFERENCE
from ildsdk.errors import ModelError
from ildsdk.runtime.nvidia import NvidiaDriver
from ildsdk.runtime.provider_options import GpuPrecision

_CHUNK_BYTES = 1 << 20
_DIGITS = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """All that an engine depends on.

    Attributes
    ----------
    model_sha256 : str
        Of the model file and, for the 8-bit one, of the file that holds its weights.
    precision : {"fp32", "fp16", "int8"}
    batch_max : int
        Largest batch of the profile, which begins at 1 and is tuned for 1.
    tensorrt, onnxruntime : str
        Versions.
    driver, cuda : str
        Version of the driver (``"unknown"`` where it does not tell) and the newest CUDA it runs.
    compute_capability, gpu : str
        Of the device; its name too, because an engine is tuned for its number of units and memory.
    builder_level, workspace_bytes : int
        Settings of the builder.
    """

    model_sha256: str
    precision: GpuPrecision
    batch_max: int
    tensorrt: str
    onnxruntime: str
    driver: str
    cuda: str
    compute_capability: str
    gpu: str
    builder_level: int
    workspace_bytes: int

    def __post_init__(self) -> None:
        if self.precision not in get_args(GpuPrecision) or self.batch_max < 1:
            raise ValueError(f"no engine has precision {self.precision!r}, batch {self.batch_max}")

    @property
    def folder_name(self) -> str:
        """Name of the engine's folder: a readable part, and a digest over everything."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        sm = self.compute_capability.replace(".", "")
        return f"{self.precision}-b{self.batch_max}-sm{sm}-{digest}"

    @property
    def timing_name(self) -> str:
        """Name of the folder of build timings: they depend on machine and TensorRT only."""
        facts = (self.tensorrt, self.driver, self.cuda, self.compute_capability, self.gpu)
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_DIGITS]
        return f"trt{self.tensorrt}-sm{self.compute_capability.replace('.', '')}-{digest}"

    def with_batch_max(self, batch_max: int) -> EngineKey:
        """The same key for another largest batch."""
        return dataclasses.replace(self, batch_max=batch_max)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EngineKey:
        """Key from the plain values of :func:`dataclasses.asdict`.

        Raises
        ------
        ValueError, TypeError
            Something is missing, unknown or of another type.
        """
        expected = {field.name: field.type for field in dataclasses.fields(cls)}
        if set(values) != set(expected):
            raise ValueError(f"an engine's key has {sorted(expected)}, not {sorted(values)}")
        for name, kind in expected.items():
            if not isinstance(values[name], int if kind == "int" else str):
                raise TypeError(f"{name} of an engine's key is {values[name]!r}")
        return cls(**values)


def engine_key(
    model: Path,
    precision: GpuPrecision,
    *,
    batch_max: int,
    driver: NvidiaDriver,
    device_id: int,
    tensorrt: str,
    builder_level: int,
    workspace_bytes: int,
) -> EngineKey:
    """Key of the engine of one model on one device.

    Parameters
    ----------
    model : Path
        ONNX file.
    precision : {"fp32", "fp16", "int8"}
    batch_max : int
    driver : NvidiaDriver
    device_id : int
    tensorrt : str
        Version of TensorRT.
    builder_level, workspace_bytes : int

    Raises
    ------
    ModelError
        There is no such device, or the model cannot be read.
    """
    gpu = driver.gpu(device_id)
    return EngineKey(
        model_sha256=model_sha256(model),
        precision=precision,
        batch_max=batch_max,
        tensorrt=tensorrt,
        onnxruntime=str(ort.__version__),
        driver=driver.version or "unknown",
        cuda=driver.cuda_version,
        compute_capability=gpu.compute_capability,
        gpu=gpu.name,
        builder_level=builder_level,
        workspace_bytes=workspace_bytes,
    )


def model_sha256(model: Path) -> str:
    """SHA-256 (hex) of a model and, for the 8-bit one, of the file that holds its weights.

    Raises
    ------
    ModelError
        A file cannot be read.

    Notes
    -----
    An 8-bit backbone of a bundle keeps its weights in ``backbone.onnx`` (docs/bundle-format.md):
    the same graph beside another such file is another model.
    """
    weights = model.with_name(BACKBONE_NAME)
    parts = [model]
    if model.name in GRAPHS_BY_REFERENCE and weights.is_file():
        parts.append(weights)
    digest = hashlib.sha256()
    try:
        for path in parts:
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
    except OSError as error:
        raise ModelError(f"model {model.name} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
