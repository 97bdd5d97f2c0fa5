"""Number format of the convolutions: float32, or bfloat16 where the processor multiplies it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def resolve_precision(name: str, device: str = "cpu", cpuinfo: Path | None = None) -> str:
    """``"auto"`` becomes bfloat16 where the device has instructions for it, else float32.

    Other names come back as they are. Without those instructions bfloat16 is emulated, and many
    times slower than float32.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``; every CUDA device that current torch supports has bfloat16.
    cpuinfo : Path or None
        Linux' list of processor flags; where there is none (another system) auto is float32.
    """
    if name != "auto":
        return name
    if device != "cpu":
        return "bfloat16"
    try:
        text = (cpuinfo or Path("/proc/cpuinfo")).read_text(encoding="ascii", errors="replace")
    except OSError:
        return "float32"
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "bfloat16" if _BFLOAT16_FLAGS & set(flags.split()) else "float32"


def autocast(precision: str, device: str = "cpu") -> torch.autocast:
    """Context in which convolutions run in ``precision``; weights stay float32."""
    import torch

    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")
