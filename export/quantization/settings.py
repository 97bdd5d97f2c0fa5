"""Settings of the int8 export, limits included."""

from __future__ import annotations

import dataclasses

from ildsdk.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSettings:
    """How the int8 forms are made and what they must keep.

    Attributes
    ----------
    methods : tuple of str
        Calibrations to compare: ``minmax``, ``entropy``, ``mse``, or ``percentile-P``.
    n_calibration, n_altered : int
        Calibration slices as they are, and as training alters them (posture, kernel, noise, HU
        tolerance), so that ranges hold for more than the phantoms.
    n_correction, n_sensitivity : int
        Slices that biases are corrected by, and that sensitivity is measured on.
    n_choosing : int
        Slices of training cases, none of them calibrated on, by which all is chosen.
    with_symmetric : bool
        Also make the symmetric form, which TensorRT takes. Not by default: TensorRT has not run
        it yet (docs/int8.md).
    max_float_steps : int
        So many of the most sensitive steps may be left in float where the limits ask for it.
    min_top1_label, min_overlap : float
        Least agreement with float32 that is written: share of queries whose best neighbor keeps
        its class, and mean share of the first ``top_n`` that stay.
    min_cosine, min_median_cosine : float
        Least and median cosine of embeddings to those of float32.
    top_n, n_threads, seed : int
    """

    methods: tuple[str, ...] = (
        "minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999", "entropy", "mse",
    )  # fmt: skip
    n_calibration: int = 64
    n_altered: int = 64
    n_correction: int = 32
    n_sensitivity: int = 16
    n_choosing: int = 480
    with_symmetric: bool = False
    max_float_steps: int = 8
    min_top1_label: float = 0.99
    min_overlap: float = 0.9
    min_cosine: float = 0.999
    min_median_cosine: float = 0.9999
    top_n: int = 10
    n_threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            parse_method(name)
        for name in ("min_top1_label", "min_overlap", "min_cosine", "min_median_cosine"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name in ("n_calibration", "n_correction", "n_sensitivity", "n_choosing", "top_n"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.methods:
            raise ConfigError("no calibration method is given, expected at least one")

    def limits(self) -> dict[str, float]:
        """The limits alone, for reports."""
        names = ("min_top1_label", "min_overlap", "min_cosine", "min_median_cosine")
        return {name: getattr(self, name) for name in names}


def parse_method(name: str) -> tuple[str, float]:
    """Method and percentile of a calibration's name.

    Raises
    ------
    ConfigError
        No such method.
    """
    kind, _, percent = name.partition("-")
    if kind == "percentile":
        try:
            value = float(percent)
        except ValueError:
            value = 0.0
        if 50 < value <= 100:
            return kind, value
    elif name in ("minmax", "entropy", "mse"):
        return name, 0.0
    raise ConfigError(
        f"calibration is {name!r}, expected minmax, entropy, mse or percentile-P with P from 50 "
        "to 100, for example percentile-99.99"
    )
