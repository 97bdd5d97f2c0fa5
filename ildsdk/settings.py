"""Frozen settings that check themselves.

Result-changing settings (:class:`MethodSettings`) live in the bundle's manifest and are part
of its hash. Speed-only settings (:class:`RuntimeSettings`) and the settings of
one query (:class:`QuerySettings`) are not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ildsdk.errors import ConfigError

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
Precision = Literal["auto", "fp32", "int8", "fp16"]
SearchMode = Literal["exact", "fast", "paper"]
RadiomicsEngine = Literal["fast", "pyradiomics"]

SettingsT = TypeVar("SettingsT")


def settings_from_mapping(cls: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Build a settings record from a mapping, refusing unknown keys.

    Raises
    ------
    ConfigError
        A key is unknown (the nearest valid name is given), or a value is out of range.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"unknown {cls.__name__} setting {key!r}{hint} (known: {', '.join(known)})"
            )
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{cls.__name__} cannot be built: {error}") from error


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MethodSettings:
    """What changes an embedding: part of the bundle, hashed into bundle and index.

    Attributes
    ----------
    input_size : int
        Side of the square model input in pixels.
    window_center_hu, window_width_hu : float
        Lung window in HU (method section 1.2: -500 / 1500).
    crop_margin : float
        Margin added around the lung mask's bounding box before resampling to the model
        input, as a share of the box's longer side.
    min_lung_area_mm2 : float
        Slices with less lung than this are skipped (method section 1.4).
    """

    input_size: int = 224
    window_center_hu: float = -500.0
    window_width_hu: float = 1500.0
    crop_margin: float = 0.04
    min_lung_area_mm2: float = 3000.0

    def __post_init__(self) -> None:
        _check(
            isinstance(self.input_size, int) and 32 <= self.input_size <= 2048,
            f"input_size is {self.input_size!r}, expected a whole number from 32 to 2048",
        )
        _check(
            self.window_width_hu > 0 and math.isfinite(self.window_width_hu),
            f"window_width_hu is {self.window_width_hu!r}, expected > 0",
        )
        _check(
            math.isfinite(self.window_center_hu),
            f"window_center_hu is {self.window_center_hu!r}, expected a finite number",
        )
        _check(0 <= self.crop_margin <= 1, f"crop_margin is {self.crop_margin!r}, expected 0 to 1")
        _check(
            self.min_lung_area_mm2 > 0,
            f"min_lung_area_mm2 is {self.min_lung_area_mm2!r}, expected > 0",
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How fast, not what: execution provider, precision, threads, device, radiomics engine.

    Attributes
    ----------
    provider : {"auto", "cpu", "cuda", "tensorrt"}
        The one asked for runs, or :class:`~ildsdk.errors.ModelError` says what is missing.
        ``"auto"`` takes CUDA where a CUDA session really starts, the CPU else.
    precision : {"auto", "fp32", "int8", "fp16"}
        Arithmetic of the backbone. ``"auto"`` takes on a CPU the bundle's default precision
        where this CPU is fast at it, float32 else, and float32 on a GPU. The other values are
        kept to, or refused with the reason (docs/cold-start.md#precision).
    n_threads : int or None
        Thread budget; None takes the CPUs this process may use (affinity and cgroup).
    device_id : int
        GPU number for CUDA and TensorRT.
    model_cache : Path or None
        Folder of this account for networks optimized for this processor, made where it is
        missing, so that the next process starts sooner; None: nothing is written. What
        ``ildsdk warmup`` put beside the package is used either way. See docs/cold-start.md.
    radiomics_engine : {"fast", "pyradiomics"}
        Same feature names, order and values; see ``ildsdk.radiomics``.
    gpu_memory_bytes : int or None
        Upper limit of ONNX Runtime's memory on the GPU; None: none.
    engine_folder : Path or None
        Where TensorRT engines lie, a folder that nobody else can write; TensorRT needs one. The
        command line takes ``engines`` in the user's cache folder.
    allow_engine_build : bool
        Build a missing TensorRT engine when it is needed, which takes minutes. Off, that is an
        error, and ``ildsdk build-engine`` builds ahead of time.
    """

    provider: Provider = "auto"
    precision: Precision = "auto"
    n_threads: int | None = None
    device_id: int = 0
    model_cache: Path | None = None
    radiomics_engine: RadiomicsEngine = "fast"
    gpu_memory_bytes: int | None = None
    engine_folder: Path | None = None
    allow_engine_build: bool = False

    def __post_init__(self) -> None:
        _check(
            self.engine_folder is None or isinstance(self.engine_folder, Path),
            f"engine_folder is a {type(self.engine_folder).__name__}, expected a Path or None",
        )
        _check(
            self.gpu_memory_bytes is None or self.gpu_memory_bytes >= 1,
            f"gpu_memory_bytes is {self.gpu_memory_bytes!r}, expected 1 or more",
        )
        _check(
            self.provider in get_args(Provider),
            f"provider is {self.provider!r}, expected one of {', '.join(get_args(Provider))}",
        )
        _check(
            self.precision in get_args(Precision),
            f"precision is {self.precision!r}, expected one of {', '.join(get_args(Precision))}",
        )
        _check(
            self.n_threads is None or self.n_threads >= 1,
            f"n_threads is {self.n_threads!r}, expected 1 or more",
        )
        _check(
            self.model_cache is None or isinstance(self.model_cache, Path),
            f"model_cache is a {type(self.model_cache).__name__}, expected a Path or None",
        )
        _check(self.device_id >= 0, f"device_id is {self.device_id!r}, expected 0 or more")
        _check(
            self.radiomics_engine in get_args(RadiomicsEngine),
            f"radiomics_engine is {self.radiomics_engine!r}, expected one of "
            f"{', '.join(get_args(RadiomicsEngine))}",
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """What one query asks for.

    Attributes
    ----------
    top_n : int
        Neighbors per slice, and cases in the case ranking.
    every_mm : float
        Take slices at least this far apart along the slice normal, in mm; 0 takes all.
        The paper's protocol is 10 mm.
    series_uid : str or None
        Use this SeriesInstanceUID instead of the one the rules choose.
    search_mode : {"exact", "fast", "paper"}
        Exact cosine search; sketches that find nearly all of that answer sooner in an index of
        hundreds of thousands of slices; or the paper's k = 3 hyperplanes, one table, one probe.
    exclude_same_patient : bool
        Leave out items of the query's own patient or study (default: do).
    """

    top_n: int = 10
    every_mm: float = 10.0
    series_uid: str | None = None
    search_mode: SearchMode = "exact"
    exclude_same_patient: bool = True

    def __post_init__(self) -> None:
        _check(
            isinstance(self.top_n, int) and 1 <= self.top_n <= 1000,
            f"top_n is {self.top_n!r}, expected a whole number from 1 to 1000",
        )
        _check(
            math.isfinite(self.every_mm) and self.every_mm >= 0,
            f"every_mm is {self.every_mm!r}, expected 0 or more (mm)",
        )
        _check(
            self.search_mode in get_args(SearchMode),
            f"search_mode is {self.search_mode!r}, expected one of "
            f"{', '.join(get_args(SearchMode))}",
        )
