"""Which execution provider runs: the one asked for, or a typed error naming what is missing.

ONNX Runtime lists CUDA and TensorRT even where neither can load, and falls back to the
CPU with no more than a log line. Both are answered here: the provider's library is loaded
before it is asked for, and a session is asked afterwards what it really runs on.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ildsdk.errors import ModelError
from ildsdk.settings import Provider

_EP_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_REMEDIES = {
    "cuda": "install the CUDA libraries (pip install 'ildsdk[cuda]') and an NVIDIA driver, "
    "or ask for provider 'cpu'",
    "tensorrt": "install TensorRT and the CUDA libraries, or ask for provider 'cuda' or 'cpu'",
}


def missing_for(provider: Provider) -> str | None:
    """What keeps a provider from loading, in words; None where its library loads.

    Parameters
    ----------
    provider : {"cpu", "cuda", "tensorrt"}

    Notes
    -----
    Loading says nothing about a device: :func:`ildsdk.runtime.session.open_session` asks the
    session itself.
    """
    if provider == "cpu":
        return None
    if _EP_NAMES[provider] not in ort.get_available_providers():
        return f"the installed onnxruntime {ort.__version__} is built without {_EP_NAMES[provider]}"
    if hasattr(ort, "preload_dlls"):
        # Finds the CUDA and cuDNN libraries that the [cuda] extra puts into site-packages.
        _quiet_preload()
    prefix, suffix = ("", ".dll") if sys.platform == "win32" else ("lib", ".so")
    library = (
        Path(ort.__file__).parent / "capi" / f"{prefix}onnxruntime_providers_{provider}{suffix}"
    )
    try:
        # The provider library wants symbols of the shared part, which ONNX Runtime itself loads
        # first; the other way round an intact installation would look broken.
        shared = library.with_name(f"{prefix}onnxruntime_providers_shared{suffix}")
        ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"a library is missing: {str(error).replace(str(library.parent), 'onnxruntime')}"
    return None


def _quiet_preload() -> None:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def resolve(provider: Provider, device_id: int) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """Turn a provider setting into what a session is opened with.

    Parameters
    ----------
    provider : {"auto", "cpu", "cuda", "tensorrt"}
    device_id : int
        GPU number.

    Returns
    -------
    provider : {"cpu", "cuda", "tensorrt"}
    ort_providers : list of (name, options)
        The first one must run. TensorRT may leave nodes it has no kernel for to CUDA, as
        ONNX Runtime's documentation asks; nothing is left to the CPU but what each
        provider itself assigns there.

    Raises
    ------
    ModelError
        The provider asked for cannot load; the message names what is missing.
    """
    if provider == "auto":
        provider = "cuda" if missing_for("cuda") is None and _has_cuda_device() else "cpu"
    missing = missing_for(provider)
    if missing is not None:
        raise ModelError(
            f"execution provider {provider!r} cannot run here: {missing}; {_REMEDIES[provider]}"
        )
    return provider, provider_options(provider, device_id)


def provider_options(provider: Provider, device_id: int) -> list[tuple[str, dict[str, Any]]]:
    """Options a session of this provider is opened with (not measured on a GPU by us yet)."""
    cuda: tuple[str, dict[str, Any]] = (
        _EP_NAMES["cuda"],
        {
            "device_id": device_id,
            # Grow only as needed; the exhaustive search costs seconds at the first query.
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
        },
    )
    if provider == "cuda":
        return [cuda]
    if provider == "tensorrt":
        return [(_EP_NAMES["tensorrt"], {"device_id": device_id}), cuda]
    return [(_EP_NAMES["cpu"], {})]


def _has_cuda_device() -> bool:
    """Whether the NVIDIA driver is there and counts at least one device."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return False
    return count.value > 0


def ep_name(provider: str) -> str:
    """ONNX Runtime's name of a provider."""
    return _EP_NAMES[provider]
