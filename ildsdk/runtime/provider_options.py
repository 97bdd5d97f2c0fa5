"""Options that CUDA and TensorRT sessions are opened with, as records that check themselves.

Names and values are those of ONNX Runtime's providers; why each is set is in docs/gpu.md. Nothing
here has been measured on a GPU by us yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ildsdk.runtime.provider_libraries import EP_NAMES

OrtProvider = tuple[str, dict[str, str]]
GpuPrecision = Literal["fp32", "fp16", "int8"]

DEFAULT_WORKSPACE_BYTES = 1 << 30
DEFAULT_BUILDER_LEVEL = 3
_NOT_IN_NAMES = set(",: ")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CudaOptions:
    """Options of the CUDA provider.

    Attributes
    ----------
    device_id : int
    memory_limit_bytes : int or None
        Upper limit of the provider's arena; None: none.
    conv_search : {"HEURISTIC", "DEFAULT", "EXHAUSTIVE"}
        How cuDNN chooses a convolution. The exhaustive search tries them all at the first run.
    arena_strategy : {"kSameAsRequested", "kNextPowerOfTwo"}
        How the arena grows; the former takes no more than was asked for.
    cuda_graph : bool
        Capture the kernels of the fixed shape once, replay them by one call.
    tf32 : bool
        Let convolutions round their inputs to 10 bits on Ampere and later. Off: "fp32" is to mean
        float32.
    """

    device_id: int = 0
    memory_limit_bytes: int | None = None
    conv_search: Literal["HEURISTIC", "DEFAULT", "EXHAUSTIVE"] = "HEURISTIC"
    arena_strategy: Literal["kSameAsRequested", "kNextPowerOfTwo"] = "kSameAsRequested"
    cuda_graph: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        _check_device(self.device_id)
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise ValueError(f"memory_limit_bytes is {self.memory_limit_bytes}, expected 1 or more")

    def to_ort(self) -> OrtProvider:
        """Provider name and options for ``InferenceSession(providers=[...])``."""
        options = {
            "device_id": str(self.device_id),
            "arena_extend_strategy": self.arena_strategy,
            "cudnn_conv_algo_search": self.conv_search,
            "enable_cuda_graph": _digit(self.cuda_graph),
            "use_tf32": _digit(self.tf32),
        }
        if self.memory_limit_bytes is not None:
            options["gpu_mem_limit"] = str(self.memory_limit_bytes)
        return EP_NAMES["cuda"], options


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProfile:
    """Smallest, likeliest and largest shape of each input: what an engine is built for.

    Attributes
    ----------
    minimum, optimum, maximum : mapping of str to tuple of int
        Input name to shape, batch axis first. All three name the same inputs.
    """

    minimum: Mapping[str, tuple[int, ...]]
    optimum: Mapping[str, tuple[int, ...]]
    maximum: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        names = list(self.minimum)
        if not names or list(self.optimum) != names or list(self.maximum) != names:
            raise ValueError(f"the three shapes of a profile name different inputs: {names}")
        for name in names:
            if not name or _NOT_IN_NAMES & set(name):
                raise ValueError(f"input {name!r} cannot stand in a profile (no ',', ':' or ' ')")
            ranges = list(
                zip(self.minimum[name], self.optimum[name], self.maximum[name], strict=True)
            )
            if not all(1 <= low <= likely <= high for low, likely, high in ranges):
                raise ValueError(
                    f"profile of {name!r} is {ranges}, expected 1 <= min <= opt <= max"
                )

    @classmethod
    def of_batches(
        cls, shapes: Mapping[str, Sequence[int | str | None]], *, optimum: int, maximum: int
    ) -> ShapeProfile:
        """Profile of inputs whose first axis is free, for batches from 1 to ``maximum``.

        Parameters
        ----------
        shapes : mapping
            Input name to shape as an ONNX session gives it: the batch axis by name, the others
            by number.
        optimum, maximum : int
            Batch sizes.

        Raises
        ------
        ValueError
            An axis behind the batch axis is free too.
        """

        def at(batch: int) -> dict[str, tuple[int, ...]]:
            return {name: (batch, *_fixed(name, shape)) for name, shape in shapes.items()}

        return cls(minimum=at(1), optimum=at(optimum), maximum=at(maximum))

    def texts(self) -> dict[str, str]:
        """The three options of the TensorRT provider, ``input:1x1x224x224,other:1x102``."""
        return {
            f"trt_profile_{kind}_shapes": ",".join(
                f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()
            )
            for kind, shapes in (
                ("min", self.minimum),
                ("opt", self.optimum),
                ("max", self.maximum),
            )
        }

    def to_dict(self) -> dict[str, dict[str, list[int]]]:
        """Plain values, as an engine's manifest keeps them."""
        return {
            field.name: {name: list(shape) for name, shape in getattr(self, field.name).items()}
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Sequence[int]]]) -> ShapeProfile:
        """Inverse of :meth:`to_dict`."""
        return cls(
            **{
                kind: {name: tuple(map(int, shape)) for name, shape in shapes.items()}
                for kind, shapes in values.items()
            }
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtOptions:
    """Options of the TensorRT provider.

    Attributes
    ----------
    precision : {"fp32", "fp16", "int8"}
        Arithmetic the builder may take beside float32. "int8" wants a graph with quantisation
        nodes of zero point 0.
    profile : ShapeProfile
        Explicit: a shape outside of it would have the engine built anew.
    engine_folder : Path
        Private folder the engine is read from, or written to by a build.
    engine_prefix : str
        Beginning of the engine's file name.
    timing_folder : Path or None
        Private folder of the timings that speed up the next build; None reads and writes none.
    device_id : int
    workspace_bytes : int
        Scratch memory the builder may plan with.
    builder_level : int
        0 to 5; more tries more kernels and takes longer to build.
    cuda_graph : bool
    detailed_build_log : bool
    """

    precision: GpuPrecision
    profile: ShapeProfile
    engine_folder: Path
    engine_prefix: str
    timing_folder: Path | None = None
    device_id: int = 0
    workspace_bytes: int = DEFAULT_WORKSPACE_BYTES
    builder_level: int = DEFAULT_BUILDER_LEVEL
    cuda_graph: bool = False
    detailed_build_log: bool = False

    def __post_init__(self) -> None:
        _check_device(self.device_id)
        if self.workspace_bytes < 1:
            raise ValueError(f"workspace_bytes is {self.workspace_bytes}, expected 1 or more")
        if not 0 <= self.builder_level <= 5:
            raise ValueError(f"builder_level is {self.builder_level}, expected 0 to 5")

    def to_ort(self) -> OrtProvider:
        """Provider name and options for ``InferenceSession(providers=[...])``."""
        options = {
            "device_id": str(self.device_id),
            "trt_fp16_enable": _word(self.precision == "fp16"),
            "trt_int8_enable": _word(self.precision == "int8"),
            "trt_max_workspace_size": str(self.workspace_bytes),
            "trt_builder_optimization_level": str(self.builder_level),
            "trt_engine_cache_enable": _word(True),
            "trt_engine_cache_path": str(self.engine_folder),
            "trt_engine_cache_prefix": self.engine_prefix,
            # An engine for any later GPU is slower, and the key names the GPU anyway.
            "trt_engine_hw_compatible": _word(False),
            "trt_timing_cache_enable": _word(self.timing_folder is not None),
            "trt_cuda_graph_enable": _word(self.cuda_graph),
            "trt_detailed_build_log": _word(self.detailed_build_log),
            **self.profile.texts(),
        }
        if self.timing_folder is not None:
            options["trt_timing_cache_path"] = str(self.timing_folder)
        return EP_NAMES["tensorrt"], options


def _fixed(name: str, shape: Sequence[int | str | None]) -> tuple[int, ...]:
    axes = tuple(axis for axis in shape[1:] if isinstance(axis, int))
    if len(axes) != len(shape) - 1:
        raise ValueError(f"input {name!r} has the shape {list(shape)}, expected one free axis")
    return axes


def _check_device(device_id: int) -> None:
    if device_id < 0:
        raise ValueError(f"device_id is {device_id}, expected 0 or more")


def _word(value: bool) -> str:
    return "True" if value else "False"  # the TensorRT provider takes no digits


def _digit(value: bool) -> str:
    return "1" if value else "0"
