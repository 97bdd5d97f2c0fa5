"""Whether the libraries of an execution provider load, and which one is missing.

ONNX Runtime lists CUDA and TensorRT even where neither can load, so their libraries are loaded
here first, in the order in which they need each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from ildsdk.errors import ModelError

GpuProvider = Literal["cuda", "tensorrt"]

EP_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_IS_WINDOWS = sys.platform == "win32"
# NVIDIA's wheels of TensorRT put their libraries here, where no loader looks.
_TENSORRT_PACKAGES = ("tensorrt_libs", "tensorrt_cu13_libs", "tensorrt_cu12_libs")
_MAX_PROVIDER_BYTES = 64 * 1024 * 1024


def missing_for(provider: str) -> str | None:
    """What keeps a provider from loading, in words; None where its libraries load.

    Parameters
    ----------
    provider : {"cpu", "cuda", "tensorrt"}

    Notes
    -----
    Loading says nothing about a device: whoever opens a session asks the session itself.
    """
    if provider == "cpu":
        return None
    if EP_NAMES[provider] not in ort.get_available_providers():
        return f"the installed onnxruntime {ort.__version__} is built without {EP_NAMES[provider]}"
    _preload_cuda()
    if provider == "tensorrt":
        preload_tensorrt()
    library = provider_library(provider)
    try:
        # The provider library wants symbols of the shared part, which ONNX Runtime itself loads
        # first; the other way round an intact installation would look broken.
        ctypes.CDLL(str(provider_library("shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        is_absent = "cannot open shared object" in str(error)
        text = f"a library {'is missing' if is_absent else 'does not fit'}: " + str(error).replace(
            str(library.parent), "onnxruntime"
        )
        return f"{text}{_and_tensorrt(text)}" if provider == "tensorrt" else text
    return None


def _and_tensorrt(text: str) -> str:
    """What is to be said of TensorRT where the loader stumbled over another library first."""
    try:
        installed_tensorrt_version()
    except ModelError as error:
        return "" if tensorrt_library() in text else f"; {error}"
    return ""


def provider_library(provider: str) -> Path:
    """File of ONNX Runtime's ``"cuda"``, ``"tensorrt"`` or ``"shared"`` provider library."""
    prefix, suffix = ("", ".dll") if _IS_WINDOWS else ("lib", ".so")
    return Path(ort.__file__).parent / "capi" / f"{prefix}onnxruntime_providers_{provider}{suffix}"


def tensorrt_library() -> str:
    """File name of the TensorRT runtime that this onnxruntime was linked with.

    For example ``libnvinfer.so.10``: a TensorRT of another major version does not serve.

    Raises
    ------
    ModelError
        This onnxruntime has no TensorRT provider.
    """
    library = provider_library("tensorrt")
    if not library.is_file() or library.stat().st_size > _MAX_PROVIDER_BYTES:
        raise ModelError(f"the installed onnxruntime {ort.__version__} is built without TensorRT")
    pattern = rb"nvinfer_\d+\.dll" if _IS_WINDOWS else rb"libnvinfer\.so\.\d+"
    found = re.search(pattern, library.read_bytes())
    if found is None:
        raise ModelError(
            f"the TensorRT provider of onnxruntime {ort.__version__} names no TensorRT runtime"
        )
    return found.group().decode("ascii")


def installed_tensorrt_version() -> str:
    """Version of the TensorRT that the provider will load, for example ``"10.13.2"``.

    Raises
    ------
    ModelError
        It is not installed; the message names the library.
    """
    from ildsdk.runtime.nvidia import tensorrt_version

    preload_tensorrt()
    return tensorrt_version(tensorrt_library())


def preload_tensorrt(folders: Sequence[Path] | None = None) -> None:
    """Load TensorRT's libraries from NVIDIA's Python packages, where there are any.

    Parameters
    ----------
    folders : sequence of Path, optional
        Where to look instead of in the packages.

    Notes
    -----
    Once loaded under its own name, the system's loader takes that one for the provider too. What
    does not load here is named by :func:`missing_for`.
    """
    with contextlib.suppress(ModelError):
        runtime = tensorrt_library()
        names = [runtime] + [
            runtime.replace("nvinfer", other) for other in ("nvinfer_plugin", "nvonnxparser")
        ]
        for folder in _tensorrt_folders() if folders is None else folders:
            for name in names:
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)


def _tensorrt_folders() -> list[Path]:
    folders: list[Path] = []
    for package in _TENSORRT_PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.extend(Path(place) for place in spec.submodule_search_locations)
    return folders


def _preload_cuda() -> None:
    """Find the CUDA and cuDNN libraries that the extra ``cuda`` puts into site-packages."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
