"""The public face of the radiomics stage: pixels and mask in, 102 named features out."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, SliceUnusableError
from ildsdk.radiomics.names import FEATURE_NAMES, N_FEATURES
from ildsdk.radiomics.settings import RadiomicsSettings

if TYPE_CHECKING:
    from ildsdk.radiomics.reference import PyradiomicsEngine
    from ildsdk.radiomics.scratch import RadiomicsScratch

Engine = Literal["fast", "pyradiomics"]


@dataclasses.dataclass(frozen=True, slots=True)
class RadiomicsResult:
    """Features of one region.

    Attributes
    ----------
    values : ndarray
        float64 ``(102,)``, NaN where a feature has no value.
    names : tuple of str
        Names of the values, pyradiomics' own, in order.
    is_valid : ndarray
        bool ``(102,)``: the value is a finite number.
    reasons : dict
        Name of each feature without value -> stable reason code.
    """

    values: npt.NDArray[np.float64]
    names: tuple[str, ...]
    is_valid: npt.NDArray[np.bool_]
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, float | None]:
        """Feature name -> value, None where there is none."""
        return {
            name: float(value) if valid else None
            for name, value, valid in zip(self.names, self.values, self.is_valid, strict=True)
        }


class RadiomicsExtractor:
    """All 102 features of 2D slices; safe to share between threads.

    Parameters
    ----------
    settings : RadiomicsSettings, optional
        What changes a value; pyradiomics' defaults.
    engine : {"fast", "pyradiomics"}
        ``"fast"`` computes here; ``"pyradiomics"`` asks the reference package. Same
        names, order and values (docs/radiomics.md tells within what).

    Raises
    ------
    ConfigError
        The engine is unknown, or pyradiomics is asked for and not installed.
    """

    def __init__(self, settings: RadiomicsSettings | None = None, engine: Engine = "fast") -> None:
        self.settings = settings if settings is not None else RadiomicsSettings()
        self.engine: Engine = engine
        self._local = threading.local()
        self._reference: PyradiomicsEngine | None = None
        if engine == "pyradiomics":
            from ildsdk.radiomics.reference import PyradiomicsEngine

            self._reference = PyradiomicsEngine(self.settings)
        elif engine != "fast":
            raise ConfigError(
                f"engine is {engine!r}, expected one of {', '.join(get_args(Engine))}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values, in order."""
        return FEATURE_NAMES

    def extract(
        self,
        pixels_hu: npt.NDArray[np.generic],
        lung_mask: npt.NDArray[np.bool_],
        pixel_spacing_mm: tuple[float, float],
        *,
        strict: bool = True,
        scratch: RadiomicsScratch | None = None,
        n_threads: int = 1,
    ) -> RadiomicsResult:
        """Features of the pixels inside the mask.

        Parameters
        ----------
        pixels_hu : ndarray
            Real numbers ``(n_rows, n_columns)``, Hounsfield units; not the windowed picture.
        lung_mask : ndarray
            bool, same shape, True inside the region.
        pixel_spacing_mm : tuple of float
            ``(row_spacing, column_spacing)``.
        strict : bool
            True: a region without all 102 values raises. False: it is told in the result.
        scratch : RadiomicsScratch, optional
            Working memory of the fast engine, for callers that want to own it (one per
            thread). Without, each thread keeps one in this extractor: about 90 bytes per
            pixel of the largest region.
        n_threads : int
            2 or more: the fast engine uses a second thread while this call lasts. For a caller
            whose thread budget has one to spare and who waits for this slice. Same values.

        Raises
        ------
        SliceUnusableError
            Strict only: the region has no complete feature vector. Reasons: ``roi-empty``,
            ``roi-too-small``, ``roi-degenerate``, ``roi-not-finite``, ``image-not-finite``,
            ``image-constant``, ``roi-too-many-levels``, ``feature-undefined``,
            ``engine-refused``.
        TypeError, ValueError
            Arrays or spacing of the wrong kind.
        """
        from ildsdk.radiomics.region import check_arguments

        check_arguments(pixels_hu, lung_mask, pixel_spacing_mm)
        try:
            values = self._compute(pixels_hu, lung_mask, pixel_spacing_mm, scratch, n_threads)
        except SliceUnusableError as error:
            if strict:
                raise
            return _result(np.full(N_FEATURES, np.nan), error.reason)
        result = _result(values, "feature-undefined")
        if strict and result.reasons:
            missing = list(result.reasons)
            raise SliceUnusableError(
                "feature-undefined",
                f"{len(missing)} of {N_FEATURES} features have no value for this region "
                f"(first: {missing[0]}), expected none without",
            )
        return result

    def _compute(
        self,
        pixels_hu: npt.NDArray[np.generic],
        lung_mask: npt.NDArray[np.bool_],
        pixel_spacing_mm: tuple[float, float],
        scratch: RadiomicsScratch | None,
        n_threads: int,
    ) -> npt.NDArray[np.float64]:
        from ildsdk.radiomics.region import find_region

        scratch = scratch or self._own_scratch()
        region = find_region(pixels_hu, lung_mask, pixel_spacing_mm, self.settings, scratch)
        if self._reference is not None:
            return self._reference.compute(pixels_hu, lung_mask, pixel_spacing_mm)
        from ildsdk.radiomics.fast import fast_features

        return fast_features(region, self.settings, scratch, n_threads)

    def _own_scratch(self) -> RadiomicsScratch:
        """Give each thread a scratch of its own: sharing one would give wrong values."""
        from ildsdk.radiomics.scratch import RadiomicsScratch

        if not hasattr(self._local, "scratch"):
            self._local.scratch = RadiomicsScratch()
        found: RadiomicsScratch = self._local.scratch
        return found

    def __reduce__(self) -> tuple[type[RadiomicsExtractor], tuple[RadiomicsSettings, Engine]]:
        """Travel to another process as settings and engine; scratch stays behind."""
        return RadiomicsExtractor, (self.settings, self.engine)


def _result(values: npt.NDArray[np.float64], reason: str) -> RadiomicsResult:
    is_valid = np.isfinite(values)
    reasons = {}
    if not is_valid.all():
        reasons = {FEATURE_NAMES[i]: reason for i in np.flatnonzero(~is_valid)}
    return RadiomicsResult(values, FEATURE_NAMES, is_valid, reasons)
