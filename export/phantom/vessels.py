"""Arteries, veins and bronchi: trees grown in space, drawn into single slices."""

from __future__ import annotations

import dataclasses
import math

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from export.phantom.anatomy import Field, section_at
from export.phantom.patient import Patient

GRID_MM = (7.0, 5.0, 5.0)
"""Step of the coarse lung grid along z, y, x."""


@dataclasses.dataclass(slots=True)
class LungGrid:
    """Coarse picture of the lungs in space, ``(n_z, n_y, n_x)``.

    Attributes
    ----------
    pleura_mm : ndarray
        float32, distance to the nearest place outside the lungs, 0 outside.
    bronchus_mm : ndarray
        float32, distance to the nearest larger bronchus.
    """

    origin_mm: tuple[float, float, float]
    inside: npt.NDArray[np.bool_]
    pleura_mm: npt.NDArray[np.float32]
    bronchus_mm: npt.NDArray[np.float32]

    def sample(
        self, volume: npt.NDArray[np.float32], x: Field, y: Field, z_mm: float
    ) -> npt.NDArray[np.float32]:
        """Linear interpolation of a volume of this grid at the places of one slice."""
        level = np.clip((z_mm - self.origin_mm[0]) / GRID_MM[0], 0, volume.shape[0] - 1.001)
        below = int(level)
        plane = volume[below] * (1 - (level - below)) + volume[below + 1] * (level - below)
        rows = (y - self.origin_mm[1]) / GRID_MM[1]
        columns = (x - self.origin_mm[2]) / GRID_MM[2]
        return ndimage.map_coordinates(plane, [rows, columns], order=1, mode="nearest")


@dataclasses.dataclass(slots=True)
class Tubes:
    """Thick line pieces: float32 ``(n, 3)`` ends as (x, y, z), ``(n,)`` radii, mm."""

    start: npt.NDArray[np.float32]
    end: npt.NDArray[np.float32]
    start_radius: npt.NDArray[np.float32]
    end_radius: npt.NDArray[np.float32]


def lung_grid(patient: Patient) -> LungGrid:
    """Sample the lungs of a patient on the coarse grid."""
    reach_x, reach_y = patient.half_width_mm * 1.1, patient.half_depth_mm * 1.25
    xs = np.arange(-reach_x, reach_x, GRID_MM[2], dtype=np.float32)
    ys = np.arange(-reach_y, reach_y, GRID_MM[1], dtype=np.float32)
    zs = np.arange(-10, patient.lung_height_mm + 14, GRID_MM[0])
    x, y = np.meshgrid(xs, ys)
    inside = np.stack([section_at(patient, x, y, float(z)).lung < 0 for z in zs])
    pleura = ndimage.distance_transform_edt(inside, sampling=GRID_MM).astype(np.float32)
    return LungGrid(
        origin_mm=(float(zs[0]), float(ys[0]), float(xs[0])),
        inside=inside,
        pleura_mm=pleura,
        bronchus_mm=np.full(inside.shape, 1e3, np.float32),
    )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _grow(targets, root, balance, step, jitter, points, parents):  # type: ignore[no-untyped-def]
    """Join each target to the node that costs least (length plus path to the root)."""
    length = np.zeros(points.shape[0], np.float32)
    points[0] = root
    parents[0] = -1
    count = 1
    for index in range(targets.shape[0]):
        best, best_cost, best_gap = 0, np.float32(1e9), np.float32(0)
        for node in range(count):
            dx = targets[index, 0] - points[node, 0]
            dy = targets[index, 1] - points[node, 1]
            dz = targets[index, 2] - points[node, 2]
            gap = np.float32(math.sqrt(dx * dx + dy * dy + dz * dz))
            cost = gap + balance * length[node]
            if cost < best_cost:
                best, best_cost, best_gap = node, cost, gap
        pieces = max(1, int(best_gap / step))
        if count + pieces > points.shape[0]:
            break
        last = best
        ox, oy, oz = points[best, 0], points[best, 1], points[best, 2]
        for piece in range(1, pieces + 1):
            share = np.float32(piece) / np.float32(pieces)
            bend = np.float32(math.sin(math.pi * share)) * best_gap * np.float32(0.12)
            points[count, 0] = ox + (targets[index, 0] - ox) * share + bend * jitter[index, 0]
            points[count, 1] = oy + (targets[index, 1] - oy) * share + bend * jitter[index, 1]
            points[count, 2] = oz + (targets[index, 2] - oz) * share + bend * jitter[index, 2]
            parents[count] = last
            length[count] = length[best] + best_gap * share
            last = count
            count += 1
    return count


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _taper(parents, count, leaf_radius, exponent, radius):  # type: ignore[no-untyped-def]
    """Murray's law from the leaves to the root: r^e is the sum over the branches."""
    flow = np.zeros(count, np.float64)
    for node in range(count - 1, -1, -1):
        if flow[node] == 0:
            flow[node] = leaf_radius**exponent
        radius[node] = flow[node] ** (1 / exponent)
        if parents[node] >= 0:
            flow[parents[node]] += flow[node]


