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
    # In place: another array of this size costs more than the arithmetic.
    pixels_hu = used_bits(stored, layout).astype(np.float32)
    pixels_hu *= np.float32(layout.slope)
    pixels_hu += np.float32(layout.intercept)
    is_padding = _padding_mask(stored, layout)
    if is_padding is not None:
        np.copyto(pixels_hu, np.float32(AIR_HU), where=is_padding)
    window = _frame_window(pixels_hu, source)
    pixels_hu = np.ascontiguousarray(pixels_hu[window])
    _check_plausible(pixels_hu, None if is_padding is None else is_padding[window], source)
    if pixels_hu.min() < AIR_HU:
        np.maximum(pixels_hu, np.float32(AIR_HU), out=pixels_hu)
    return pixels_hu


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
    _check_plausible(pixels_hu, None, source)
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


def _padding_mask(stored: codecs.StoredValues, layout: PixelLayout) -> npt.NDArray[np.bool_] | None:
    """Where padding stands; None where there is none."""
    if layout.padding is None:
        return None
    low, high = layout.padding
    mask = stored == low if low == high else (stored >= low) & (stored <= high)
    if not mask.any():
        return None
    # Over all allocated bits: cut to the used ones, 63536 would look like bone.
    ends = (low * layout.slope + layout.intercept, high * layout.slope + layout.intercept)
    darkest, brightest = min(ends), max(ends)
    maps_into_tissue = brightest >= TISSUE_HU[0] and darkest <= TISSUE_HU[1]
    if maps_into_tissue and not mask[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        return None
    return mask


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


def _check_plausible(
    pixels_hu: npt.NDArray[np.float32], is_padding: npt.NDArray[np.bool_] | None, source: str
) -> None:
    """Refuse what cannot be a chest CT; padding stands in the pixels as air and does not count."""
    if _is_plain(pixels_hu, is_padding):
        return
    if is_padding is not None:
        pixels_hu = pixels_hu[~is_padding]
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


def _is_plain(pixels_hu: npt.NDArray[np.float32], is_padding: npt.NDArray[np.bool_] | None) -> bool:
    """Whether the checks hold for certain, without gathering the pixels that count."""
    n_padding = 0 if is_padding is None else int(np.count_nonzero(is_padding))
    n = pixels_hu.size - n_padding
    dark = int(np.count_nonzero(pixels_hu < DARK_BELOW_HU)) - n_padding
    bright = int(np.count_nonzero(pixels_hu > BRIGHT_ABOVE_HU))
    return (
        n > 0
        and min(dark, bright) / n >= MIN_SHARE
        and dark + bright < 2 * n  # a constant image between the two limits is both
        and max(-float(pixels_hu.min()), float(pixels_hu.max())) <= MAX_PLAUSIBLE_HU
    )
