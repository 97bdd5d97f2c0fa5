"""Pixels of one slice in Hounsfield units.

Steps: stored values -> padding found -> unused bits removed -> HU = stored * slope + intercept
(PS3.3 C.11.1.1.2) -> padding set to -1024 HU -> constant frame cropped -> plausibility checked ->
values below -1024 HU clipped to -1024.

Padding
    PixelPaddingValue to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2), compared over all
    allocated bits, because scanners write -2000 or 63536 there whatever BitsStored says. A padding
    value that maps into tissue (-200 to 3071 HU) is believed only where it also fills
    the four corners: some exports declare 0 although 0 HU is water.
Constant frame
    Export tools put the CT into a larger picture of one value. The rows and columns around
    the image that hold only the value of all four corners are cut off if that is at least a
    twentieth of the area; where the frame is air (at most -900 HU) 8 pixels of it stay. The
    pixel spacing is unaffected. Fewer than 64 pixels a side left: ``constant-image``.
Plausibility
    Of the pixels that are not padding, at least 99 % must lie within 16,000 HU of zero (metal on
    an extended scale is less), and at least 0.5 % each must be darker than -150 HU (air, lung,
    fat) and brighter than -300 HU (tissue). A windowed 8-bit picture, or one without its
    rescale, fails here with its numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ildsdk.dicom import codecs, reasons
from ildsdk.dicom.source import open_origin
from ildsdk.dicom.study import PixelLayout, SliceHeader
from ildsdk.errors import BrokenDecoderError, IldError, InputError, SliceUnusableError
from ildsdk.records import CtSlice

AIR_HU: Final = -1024.0
FRAME_AIR_HU: Final = -900.0
FRAME_MARGIN_PIXELS: Final = 8
MIN_FRAME_SHARE: Final = 0.05
MIN_SIDE_PIXELS: Final = 64
TISSUE_HU: Final = (-200.0, 3071.0)
MAX_PLAUSIBLE_HU: Final = 16_000.0
MIN_PLAUSIBLE_SHARE: Final = 0.99
MIN_SHARE: Final = 0.005
DARK_BELOW_HU: Final = -150.0
BRIGHT_ABOVE_HU: Final = -300.0


def read_slice(header: SliceHeader) -> CtSlice:
    """Decode one slice to Hounsfield units.

    Parameters
    ----------
    header : SliceHeader
        From :func:`ildsdk.dicom.discover`; the file must not have changed since.

    Returns
    -------
    CtSlice
        ``pixels_hu`` float32 ``(n_rows, n_columns)``, C-contiguous, finite, at least -1024; smaller
        than the header's rows and columns where a constant frame was cropped.

    Raises
    ------
    DecodeError
        No decoder, truncated or damaged pixels; names the transfer syntax and the remedy.
    BrokenDecoderError
        A decoder is installed and cannot be imported.
    SliceUnusableError
        The values are constant or cannot be Hounsfield units.
    InputError
        The file is gone, changed, or cannot be read.
    """
    pixels_hu = to_hounsfield(read_stored(header), header.layout, header.source)
    return CtSlice(
        pixels_hu=pixels_hu,
        pixel_spacing_mm=header.pixel_spacing_mm,
        position_mm=header.position_mm,
        source=header.source,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        frame=header.frame,
    )


def read_stored(header: SliceHeader) -> codecs.StoredValues:
    """Stored values of one slice over all allocated bits, integers ``(n_rows, n_columns)``.

    Raises
    ------
    InputError
        As :func:`read_slice`.
    """
    with open_origin(header.origin, header.source) as stream:
        try:
            return codecs.read_stored_values(
                stream,
                header.origin.size,
                header.layout,
                header.transfer_syntax_uid,
                header.source,
            )
        except IldError:
            raise
        except ImportError as error:
            raise BrokenDecoderError(
                f"{header.source}: a module that reads pixels cannot be imported ({error.name}), "
                "so they were not looked at: the installation is at fault; ildsdk doctor checks it"
            ) from None
        except Exception as error:
            # A broken archive member or medium; the text may hold the full path.
            raise InputError(
                f"{header.source}: pixels cannot be read ({type(error).__name__})"
            ) from None


def to_hounsfield(
    stored: codecs.StoredValues, layout: PixelLayout, source: str
) -> npt.NDArray[np.float32]:
    """Apply padding, rescale, crop, plausibility and clipping (see the module's text).

    Parameters
    ----------
    stored : ndarray
        integers ``(n_rows, n_columns)``, over all allocated bits.

    Returns
    -------
    ndarray
        float32, C-contiguous, at least -1024 HU.

    Raises
    ------
    SliceUnusableError
        ``constant-image`` or ``hu-implausible``.
    """
    pixels_hu = _plain(stored, layout)
    return _by_steps(stored, layout, source) if pixels_hu is None else pixels_hu


def _plain(stored: codecs.StoredValues, layout: PixelLayout) -> npt.NDArray[np.float32] | None:
    """HU of a slice that :func:`_by_steps` would neither crop nor refuse, for certain; or None."""
    pixels_hu, facts = rescaled(
        stored, used_bits(stored, layout), layout.slope, layout.intercept,
        _believed_padding(stored, layout),
    )  # fmt: skip
    n_padding, n_dark, n_bright, lowest, highest = facts
    n = pixels_hu.size - n_padding
    largest_stored = max(abs(lowest), abs(highest))
    is_plausible = (
        n > 0
        and min(n_dark, n_bright) / n >= MIN_SHARE
        and n_dark + n_bright < 2 * n  # a constant image between the two limits is both
        and largest_stored * abs(layout.slope) + abs(layout.intercept) <= MAX_PLAUSIBLE_HU
    )
    return pixels_hu if is_plausible and not _may_be_framed(pixels_hu) else None


def rescaled(
    stored: codecs.StoredValues,
    values: codecs.StoredValues,
    slope: float,
    intercept: float,
    padding: tuple[int, int] | None,
) -> tuple[npt.NDArray[np.float32], tuple[int, int, int, int, int]]:
    """Run :func:`ildsdk.dicom.kernels.rescale`.

    Parameters
    ----------
    stored, values : ndarray
        int32 or int64 ``(n_rows, n_columns)``: with all bits, and with the used ones.
    padding : tuple of int or None
        Lowest and highest stored value that is padding.

    Returns
    -------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, at least -1024.
    facts : tuple of int
        As the kernel gives them.
    """
    from ildsdk.dicom.kernels import rescale  # numba is not started to find a study

    as_stored, limits = stored.dtype.type, np.iinfo(stored.dtype)
    first, last = padding or (1, 0)
    pixels_hu = np.empty(stored.shape, np.float32)
    facts = rescale(
        np.ascontiguousarray(stored), np.ascontiguousarray(values), np.float32(slope),
        np.float32(intercept), as_stored(first), as_stored(last), as_stored(limits.min),
        as_stored(limits.max), np.float32(AIR_HU), np.float32(DARK_BELOW_HU),
        np.float32(BRIGHT_ABOVE_HU), pixels_hu,
    )  # fmt: skip
    return pixels_hu, facts


def _may_be_framed(pixels_hu: npt.NDArray[np.float32]) -> bool:
    """False where :func:`_frame_window` would give the whole picture, for certain.

    The four lines looked at leave less than ``MIN_FRAME_SHARE`` outside: where each shows more,
    too little could be cropped.
    """
    corners = pixels_hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if not (corners == corners[0]).all():
        return False
    row, column = (int(MIN_FRAME_SHARE / 4 * n) for n in pixels_hu.shape)
    lines = (
        pixels_hu[row],
        pixels_hu[-1 - row],
        pixels_hu[:, column],
        pixels_hu[:, -1 - column],
    )
    return any(bool((line == corners[0]).all()) for line in lines)


def _by_steps(
    stored: codecs.StoredValues, layout: PixelLayout, source: str
) -> npt.NDArray[np.float32]:
    """What :func:`to_hounsfield` gives or raises, in the steps of the module's text."""
    pixels_hu = used_bits(stored, layout).astype(np.float32)
    pixels_hu *= np.float32(layout.slope)
    pixels_hu += np.float32(layout.intercept)
    is_padding = _padding_mask(stored, layout)
    pixels_hu[is_padding] = AIR_HU
    window = _frame_window(pixels_hu, source)
    pixels_hu, is_padding = pixels_hu[window], is_padding[window]
    _check_plausible(pixels_hu[~is_padding], source)
    return np.ascontiguousarray(np.maximum(pixels_hu, np.float32(AIR_HU)))


def checked_pixels_hu(pixels_hu: npt.NDArray[np.float32], source: str) -> npt.NDArray[np.float32]:
    """Apply the rules for pixels in HU that need no header: frame, plausibility, air.

    Parameters
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, finite.
    source : str
        Label for messages.

    Raises
    ------
    SliceUnusableError
        Constant, or not the Hounsfield units of a chest CT.
    """
    pixels_hu = pixels_hu[_frame_window(pixels_hu, source)]
    _check_plausible(pixels_hu, source)
    return np.ascontiguousarray(np.maximum(pixels_hu, np.float32(AIR_HU)))


def used_bits(stored: codecs.StoredValues, layout: PixelLayout) -> codecs.StoredValues:
    """Drop bits beyond BitsStored below HighBit (overlays) and extend the sign."""
    shift = layout.high_bit + 1 - layout.bits_stored
    if shift == 0 and layout.bits_stored == layout.bits_allocated:
        return stored
    values = (stored >> shift) & ((1 << layout.bits_stored) - 1)
    if layout.is_signed:
        sign = 1 << (layout.bits_stored - 1)
        values = (values ^ sign) - sign
    return values


def _padding_mask(stored: codecs.StoredValues, layout: PixelLayout) -> npt.NDArray[np.bool_]:
    padding = _believed_padding(stored, layout)
    if padding is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    return (stored >= padding[0]) & (stored <= padding[1])


def _believed_padding(stored: codecs.StoredValues, layout: PixelLayout) -> tuple[int, int] | None:
    """Range of stored values that are padding; None where none is declared, or it is tissue."""
    if layout.padding is None:
        return None
    low, high = layout.padding
    # Over all allocated bits: cut to the used ones, 63536 would look like bone.
    ends = (low * layout.slope + layout.intercept, high * layout.slope + layout.intercept)
    maps_into_tissue = max(ends) >= TISSUE_HU[0] and min(ends) <= TISSUE_HU[1]
    corners = stored[[0, 0, -1, -1], [0, -1, 0, -1]]
    if maps_into_tissue and not ((corners >= low) & (corners <= high)).all():
        return None
    return low, high


def _frame_window(pixels_hu: npt.NDArray[np.float32], source: str) -> tuple[slice, slice]:
    n_rows, n_columns = pixels_hu.shape
    corners = pixels_hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    value = corners[0]
    whole = (slice(0, n_rows), slice(0, n_columns))
    if not (corners == value).all():
        return whole
    is_image = pixels_hu != value
    rows, columns = np.flatnonzero(is_image.any(axis=1)), np.flatnonzero(is_image.any(axis=0))
    if rows.size == 0:
        raise SliceUnusableError(
            reasons.CONSTANT_IMAGE, f"{source}: every pixel has {float(value):g} HU"
        )
    margin = FRAME_MARGIN_PIXELS if value <= FRAME_AIR_HU else 0
    top, bottom = max(0, int(rows[0]) - margin), min(n_rows, int(rows[-1]) + 1 + margin)
    left, right = max(0, int(columns[0]) - margin), min(n_columns, int(columns[-1]) + 1 + margin)
    if 1 - (bottom - top) * (right - left) / (n_rows * n_columns) < MIN_FRAME_SHARE:
        return whole
    if min(bottom - top, right - left) < MIN_SIDE_PIXELS:
        raise SliceUnusableError(
            reasons.CONSTANT_IMAGE,
            f"{source}: {bottom - top} x {right - left} of {n_rows} x {n_columns} pixels are left "
            f"inside a frame of {float(value):g} HU, at least {MIN_SIDE_PIXELS} a side expected",
        )
    return slice(top, bottom), slice(left, right)


def _check_plausible(pixels_hu: npt.NDArray[np.float32], source: str) -> None:
    if pixels_hu.size == 0:
        raise SliceUnusableError(reasons.CONSTANT_IMAGE, f"{source}: every pixel is padding")
    darkest, brightest = float(pixels_hu.min()), float(pixels_hu.max())
    found = f"{source}: values run from {darkest:g} to {brightest:g} HU"
    if darkest == brightest:
        raise SliceUnusableError(reasons.CONSTANT_IMAGE, found)
    in_range = 1.0
    if max(-darkest, brightest) > MAX_PLAUSIBLE_HU:
        in_range = np.count_nonzero(np.abs(pixels_hu) <= MAX_PLAUSIBLE_HU) / pixels_hu.size
    if in_range < MIN_PLAUSIBLE_SHARE:
        raise SliceUnusableError(
            reasons.HU_IMPLAUSIBLE,
            f"{found}, {100 * (1 - in_range):.1f} % beyond {MAX_PLAUSIBLE_HU:g} HU: the rescale is "
            "wrong or padding is not declared",
        )
    dark = np.count_nonzero(pixels_hu < DARK_BELOW_HU) / pixels_hu.size
    bright = np.count_nonzero(pixels_hu > BRIGHT_ABOVE_HU) / pixels_hu.size
    if min(dark, bright) < MIN_SHARE:
        raise SliceUnusableError(
            reasons.HU_IMPLAUSIBLE,
            f"{found}, {100 * dark:.1f} % below {DARK_BELOW_HU:g} HU and {100 * bright:.1f} % "
            f"above {BRIGHT_ABOVE_HU:g} HU; at least {100 * MIN_SHARE:g} % each expected of a "
            "chest CT: the picture is windowed or its rescale is missing",
        )
