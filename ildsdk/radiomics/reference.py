"""The reference engine: pyradiomics itself (extra ``[pyradiomics]``).

Slow, and the judge: the fast engine is tested against it feature by feature.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, SliceUnusableError
from ildsdk.radiomics.names import FEATURE_CLASSES, FEATURE_NAMES
from ildsdk.radiomics.settings import RadiomicsSettings

_MISSING = (
    "engine 'pyradiomics' needs the package pyradiomics, which is not installed. "
    "Install it with: pip install 'ildsdk[pyradiomics]' - or use engine 'fast', "
    "which gives the same values and needs nothing more"
)


class _QuietHere(logging.Filter):
    """Drop pyradiomics' log records while this thread computes, and only then."""

    def __init__(self) -> None:
        super().__init__()
        self._state = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self._state, "is_active", False)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        self._state.is_active = True
        try:
            yield
        finally:
            self._state.is_active = False


_QUIET = _QuietHere()
# warnings filters are process-wide in Python: one reference computation at a time
_LOCK = threading.Lock()


def _load() -> tuple[Any, Any]:
    """Import SimpleITK and pyradiomics' extractor module, with its loggers filtered."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import SimpleITK
            from radiomics import featureextractor
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    # A filter of a parent logger does not see its children's records: one for each module.
    for name in list(sys.modules):
        if name == "radiomics" or name.startswith("radiomics."):
            logging.getLogger(name).addFilter(_QUIET)
    return SimpleITK, featureextractor


class PyradiomicsEngine:
    """All features of one region by pyradiomics.

    Raises
    ------
    ConfigError
        pyradiomics is not installed.
    """

    def __init__(self, settings: RadiomicsSettings) -> None:
        self._sitk, module = _load()
        with _QUIET.active():
            self._extractor = module.RadiomicsFeatureExtractor(**settings.to_pyradiomics())
            self._extractor.disableAllFeatures()
            for feature_class in FEATURE_CLASSES:
                self._extractor.enableFeatureClassByName(feature_class)

    def compute(
        self,
        pixels: npt.NDArray[np.generic],
        mask: npt.NDArray[np.bool_],
        pixel_spacing_mm: tuple[float, float],
    ) -> npt.NDArray[np.float64]:
        """float64 ``(102,)`` in the order of ``FEATURE_NAMES``, NaN where pyradiomics has none.

        The slice goes in as a two-dimensional image, so that pyradiomics takes no
        neighbors across slices.

        Raises
        ------
        SliceUnusableError
            ``engine-refused``: pyradiomics gives no features at all for this region.
        """
        row_spacing, column_spacing = pixel_spacing_mm
        image = self._sitk.GetImageFromArray(pixels)
        labels = self._sitk.GetImageFromArray(mask.astype(np.uint8))
        for item in (image, labels):
            item.SetSpacing((float(column_spacing), float(row_spacing)))
        with _LOCK, _QUIET.active(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                found = self._extractor.execute(image, labels)
            except Exception as error:
                # pyradiomics raises ValueError, IndexError and LinAlgError alike here
                raise SliceUnusableError(
                    "engine-refused", f"pyradiomics fails on this region: {error}"
                ) from error
        values = np.full(len(FEATURE_NAMES), np.nan)
        for position, name in enumerate(FEATURE_NAMES):
            if name in found and np.size(found[name]) == 1:
                values[position] = float(np.real(found[name]))
        return values
