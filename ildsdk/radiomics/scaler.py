"""Standardisation of radiomics features with statistics that travel in the bundle."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ModelError


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureScaler:
    """Feature-wise ``clip((value - mean) / scale, -clip, clip)``.

    The features differ in scale by many orders of magnitude (method section 2), and some
    have heavy tails: without the clip one odd slice would saturate the fusion net.

    Attributes
    ----------
    mean, scale : ndarray
        float64 ``(n_features,)``; ``scale`` > 0.
    clip : float
        Limit in standard deviations.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    clip: float = 6.0

    def __post_init__(self) -> None:
        mean = np.asarray(self.mean, dtype=np.float64)
        scale = np.asarray(self.scale, dtype=np.float64)
        if mean.ndim != 1 or mean.shape != scale.shape:
            raise ModelError(
                f"scaler mean has shape {mean.shape} and scale {scale.shape}, expected one "
                "vector each of the same length"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError("scaler holds values that are not finite, or a scale that is not > 0")
        if not self.clip > 0:
            raise ModelError(f"scaler clip is {self.clip!r}, expected > 0")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "scale", scale)

    @classmethod
    def fit(cls, values: npt.NDArray[np.float64], clip: float = 6.0) -> FeatureScaler:
        """Mean and standard deviation of training values ``(n_slices, n_features)``, float64.

        A feature that does not vary gets scale 1.
        """
        values = np.asarray(values, dtype=np.float64)
        deviation = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(deviation > 0, deviation, 1.0), clip)

    def transform(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Standardise ``(..., n_features)`` float64 to float32 of the same shape."""
        scaled = (np.asarray(values, dtype=np.float64) - self.mean) / self.scale
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for the bundle's manifest; floats survive the round trip exactly."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "clip": self.clip}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureScaler:
        """Inverse of :meth:`to_dict`."""
        try:
            return cls(np.array(values["mean"]), np.array(values["scale"]), float(values["clip"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"scaler in the manifest cannot be read: {error}") from error