def grow_tree(
    rng: np.random.Generator,
    grid: LungGrid,
    side: npt.NDArray[np.bool_],
    root: tuple[float, float, float],
    *,
    n_targets: int,
    leaf_radius_mm: float,
    balance: float,
) -> Tubes:
    """Grow one tree from the hilum into one lung.

    Parameters
    ----------
    side : ndarray
        bool of the grid's shape, the lung to fill.
    root : tuple of float
        (x, y, z) where the tree enters, mm.
    balance : float
        0 gives the shortest network, larger values straighter paths to the root.
    """
    cells = np.argwhere(side & (grid.pleura_mm > 4.0))
    if len(cells) < 20:
        empty = np.zeros((0, 3), np.float32)
        return Tubes(empty, empty, empty[:, 0], empty[:, 0])
    chosen = cells[rng.integers(0, len(cells), n_targets)] + rng.uniform(-0.5, 0.5, (n_targets, 3))
    places = (np.asarray(grid.origin_mm) + chosen * np.asarray(GRID_MM))[:, ::-1]
    distance = np.linalg.norm(places - np.asarray(root), axis=1)
    # Far targets first would make combs; near first with some disorder makes trees.
    order = np.argsort(distance * rng.uniform(0.6, 1.4, n_targets))
    targets = places[order].astype(np.float32)
    points = np.zeros((n_targets * 8, 3), np.float32)
    parents = np.full(n_targets * 8, -1, np.int32)
    jitter = rng.standard_normal((n_targets, 3)).astype(np.float32)
    count = _grow(
        targets,
        np.asarray(root, np.float32),
        np.float32(balance),
        np.float32(5.0),
        jitter,
        points,
        parents,
    )
    radius = np.zeros(count, np.float32)
    _taper(parents, count, leaf_radius_mm, 2.4, radius)
    tails = np.arange(1, count)
    heads = parents[1:count]
    return Tubes(
        points[heads], points[tails], np.minimum(radius[heads], 1.3 * radius[tails]), radius[tails]
    )


def join(tubes: list[Tubes]) -> Tubes:
    """One set of tubes from several."""
    return Tubes(
        *(
            np.ascontiguousarray(np.concatenate([getattr(part, name) for part in tubes]))
            for name in ("start", "end", "start_radius", "end_radius")
        )
    )


def select(tubes: Tubes, keep: npt.NDArray[np.bool_]) -> Tubes:
    """The tubes where ``keep`` is True."""
    return Tubes(
        tubes.start[keep], tubes.end[keep], tubes.start_radius[keep], tubes.end_radius[keep]
    )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _draw(start, end, start_radius, end_radius, z, x0, y0, cos, sin, spacing, fill):  # type: ignore[no-untyped-def]
    """Raise ``fill`` to the share of each pixel that tubes cover (see draw_tubes)."""
    n_rows, n_columns = fill.shape
    for index in range(start.shape[0]):
        big = max(start_radius[index], end_radius[index]) + spacing
        low = min(start[index, 2], end[index, 2]) - big
        high = max(start[index, 2], end[index, 2]) + big
        if z < low or z > high:
            continue
        ax = start[index, 0] * cos - start[index, 1] * sin
        ay = start[index, 0] * sin + start[index, 1] * cos
        bx = end[index, 0] * cos - end[index, 1] * sin
        by = end[index, 0] * sin + end[index, 1] * cos
        az, bz = start[index, 2], end[index, 2]
        dx, dy, dz = bx - ax, by - ay, bz - az
        squared = dx * dx + dy * dy + dz * dz + np.float32(1e-6)
        c0 = max(0, int((min(ax, bx) - big - x0) / spacing))
        c1 = min(n_columns - 1, int((max(ax, bx) + big - x0) / spacing) + 1)
        r0 = max(0, int((min(ay, by) - big - y0) / spacing))
        r1 = min(n_rows - 1, int((max(ay, by) + big - y0) / spacing) + 1)
        for row in range(r0, r1 + 1):
            py = y0 + row * spacing - ay
            for column in range(c0, c1 + 1):
                px = x0 + column * spacing - ax
                pz = z - az
                share = (px * dx + py * dy + pz * dz) / squared
                share = min(np.float32(1), max(np.float32(0), share))
                ex, ey, ez = px - share * dx, py - share * dy, pz - share * dz
                radius = start_radius[index] + share * (end_radius[index] - start_radius[index])
                gap = np.float32(math.sqrt(ex * ex + ey * ey + ez * ez)) - radius
                value = np.float32(0.5) - gap / spacing
                if value <= 0:
                    continue
                # A tube thinner than a pixel never fills one.
                value = min(value, np.float32(1)) * min(
                    np.float32(1), np.float32(1.7) * radius / spacing
                )
                if value > fill[row, column]:
                    fill[row, column] = value


