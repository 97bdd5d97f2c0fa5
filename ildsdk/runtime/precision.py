"""Which arithmetic the backbone runs in: the one asked for, or a typed error."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError
from ildsdk.runtime.cpu_features import CpuFeatures
from ildsdk.settings import Precision

RunPrecision = Literal["fp32", "int8", "fp16"]

_RUNS: dict[str, tuple[RunPrecision, ...]] = {
    "cpu": ("fp32", "int8"),
    "cuda": ("fp32",),
    "tensorrt": ("fp32", "fp16", "int8"),
}


def choose_precision(
    asked: Precision,
    provider: str,
    *,
    bundle_default: Literal["fp32", "int8"],
    has_int8: bool,
    cpu: CpuFeatures,
) -> RunPrecision:
    """Arithmetic to run the backbone in.

    Parameters
    ----------
    asked : {"auto", "fp32", "int8", "fp16"}
    provider : {"cpu", "cuda", "tensorrt"}
        The one that really runs.
    bundle_default : {"fp32", "int8"}
        What the bundle's measurements speak for.
    has_int8 : bool
        Whether the bundle has an 8-bit backbone for this provider (:func:`int8_backbone`).
    cpu : CpuFeatures

    Returns
    -------
    {"fp32", "int8", "fp16"}

    Raises
    ------
    ConfigError
        The provider does not run it, or the bundle lacks the network for it.
    """
    if asked == "auto":
        is_fast = provider == "cpu" and has_int8 and cpu.has_fast_int8
        return bundle_default if is_fast else "fp32"
    if asked not in _RUNS[provider]:
        able = ", ".join(name for name, precisions in _RUNS.items() if asked in precisions)
        raise ConfigError(
            f"precision {asked!r} does not run on provider {provider!r}, which runs "
            f"{', '.join(_RUNS[provider])}; ask for one of these, or for provider {able}"
        )
    if asked == "int8" and not has_int8:
        raise no_int8(provider)
    return asked


def int8_backbone(bundle: Bundle, provider: str) -> Path | None:
    """The 8-bit backbone of a bundle that a provider takes; None where it has none.

    Parameters
    ----------
    provider : {"cpu", "tensorrt"}
        CPUs want unsigned activations with zero points, TensorRT takes only signed ones with
        zero points of 0: they are two files.
    """
    return bundle.backbone_int8_symmetric if provider == "tensorrt" else bundle.backbone_int8


def no_int8(provider: str) -> ConfigError:
    """Error of a bundle without the 8-bit backbone that a provider takes."""
    name, others = "backbone-int8.onnx", "'fp32' or 'auto'"
    if provider == "tensorrt":
        name, others = "backbone-int8-symmetric.onnx", "'fp16' or 'fp32'"
    option = " --symmetric" if provider == "tensorrt" else ""
    return ConfigError(
        f"precision 'int8' was asked for on provider {provider!r}, but the bundle has no 8-bit "
        f"network for it ({name}); ask for {others}, or take a bundle exported with one (`python "
        f"-m export quantize{option}`, then `add-int8`)"
    )
