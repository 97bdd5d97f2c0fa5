"""Small lung-window pictures: thumbnails for the index, query pictures for the report.

Both share one rule: the whole slice, resampled to square pixels, longer side ``size``
pixels. They are for looking only; no number is ever computed from them.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from ildsdk.records import SlicePictures

WEBP_QUALITY = 90
"""Chosen on 30 real chest CT slices at 160 px: WebP 90 is 5.3 KB at 43.0 dB PSNR; JPEG 90 is
7.1 KB at 40.7 dB, lossless PNG 13.6 KB. Effort 4 takes half the time of 6 for 6 % more bytes."""


def encode_thumbnail(
    windowed: npt.NDArray[np.float32],
    pixel_spacing_mm: tuple[float, float],
    size: int = 160,
) -> bytes:
    """Encode one windowed slice as a small grey picture.

    Parameters
    ----------
    windowed : ndarray
        float32 ``(n_rows, n_columns)``, lung window, values in [0, 1].
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)`` as in DICOM PixelSpacing, mm.
    size : int
        Longer side of the picture in pixels, 16 to 1024.

    Returns
    -------
    bytes
        A WebP file. The same input gives the same bytes with the same libwebp.

    Raises
    ------
    ValueError
        The array is not 2-D, is empty, or holds NaN; the spacing is not positive; or ``size`` is
        out of range.
    """
    return encode_grey(_to_grey(_resample(windowed, pixel_spacing_mm, size)))


def render_slice_pictures(
    pixels_hu: npt.NDArray[np.float32],
    lung_mask: npt.NDArray[np.bool_],
    pixel_spacing_mm: tuple[float, float],
    window_center_hu: float,
    window_width_hu: float,
    size: int = 320,
) -> SlicePictures:
    """Draw a query slice and the outline of its lung mask on one square-pixel grid.

    Parameters
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, HU.
    lung_mask : ndarray
        bool ``(n_rows, n_columns)``.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``, mm.
    window_center_hu, window_width_hu : float
        The bundle's lung window in HU.
    size : int
        Longer side in pixels, 16 to 1024.

    Returns
    -------
    SlicePictures
        uint8 picture and bool outline, both ``(h, w)`` with ``max(h, w) == size``.

    Raises
    ------
    ValueError
        Shapes disagree, or anything :func:`encode_thumbnail` refuses.
    """
    from ildsdk.lung import apply_lung_window

    if lung_mask.shape != pixels_hu.shape:
        raise ValueError(
            f"lung_mask is {lung_mask.shape}, pixels_hu is {pixels_hu.shape}: expected one shape"
        )
    windowed = apply_lung_window(pixels_hu, window_center_hu, window_width_hu)
    inside = _resample(lung_mask.astype(np.float32), pixel_spacing_mm, size) >= 0.5
    return SlicePictures(
        windowed=_to_grey(_resample(windowed, pixel_spacing_mm, size)),
        outline=inner_border(inside),
    )


def inner_border(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of a mask with a 4-neighbor outside it (the picture's edge counts as outside).

    Parameters
    ----------
    inside : ndarray
        bool ``(h, w)``.

    Returns
    -------
    ndarray
        bool ``(h, w)``, a subset of ``inside``.
    """
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core


def encode_grey(grey: npt.NDArray[np.uint8]) -> bytes:
    """WebP bytes of a uint8 ``(h, w)`` picture (quality :data:`WEBP_QUALITY`)."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, format="WEBP", quality=WEBP_QUALITY, method=4)
    return stream.getvalue()


def _resample(
    values: npt.NDArray[np.float32], pixel_spacing_mm: tuple[float, float], size: int
) -> npt.NDArray[np.float32]:
    from PIL import Image

    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"picture has shape {values.shape}, expected (n_rows, n_columns)")
    if not np.isfinite(values).all():
        raise ValueError("picture holds NaN or infinite values, expected finite ones")
    if not all(np.isfinite(step) and step > 0 for step in pixel_spacing_mm):
        raise ValueError(f"pixel_spacing_mm is {pixel_spacing_mm}, expected two numbers > 0")
    if not 16 <= size <= 1024:
        raise ValueError(f"size is {size}, expected 16 to 1024 pixels")
    height_mm = values.shape[0] * pixel_spacing_mm[0]
    width_mm = values.shape[1] * pixel_spacing_mm[1]
    pixels_per_mm = size / max(height_mm, width_mm)
    height = max(1, round(height_mm * pixels_per_mm))
    width = max(1, round(width_mm * pixels_per_mm))
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    # HAMMING antialiases like a good cubic but has no negative lobes: no halo around the pleura.
    resized = picture.resize((width, height), Image.Resampling.HAMMING)
    return np.asarray(resized, dtype=np.float32)


def _to_grey(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    grey: npt.NDArray[np.uint8] = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return grey
