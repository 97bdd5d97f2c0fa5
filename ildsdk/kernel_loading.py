"""The kernels of a slice, loaded on a thread while networks and index are opened.

Starting numba and loading compiled code takes Python's lock, checking files and creating
sessions does not: side by side they take little more than the longer of the two.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.settings import MethodSettings, RadiomicsEngine

_CHEST_MM = 360.0
_SMALL = 96


@contextlib.contextmanager
def loading_kernels(radiomics_engine: RadiomicsEngine) -> Iterator[None]:
    """Load what mask and radiomics of a slice run, beside the work of the ``with`` block.

    At the end of the block they are loaded, or compiled where they are not cached. What goes wrong
    with them is met again, and told, where they are used.

    Parameters
    ----------
    radiomics_engine : {"fast", "pyradiomics"}
        The one that will be used; pyradiomics itself is not loaded here.
    """
    thread = threading.Thread(
        target=_load, args=(radiomics_engine,), name="ildsdk-kernels", daemon=False
    )
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _load(radiomics_engine: RadiomicsEngine) -> None:
    with contextlib.suppress(Exception):
        run_slice_kernels(_SMALL, np.float32, with_radiomics=radiomics_engine == "fast")


def run_slice_kernels(n_pixels: int, dtype: npt.DTypeLike, *, with_radiomics: bool = True) -> None:
    """Run rescaling, mask, radiomics and model input on a made-up slice.

    Parameters
    ----------
    n_pixels : int
        Side of the slice; the chest in it is life-size.
    dtype : dtype
        Of the pixels in HU: each has kernels of its own.
    """
    from ildsdk.dicom.pixels import rescaled
    from ildsdk.lung import segment_lung
    from ildsdk.model_input import model_input
    from ildsdk.radiomics import RadiomicsExtractor

    pixel_spacing_mm = (_CHEST_MM / n_pixels, _CHEST_MM / n_pixels)
    pixels: npt.NDArray[Any] = _chest(n_pixels).astype(dtype)
    stored = pixels.astype(np.int32)
    rescaled(stored, stored, 1.0, 0.0, None)
    lung = segment_lung(pixels, pixel_spacing_mm)
    model_input(pixels, pixel_spacing_mm, lung.lung_mask, MethodSettings(input_size=64))
    if with_radiomics:
        RadiomicsExtractor().extract(pixels, lung.lung_mask, pixel_spacing_mm)


def _chest(n_pixels: int) -> npt.NDArray[np.float64]:
    """A body with two lungs and ribs, in HU, so plain that only a kernel takes it for one."""
    y, x = (np.mgrid[:n_pixels, :n_pixels] - n_pixels / 2) * (_CHEST_MM / n_pixels)
    pixels_hu = np.full(y.shape, -1000.0)
    pixels_hu[(x / 165) ** 2 + (y / 115) ** 2 < 1] = 40
    cage = (x / 150) ** 2 + (y / 100) ** 2
    pixels_hu[(cage < 1) & (cage > 0.9) & (np.sin(12 * np.arctan2(y, x)) > 0)] = 500
    for middle_mm in (-75, 75):
        pixels_hu[((x - middle_mm) / 55) ** 2 + (y / 78) ** 2 < 1] = -850
    # Texture by arithmetic: numpy.random is not worth loading for it.
    textured: npt.NDArray[np.float64] = pixels_hu + 30 * np.sin(12.9898 * x + 78.233 * y)
    return textured
