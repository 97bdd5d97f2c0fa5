"""Pictures as data URIs, so that the page needs no second file."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

from ildsdk.reports.palette import OUTLINE_RGB
from ildsdk.reports.thumbnail import encode_grey

MAX_SIDE = 320
"""Query pictures are reduced to this many pixels: 30 slices stay under 1 MB."""


def image_data_uri(encoded: bytes) -> str | None:
    """Data URI of a PNG, JPEG or WebP file by its first bytes; None for anything else."""
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif encoded.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    elif encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        kind = "webp"
    else:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def picture_data_uri(windowed: npt.NDArray[np.uint8]) -> str:
    """WebP data URI of a uint8 ``(h, w)`` picture, reduced to :data:`MAX_SIDE`."""
    from PIL import Image

    picture = Image.fromarray(windowed)
    target = _reduced(windowed.shape[0], windowed.shape[1])
    if target != picture.size:
        picture = picture.resize(target, Image.Resampling.HAMMING)
    return image_data_uri(encode_grey(np.asarray(picture))) or ""


def outline_data_uri(outline: npt.NDArray[np.bool_]) -> str:
    """PNG data URI of a colored outline on nothing, from a bool ``(h, w)`` array."""
    from PIL import Image

    alpha = Image.fromarray(np.where(outline, np.uint8(255), np.uint8(0)))
    target = _reduced(outline.shape[0], outline.shape[1])
    if target != alpha.size:
        # A thin line fades when reduced: double its weight, the cap at 255 keeps it a line.
        alpha = alpha.resize(target, Image.Resampling.BOX).point(lambda level: min(255, level * 2))
    line = Image.new("RGBA", alpha.size, (*OUTLINE_RGB, 0))
    line.putalpha(alpha)
    stream = io.BytesIO()
    line.save(stream, format="PNG", optimize=True)
    return image_data_uri(stream.getvalue()) or ""


def _reduced(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))
