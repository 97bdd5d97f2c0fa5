"""Augmentation proper to CT: geometry within posture, intensity within HU tolerance, kernel, noise.

No color and no free contrast: Hounsfield units carry the diagnosis. All of it works on the
windowed model input, where 1 stands for the window width.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSettings:
    """Largest change of each kind; 0 switches it off.

    Attributes
    ----------
    rotation_deg : float
        Rotation in the plane, either way.
    scale : float
        Relative change of size, either way.
    shift : float
        Shift as a share of the side.
    flip_probability : float
        Left-right flip.
    offset_hu, noise_hu : float
        Calibration offset; standard deviation of added noise (drawn from 0 to this).
    gain : float
        Relative change of intensity, either way.
    sharpness : float
        Strength of an unsharp mask, drawn from ``-sharpness`` (blur, soft kernel) to ``+sharpness``
        (sharp kernel).
    """

    rotation_deg: float = 10.0
    scale: float = 0.1
    shift: float = 0.04
    flip_probability: float = 0.5
    offset_hu: float = 20.0
    noise_hu: float = 20.0
    gain: float = 0.03
    sharpness: float = 0.8


def augment(
    images: Tensor,
    size: int,
    window_width_hu: float,
    settings: AugmentSettings,
    generator: torch.Generator,
) -> Tensor:
    """Augment a batch and resample it to ``size``.

    Parameters
    ----------
    images : Tensor
        float32 ``(n, 1, S, S)`` in [0, 1]; 0 outside the lung mask, and left 0 there.
    size : int
        Side of the result.
    window_width_hu : float
        What 1 stands for.

    Returns
    -------
    Tensor
        float32 ``(n, 1, size, size)`` in [0, 1].
    """
    n = images.shape[0]

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(n, generator=generator) - 1) * limit

    if images.shape[-1] != size:  # reduce with an antialias filter before the warp
        images = functional.interpolate(
            images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
    angle = uniform(math.radians(settings.rotation_deg))
    zoom = 1 / (1 + uniform(settings.scale))
    is_flipped = torch.rand(n, generator=generator) < settings.flip_probability
    mirror = torch.where(is_flipped, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * zoom * mirror
    theta[:, 0, 1] = -torch.sin(angle) * zoom
    theta[:, 1, 0] = torch.sin(angle) * zoom * mirror
    theta[:, 1, 1] = torch.cos(angle) * zoom
    theta[:, 0, 2] = uniform(2 * settings.shift)  # the grid runs from -1 to 1
    theta[:, 1, 2] = uniform(2 * settings.shift)
    grid = functional.affine_grid(theta, [n, 1, size, size], align_corners=False)
    images = functional.grid_sample(images, grid, align_corners=False)

    is_lung = images > 0
    # Averaged over the lung only: the edge of the mask carries no kernel to sharpen.
    coverage = functional.avg_pool2d(is_lung.float(), 3, stride=1, padding=1)
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1) / coverage.clamp(min=1e-3)
    sharpness = uniform(settings.sharpness).view(n, 1, 1, 1)
    images = images + sharpness * (images - blurred)
    images = images * (1 + uniform(settings.gain).view(n, 1, 1, 1))
    images = images + uniform(settings.offset_hu / window_width_hu).view(n, 1, 1, 1)
    deviation = torch.rand(n, generator=generator) * settings.noise_hu / window_width_hu
    images = images + deviation.view(n, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1) * is_lung


def resize(images: Tensor, size: int) -> Tensor:
    """Resample without augmentation: ``(n, 1, S, S) -> (n, 1, size, size)``."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
