"""One synthetic patient from a label and a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from export.phantom.acquisition import Scan, acquire, draw_scan
from export.phantom.anatomy import Field, section_at, smooth_step
from export.phantom.diseases import draw_profile
from export.phantom.lesions import LungPlace, draw_distractors, draw_lesions
from export.phantom.noise import fractal_noise
from export.phantom.patient import Patient, draw_patient
from export.phantom.profile import Profile
from export.phantom.settings import LABELS, PhantomCase, PhantomSettings, case_id_of
from export.phantom.tissue import paint_body, paint_table
from export.phantom.vessels import LungGrid, LungTree, draw_tubes, grow_lungs, lung_grid


def _stream(label: str, seed: int, purpose: int) -> np.random.Generator:
    """Random stream of one case and purpose, the same in every process."""
    key = (seed << 16) | (LABELS.index(label) << 8) | purpose
    return np.random.Generator(np.random.Philox(key=key))


def generate_case(label: str, seed: int, settings: PhantomSettings | None = None) -> PhantomCase:
    """Make one synthetic chest CT; the arguments alone decide every pixel.

    Parameters
    ----------
    label : str
        One of :data:`~export.phantom.settings.LABELS`.
    seed : int
        0 or more; each seed is another patient.
    settings : PhantomSettings, optional
        Size, slice interval, difficulty.

    Raises
    ------
    ValueError
        Unknown label or negative seed.
    """
    settings = settings or PhantomSettings()
    case_id = case_id_of(label, seed)
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    profile = draw_profile(label, _stream(label, seed, 1), settings.difficulty)
    patient = draw_patient(_stream(label, seed, 2), volume_loss=profile.volume_loss)
    body_width = 2 * (patient.half_width_mm + patient.muscle_mm + patient.fat_mm + 6)
    scan = draw_scan(_stream(label, seed, 3), body_width)
    grid = lung_grid(patient)
    tree = grow_lungs(
        _stream(label, seed, 4), patient, grid, traction=profile.traction * profile.severity
    )
    depths = _slice_depths(patient, settings, _stream(label, seed, 5))
    table_bottom = _table_bottom(patient)
    images, lungs, lesions = [], [], []
    for depth in depths:
        # One stream per place, so a slice does not depend on which others were made.
        noise = _stream(label, seed, 6).bit_generator
        noise.advance(int((depth + 100) * 1000) << 24)  # type: ignore[attr-defined]
        image, lung, lesion = _slice_at(
            patient,
            profile,
            scan,
            grid,
            tree,
            float(depth),
            table_bottom,
            settings.size,
            np.random.Generator(noise),
        )
        images.append(image)
        lungs.append(lung)
        lesions.append(lesion)
    spacing = scan.field_of_view_mm / settings.size
    return PhantomCase(
        case_id=case_id,
        label=label,
        seed=seed,
        severity=profile.severity,
        pixels_hu=np.stack(images),
        position_mm=-depths,
        pixel_spacing_mm=(spacing, spacing),
        slice_thickness_mm=scan.slice_thickness_mm,
        kernel=scan.kernel,
        lung_mask=np.stack(lungs),
        lesion_mask=np.stack(lesions),
        prone=patient.prone,
        padding_hu=scan.padding_hu,
        sex=patient.sex,
        kvp=scan.kvp,
        tube_current_ma=scan.tube_current_ma,
    )


def _slice_depths(
    patient: Patient, settings: PhantomSettings, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Depths below the apex in mm, lowest slice first (positions ascend)."""
    top, bottom = 0.03 * patient.lung_height_mm, 0.97 * patient.lung_height_mm
    if settings.n_slices is not None:
        shares = (np.arange(settings.n_slices) + 0.5) / settings.n_slices
        return np.round(top + shares * (bottom - top), 2)[::-1].copy()
    first = top + rng.uniform(-0.5, 0.5) * settings.slice_interval_mm
    return np.round(np.arange(first, bottom, settings.slice_interval_mm), 2)[::-1].copy()


def _table_bottom(patient: Patient) -> float:
    """Lowest body point over the chest in the image frame, mm."""
    side = -1 if patient.prone else 1
    axis = np.arange(-180, 181, 3, dtype=np.float32)
    x, y = np.meshgrid(axis[np.abs(axis) < 80], axis)
    lowest = 0.0
    for height in (0.2, 0.5, 0.85):
        section = section_at(patient, x, y, height * patient.lung_height_mm)
        lowest = max(lowest, float((side * y)[section.body < 0].max()))
    return lowest


