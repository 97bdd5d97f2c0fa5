"""Which execution provider runs: the one asked for, or a typed error naming what is missing.

ONNX Runtime lists CUDA and TensorRT even where neither can load, and falls back to the
CPU with no more than a log line. Both are answered here: the provider's library is loaded
before it is asked for, and a session is asked afterwards what it really runs on.
"""

from __future__ import annotations

from typing import Literal

from ildsdk.errors import ModelError
from ildsdk.runtime.provider_libraries import EP_NAMES, missing_for
from ildsdk.settings import Provider

RunProvider = Literal["cpu", "cuda", "tensorrt"]

__all__ = ["CPU_PROVIDERS", "RunProvider", "choose_provider", "ep_name", "missing_for"]

CPU_PROVIDERS: list[tuple[str, dict[str, str]]] = [(EP_NAMES["cpu"], {})]
"""For a session on the CPU; those of the others are built in :mod:`ildsdk.runtime.gpu_session`."""

_REMEDIES = {
    "cuda": "install the CUDA libraries (pip install 'ildsdk[cuda]') and an NVIDIA driver, "
    "or ask for provider 'cpu'",
    "tensorrt": "install an NVIDIA driver, the CUDA libraries (pip install 'ildsdk[cuda]') and "
    "TensorRT (`ildsdk doctor` names the library); without it queries run with provider 'cuda' or "
    "'cpu'",
}


def choose_provider(provider: Provider) -> RunProvider:
    """Turn a provider setting into the provider that is to run.

    Parameters
    ----------
    provider : {"auto", "cpu", "cuda", "tensorrt"}
        ``"auto"`` is CUDA where its libraries load and a device is there, the CPU else. TensorRT
        is never chosen unasked: it needs an engine built first.

    Raises
    ------
    ModelError
        The provider asked for cannot load; the message names what is missing.
    """
    if provider == "auto":
        return "cuda" if missing_for("cuda") is None and _has_cuda_device() else "cpu"
    missing = missing_for(provider)
    if missing is not None:
        raise ModelError(
            f"execution provider {provider!r} cannot run here: {missing}; {_REMEDIES[provider]}"
        )
    return provider


def _has_cuda_device() -> bool:
    """Whether the NVIDIA driver is there and counts at least one device."""
    from ildsdk.runtime.nvidia import read_driver

    try:
        read_driver()
    except ModelError:
        return False
    return True


def ep_name(provider: str) -> str:
    """ONNX Runtime's name of a provider."""
    return EP_NAMES[provider]
