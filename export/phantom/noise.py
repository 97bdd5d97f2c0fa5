"""Random fields in space, defined by coordinates and a seed alone (numba).

A value depends on ``(x, y, z, seed)`` and on nothing else, so neighboring slices of one patient
fit together and no volume has to be kept. Fields are value noise summed over
octaves, and the cellular noise of Worley (1996), whose cell borders look like septa
and honeycomb walls.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
import numpy.typing as npt

_FAST = {"reassoc", "contract"}


@nb.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _hash(i, j, k, seed):  # type: ignore[no-untyped-def]
    value = np.uint32(seed) ^ (np.uint32(i) * np.uint32(0x8DA6B343))
    value ^= np.uint32(j) * np.uint32(0xD8163841)
    value ^= np.uint32(k) * np.uint32(0xCB1AB31F)
    value = np.uint32(value ^ (value >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    value = np.uint32(value ^ (value >> np.uint32(12))) * np.uint32(0x297A2D39)
    return np.uint32(value ^ (value >> np.uint32(15)))


@nb.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _unit(i, j, k, seed):  # type: ignore[no-untyped-def]
    return np.float32(_hash(i, j, k, seed) >> np.uint32(8)) * np.float32(1.0 / 16777216.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _value_noise(x, y, z, seed):  # type: ignore[no-untyped-def]
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = np.int32(i), np.int32(j), np.int32(k)
    low = (_unit(i, j, k, seed) * (1 - u) + _unit(i + 1, j, k, seed) * u) * (1 - v) + (
        _unit(i, j + 1, k, seed) * (1 - u) + _unit(i + 1, j + 1, k, seed) * u
    ) * v
    high = (_unit(i, j, k + 1, seed) * (1 - u) + _unit(i + 1, j, k + 1, seed) * u) * (1 - v) + (
        _unit(i, j + 1, k + 1, seed) * (1 - u) + _unit(i + 1, j + 1, k + 1, seed) * u
    ) * v
    return low * (1 - w) + high * w


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _fill_fractal(x, y, z, where, scale, n_octaves, seed, out):  # type: ignore[no-untyped-def]
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            if not where[row, column]:
                out[row, column] = np.float32(0)
                continue
            total = np.float32(0)
            weight = np.float32(1)
            frequency = np.float32(1) / scale
            norm = np.float32(0)
            for octave in range(n_octaves):
                sample = _value_noise(
                    x[row, column] * frequency + np.float32(17.3) * octave,
                    y[row, column] * frequency,
                    z * frequency,
                    seed + octave,
                )
                total += weight * (np.float32(2) * sample - np.float32(1))
                norm += weight * weight
                weight *= np.float32(0.5)
                frequency *= np.float32(2)
            # 2.6 / sqrt(sum of squared weights): about unit standard deviation.
            out[row, column] = total * np.float32(2.6) / np.float32(math.sqrt(norm))


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _fill_cells(x, y, z, where, scale, seed, nearest, border):  # type: ignore[no-untyped-def]
    inverse = np.float32(1) / scale
    zs = z * inverse
    k0 = np.int32(math.floor(zs))
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            if not where[row, column]:
                nearest[row, column] = np.float32(0)
                border[row, column] = scale
                continue
            xs, ys = x[row, column] * inverse, y[row, column] * inverse
            i0, j0 = np.int32(math.floor(xs)), np.int32(math.floor(ys))
            first = second = np.float32(1e9)
            for k in range(k0 - 1, k0 + 2):
                for j in range(j0 - 1, j0 + 2):
                    for i in range(i0 - 1, i0 + 2):
                        code = _hash(i, j, k, seed)
                        dx = i + np.float32(code & np.uint32(1023)) / np.float32(1024) - xs
                        dy = (
                            j
                            + np.float32((code >> np.uint32(10)) & np.uint32(1023))
                            / np.float32(1024)
                            - ys
                        )
                        dz = (
                            k
                            + np.float32((code >> np.uint32(20)) & np.uint32(1023))
                            / np.float32(1024)
                            - zs
                        )
                        squared = np.float32(dx * dx + dy * dy + dz * dz)
                        if squared < first:
                            second = first
                            first = squared
                        elif squared < second:
                            second = squared
            root = np.float32(math.sqrt(first))
            nearest[row, column] = root * scale
            # Half of F2 - F1 is close to the distance from the wall between two cells.
            border[row, column] = (np.float32(math.sqrt(second)) - root) * scale * np.float32(0.5)


def fractal_noise(
    x_mm: npt.NDArray[np.float32],
    y_mm: npt.NDArray[np.float32],
    z_mm: float,
    scale_mm: float,
    seed: int,
    *,
    n_octaves: int = 2,
    where: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Smooth random field with about zero mean and unit standard deviation.

    Parameters
    ----------
    x_mm, y_mm : ndarray
        float32 ``(n_rows, n_columns)``, place of each pixel in the patient, mm.
    z_mm : float
        Height of the slice, mm.
    scale_mm : float
        Size of the largest structures.
    seed : int
        Names the field.
    where : ndarray, optional
        bool ``(n_rows, n_columns)``; elsewhere the result is 0.
    """
    coarse = _coarse_step(x_mm, y_mm, scale_mm / 2 ** (n_octaves - 1)) if where is None else 1
    full_shape = x_mm.shape
    if coarse > 1:
        rows = np.minimum(np.arange(0, full_shape[0] + coarse, coarse), full_shape[0] - 1)
        columns = np.minimum(np.arange(0, full_shape[1] + coarse, coarse), full_shape[1] - 1)
        x_mm, y_mm = x_mm[np.ix_(rows, columns)], y_mm[np.ix_(rows, columns)]
    if where is None:
        where = np.ones(x_mm.shape, bool)
    out = np.empty(x_mm.shape, np.float32)
    _fill_fractal(
        x_mm,
        y_mm,
        np.float32(z_mm),
        where,
        np.float32(scale_mm),
        n_octaves,
        np.uint32(seed & 0xFFFFFFFF),
        out,
    )
    if coarse == 1:
        return out
    full = np.empty(full_shape, np.float32)
    _enlarge(out, coarse, full)
    return full