def _slice_at(
    patient: Patient,
    profile: Profile,
    scan: Scan,
    grid: LungGrid,
    tree: LungTree,
    depth: float,
    table_bottom: float,
    size: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    spacing = scan.field_of_view_mm / size
    axis = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(spacing)
    image_x, image_y = np.meshgrid(axis, axis)
    image_x += np.float32(patient.center_x_mm)
    image_y += np.float32(patient.center_y_mm)
    if patient.prone:
        # The picture of a prone patient is shown as it lies: back up.
        image_x, image_y = -image_x, -image_y
    turn = -patient.rotation_rad
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x = image_x * cos - image_y * sin
    y = image_x * sin + image_y * cos

    section = section_at(patient, x, y, depth)
    hu = paint_body(patient, section, x, y, spacing)
    lung = section.lung < 0
    body = section.body < 0
    lesion = np.zeros_like(lung)
    rows = np.flatnonzero(section.lung.min(axis=1) < 3)
    columns = np.flatnonzero(section.lung.min(axis=0) < 3)
    if lung.any():
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside, changed = _lung_at(
            patient,
            profile,
            scan,
            grid,
            tree,
            depth,
            x[box],
            y[box],
            section.lung[box],
            np.minimum(-section.cavity, 8 - section.diaphragm)[box],
            section.center_y,
            section.half_depth,
            (float(image_x[0, 0]), float(image_y[0, 0])),
            box,
            size,
            spacing,
        )
        share = np.clip(0.5 - section.lung[box] / np.float32(spacing), 0, 1)
        hu[box] += share * (inside - hu[box])
        lesion[box] = changed & lung[box]
    if patient.prone:
        paint_table(patient, -image_x, -image_y, hu, spacing, table_bottom)
    else:
        paint_table(patient, image_x, image_y, hu, spacing, table_bottom)
    if scan.slice_thickness_mm > 1.5:
        hu = ndimage.gaussian_filter(hu, 0.18 * scan.slice_thickness_mm / spacing, truncate=2.5)
    return acquire(scan, hu, body, section.height, spacing, rng), lung, lesion


def _lung_at(
    patient: Patient,
    profile: Profile,
    scan: Scan,
    grid: LungGrid,
    tree: LungTree,
    depth: float,
    x: Field,
    y: Field,
    distance: Field,
    outer: Field,
    center_y: float,
    half_depth: float,
    corner: tuple[float, float],
    box: tuple[slice, slice],
    size: int,
    spacing: float,
) -> tuple[Field, npt.NDArray[np.bool_]]:
    """HU inside the lungs' box, and where disease changed them."""
    inside = distance < 1.5
    seed = patient.field_seed
    flat = ndimage.distance_transform_edt(np.pad(distance[::2, ::2] < 0, 1))[1:-1, 1:-1]
    flat = np.repeat(np.repeat(flat, 2, 0), 2, 1)[: x.shape[0], : x.shape[1]] * 2 * spacing
    pleura = np.minimum(flat, grid.sample(grid.pleura_mm, x, y, depth) + 1.0).astype(np.float32)
    place = LungPlace(
        x=x,
        y=y,
        z_mm=depth,
        pleura_mm=pleura,
        outer_mm=np.maximum(outer - 2, 0).astype(np.float32),
        bronchus_mm=grid.sample(grid.bronchus_mm, x, y, depth).astype(np.float32),
        dorsal=((y - center_y) / half_depth).astype(np.float32),
        height=depth / patient.lung_height_mm,
        inside=inside,
        seed=seed,
    )
    fine = fractal_noise(x, y, depth, 6.0, seed + 41, n_octaves=3, where=inside)
    broad = fractal_noise(x, y, depth, 30.0, seed + 42, n_octaves=2, where=inside)
    specks = fractal_noise(x, y, depth, 2.4, seed + 43, n_octaves=1, where=inside)
    hu = patient.lung_hu + 13 * fine + 10 * broad + 16 * np.maximum(specks - 0.4, -0.6)
    down = -place.dorsal if patient.prone else place.dorsal
    hu = hu + patient.gravity_hu * smooth_step(-1, 1, down)
    dependent = smooth_step(9, 1, pleura) * smooth_step(0.35, 0.9, down)
    hu = (hu + 2.2 * patient.gravity_hu * dependent).astype(np.float32)
    draw_distractors(profile, place, hu)
    _draw_fissures(patient, place, hu, spacing)
    hu, changed = draw_lesions(profile, place, hu, max(spacing, 0.5))
    sign = -1.0 if patient.prone else 1.0
    # Tubes are drawn in the image frame; a prone picture is that frame turned round.
    turn = patient.rotation_rad + (np.pi if patient.prone else 0.0)
    origin = (
        sign * corner[0] + box[1].start * spacing,
        sign * corner[1] + box[0].start * spacing,
    )
    arguments = (depth, scan.slice_thickness_mm, origin, turn, spacing, x.shape)
    vessels = draw_tubes(tree.vessels, *arguments)
    hu += vessels * np.maximum(np.float32(38 + patient.contrast_hu) - hu, 0)
    walls = draw_tubes(tree.bronchi, *arguments)
    hu += walls * np.maximum(np.float32(5) - hu, 0)
    lumina = draw_tubes(tree.lumina, *arguments)
    hu += lumina * (np.float32(-960) - hu)
    return hu.astype(np.float32), changed


def _draw_fissures(patient: Patient, place: LungPlace, hu: Field, spacing: float) -> None:
    """Oblique fissures as faint lines, in place."""
    height = place.height
    for side, start in ((-1, 0.2), (1, 0.16)):
        if not start < height < 0.95:
            continue
        back = patient.half_depth_mm * (0.75 - 1.55 * (height - start) / (0.98 - start))
        waves = fractal_noise(
            place.x, place.y, place.z_mm, 60.0, patient.field_seed + 44 + side, n_octaves=1
        )
        bow = 7 * waves + (0.25 + 0.2 * side) * (70 - np.abs(place.x))
        line = np.abs(place.y - back - bow) * np.float32(0.8) - 0.3
        share = np.clip(0.5 - line / max(spacing, 0.8), 0, 1) * (np.sign(place.x) == side)
        hu += (share * place.inside * np.float32(0.13)) * (np.float32(-100) - hu)
