"""Which slices calibrate, which ones choose: of training cases only, no case in both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.dataset import SliceSet
from export.quantization.settings import QuantizeSettings
from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a prepared set by what they are for; no case stands in two of them."""

    calibration: npt.NDArray[np.int64]
    choosing: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


def split_rows(slices: SliceSet, bundle: Bundle, settings: QuantizeSettings) -> Rows:
    """Every second training case of each class calibrates, the others choose; held out is scored.

    Raises
    ------
    ConfigError
        The bundle does not say which cases it was trained on, or the set lacks them.
    """
    training = bundle.provenance.get("training") or {}
    train, held_out = training.get("train_cases"), training.get("held_out_cases")
    if not train or not held_out:
        raise ConfigError(
            f"bundle {bundle.name!r} does not say which cases it was trained on and which were "
            "held out; export it with this version of the program first"
        )
    if missing := len({*train, *held_out} - set(slices.case_ids)):
        raise ConfigError(
            f"the prepared set lacks {missing} of the {len(train) + len(held_out)} cases of bundle "
            f"{bundle.name!r}; give the folder that was given to train"
        )
    label_of = dict(zip(slices.case_ids, slices.labels, strict=True))
    groups: dict[str, list[str]] = {}
    for case in sorted(train):
        groups.setdefault(label_of[case], []).append(case)
    first = [case for cases in groups.values() for case in cases[0::2]]
    second = [case for cases in groups.values() for case in cases[1::2]]
    if not second:
        raise ConfigError(
            "each class has one training case only, expected two: one calibrates, one chooses"
        )
    return Rows(
        _spread(slices.rows_of(first), settings.n_calibration + settings.n_altered),
        _spread(slices.rows_of(second), settings.n_choosing),
        slices.rows_of(held_out),
    )


def calibration_images(
    slices: SliceSet, rows: npt.NDArray[np.int64], settings: QuantizeSettings
) -> list[npt.NDArray[np.float32]]:
    """Images ``(1, 1, S, S)``: some as they are, the others as training alters them."""
    import torch

    from export.augment import AugmentSettings, augment

    share = settings.n_altered / (settings.n_calibration + settings.n_altered)
    n_altered = round(share * rows.size)
    altered_places = np.linspace(0, rows.size - 1, n_altered).astype(int)
    is_altered = np.isin(np.arange(rows.size), altered_places)
    images = [slices.images[row : row + 1].astype(np.float32) for row in rows[~is_altered]]
    generator = torch.Generator().manual_seed(settings.seed)
    for row in rows[is_altered]:
        image = torch.from_numpy(slices.images[row : row + 1].astype(np.float32))
        size, width = slices.method.input_size, slices.method.window_width_hu
        images.append(augment(image, size, width, AugmentSettings(), generator).numpy())
    return images


def _spread(rows: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    chosen: Sequence[int] = np.linspace(0, rows.size - 1, min(n, rows.size)).astype(int)
    return rows[chosen]