def _coarse_step(
    x_mm: npt.NDArray[np.float32], y_mm: npt.NDArray[np.float32], finest_mm: float
) -> int:
    """Pixels between samples that still show structures of ``finest_mm``."""
    spacing = float(np.hypot(x_mm[0, 1] - x_mm[0, 0], y_mm[0, 1] - y_mm[0, 0]))
    return int(np.clip(finest_mm / (4 * max(spacing, 1e-3)), 1, 8))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _enlarge(small, step, full):  # type: ignore[no-untyped-def]
    for row in range(full.shape[0]):
        i = row // step
        u = np.float32(row - i * step) / np.float32(step)
        for column in range(full.shape[1]):
            j = column // step
            v = np.float32(column - j * step) / np.float32(step)
            upper = small[i, j] + (small[i, j + 1] - small[i, j]) * v
            lower = small[i + 1, j] + (small[i + 1, j + 1] - small[i + 1, j]) * v
            full[row, column] = upper + (lower - upper) * u


def cell_noise(
    x_mm: npt.NDArray[np.float32],
    y_mm: npt.NDArray[np.float32],
    z_mm: float,
    scale_mm: float,
    seed: int,
    *,
    where: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Distances to the nearest cell center and to the nearest cell wall, mm.

    Parameters are those of :func:`fractal_noise`; ``scale_mm`` is the mean cell size. Outside
    ``where`` the wall distance is ``scale_mm`` (no wall near).

    References
    ----------
    Worley, "A cellular texture basis function", SIGGRAPH 1996.
    """
    if where is None:
        where = np.ones(x_mm.shape, bool)
    nearest = np.empty(x_mm.shape, np.float32)
    border = np.empty(x_mm.shape, np.float32)
    _fill_cells(
        x_mm,
        y_mm,
        np.float32(z_mm),
        where,
        np.float32(scale_mm),
        np.uint32(seed & 0xFFFFFFFF),
        nearest,
        border,
    )
    return nearest, border
