"""The definition of the int8 codes, in plain numpy; kernels give the same integers.

A row x is kept as ``scale * code`` with integers in [-127, 127] and a rest r. For any query q
with ``p = q . x`` the rest adds ``q . r``: its part along x is ``p (x . r) / |x|^2``, known when
the row is encoded; what is left is at most ``|r across x| * |q across x|``. Hence
``p = estimate / (1 - share) +- error * |q across x|``, and the factor goes into the scale.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from native_hash.code_layout import BLOCK_ROWS, padded_dimension

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]


def encode_rows(
    vectors: Float32, rows: Int32, codes: Int8, scales: Float32, errors: Float32
) -> None:
    """Encode rows in the order of their places.

    Parameters
    ----------
    vectors : ndarray
        float32 ``(n, d)``.
    rows : ndarray
        int32 ``(n_blocks * BLOCK_ROWS,)``: row at each place, -1 for padding.
    codes : ndarray
        Output, int8 ``(n_blocks, padded d / 2, BLOCK_ROWS, 2)``: pairs of dimensions of the rows
        of a block side by side.
    scales, errors : ndarray
        Output, float32 ``(n_blocks * BLOCK_ROWS,)``; padding has scale 0 and error -inf.
    """
    d = vectors.shape[1]
    wide = vectors[np.maximum(rows, 0)].astype(np.float64)
    scale = (np.abs(vectors[np.maximum(rows, 0)]).max(axis=1) / np.float32(127)).astype(np.float32)
    step = np.where(scale > 0, scale, 1).astype(np.float64)[:, np.newaxis]
    integers = np.clip(np.rint(wide / step), -127, 127)
    integers[scale == 0] = 0
    rest = wide - integers * scale.astype(np.float64)[:, np.newaxis]
    norm, along = (wide * wide).sum(axis=1), (wide * rest).sum(axis=1)
    share = np.where(scale > 0, along / np.where(norm > 0, norm, 1), 0)
    across = np.maximum((rest * rest).sum(axis=1) - share * along, 0)
    is_padding = rows < 0
    integers[is_padding] = 0
    padded = np.zeros((rows.size, padded_dimension(d)), np.int8)
    padded[:, :d] = integers
    codes[...] = padded.reshape(-1, BLOCK_ROWS, padded.shape[1] // 2, 2).transpose(0, 2, 1, 3)
    scales[...] = np.where(is_padding, 0, scale / (1 - share))
    errors[...] = np.where(is_padding, -np.inf, (np.sqrt(across) / (1 - share) + 1e-9) * (1 + 1e-6))


def encode_query(query: Float32, limit: int) -> tuple[Int16, np.float32, np.float32]:
    """Codes int16 ``(padded d,)`` of a query ``(d,)``, their scale, and the norm of the rest."""
    scale = np.float32(np.abs(query).max() / np.float32(limit))
    codes = np.zeros(padded_dimension(query.size), np.int16)
    if scale > 0:
        integers = np.rint(query.astype(np.float64) / np.float64(scale))
        codes[: query.size] = np.clip(integers, -limit, limit)
    rest = query.astype(np.float64) - codes[: query.size] * np.float64(scale)
    return codes, scale, np.float32(np.sqrt((rest * rest).sum()))


def block_estimates(
    codes: Int8, block: int, query_codes: Int16, scales: Float32, query_scale: np.float32
) -> Float32:
    """Estimated scores of the rows of one block, float32 ``(BLOCK_ROWS,)``."""
    pairs = query_codes.astype(np.int64).reshape(-1, 1, 2)
    dots = (codes[block].astype(np.int64) * pairs).sum(axis=(0, 2)).astype(np.int32)
    scale = scales[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS] * query_scale
    estimates: Float32 = dots.astype(np.float32) * scale
    return estimates