def draw_tubes(
    tubes: Tubes,
    z_mm: float,
    thickness_mm: float,
    origin_mm: tuple[float, float],
    rotation_rad: float,
    spacing_mm: float,
    shape: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """Share of each pixel that tubes fill, averaged over the slice thickness.

    Parameters
    ----------
    origin_mm : tuple of float
        (x, y) of the first pixel's center in the unrotated image frame.
    rotation_rad : float
        Turn from the patient frame to the image frame.
    shape : tuple of int
        ``(n_rows, n_columns)`` of the result, float32 in [0, 1].
    """
    n_layers = 1 if thickness_mm <= 1.5 else 3 if thickness_mm <= 3 else 4
    total = np.zeros(shape, np.float32)
    for layer in range(n_layers):
        offset = ((layer + 0.5) / n_layers - 0.5) * thickness_mm
        fill = np.zeros(shape, np.float32)
        _draw(
            tubes.start,
            tubes.end,
            tubes.start_radius,
            tubes.end_radius,
            np.float32(z_mm + offset),
            np.float32(origin_mm[0]),
            np.float32(origin_mm[1]),
            np.float32(np.cos(rotation_rad)),
            np.float32(np.sin(rotation_rad)),
            np.float32(spacing_mm),
            fill,
        )
        total += fill
    return total / np.float32(n_layers)


@dataclasses.dataclass(slots=True)
class LungTree:
    """All tubes of a patient; ``bronchi`` are outer walls, ``lumina`` the air in them."""

    vessels: Tubes
    bronchi: Tubes
    lumina: Tubes


def grow_lungs(
    rng: np.random.Generator, patient: Patient, grid: LungGrid, *, traction: float
) -> LungTree:
    """Arteries with bronchi beside them, and veins, for both lungs.

    ``traction`` (0 to 1) widens bronchi towards the lung bases and lets them reach further
    out. Fills ``grid.bronchus_mm``.
    """
    n_x = grid.inside.shape[2]
    left_half = (grid.origin_mm[2] + np.arange(n_x) * GRID_MM[2] > 0)[None, None, :]
    height = patient.lung_height_mm
    y_back = patient.half_depth_mm
    arteries, veins = [], []
    for is_left in (False, True):
        sign = 1 if is_left else -1
        side = grid.inside & (left_half == is_left)
        n_targets = int(1300 * patient.vessel_density)
        y_root = y_back - 0.47 * 2 * patient.half_depth_mm
        arteries.append(
            grow_tree(
                rng,
                grid,
                side,
                (sign * 34.0, y_root, 0.46 * height),
                n_targets=n_targets,
                leaf_radius_mm=0.4,
                balance=0.45,
            )
        )
        veins.append(
            grow_tree(
                rng,
                grid,
                side,
                (sign * 30.0, y_root - 8, 0.52 * height),
                n_targets=n_targets,
                leaf_radius_mm=0.38,
                balance=0.4,
            )
        )
    artery = join(arteries)
    middle = 0.5 * (artery.start + artery.end)
    base = np.clip((middle[:, 2] / height - 0.35) / 0.5, 0, 1)
    wide = 1 + traction * base * rng.uniform(0.2, 1.5, len(base))
    least = 1.3 - 0.45 * traction * base
    keep = artery.end_radius > least
    beside = np.array([0.35, 0.75, 0.3], np.float32)
    radius_start, radius_end = artery.start_radius * wide, artery.end_radius * wide
    # Stay close to the artery: the pair is what a reader looks for.
    shift = (artery.start_radius + radius_start)[:, None] * beside
    shift_end = (artery.end_radius + radius_end)[:, None] * beside
    bronchi = select(
        Tubes(
            artery.start + shift.astype(np.float32),
            artery.end + shift_end.astype(np.float32),
            np.minimum(radius_start, 5.5).astype(np.float32),
            np.minimum(radius_end, 5.5).astype(np.float32),
        ),
        keep,
    )
    lumen = [np.maximum(0.05, 0.85 * r - 0.35) for r in (bronchi.start_radius, bronchi.end_radius)]
    lumina = Tubes(bronchi.start, bronchi.end, lumen[0], lumen[1])
    marks = np.ones(grid.inside.shape, bool)
    cells = (bronchi.end[:, ::-1] - np.asarray(grid.origin_mm)) / np.asarray(GRID_MM)
    cells = np.clip(np.rint(cells).astype(int), 0, np.asarray(marks.shape) - 1)
    marks[tuple(cells.T)] = False
    grid.bronchus_mm = ndimage.distance_transform_edt(marks, sampling=GRID_MM).astype(np.float32)
    return LungTree(join([artery, *veins]), bronchi, lumina)
