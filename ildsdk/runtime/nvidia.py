"""Facts about NVIDIA driver, GPUs and TensorRT, asked of the libraries themselves.

No package of bindings: a handful of calls through ctypes. Each function takes the library to ask,
so that a test can hand in a small one of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import sys
from collections.abc import Iterator

from ildsdk.errors import ModelError

_IS_WINDOWS = sys.platform == "win32"
DRIVER_LIBRARY = "nvcuda.dll" if _IS_WINDOWS else "libcuda.so.1"
MANAGEMENT_LIBRARY = "nvml.dll" if _IS_WINDOWS else "libnvidia-ml.so.1"

_SUCCESS = 0
# CUdevice_attribute of cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256
_VERSION_BYTES = 80


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA device.

    Attributes
    ----------
    index : int
        Number as CUDA counts (``device_id`` of the settings).
    name : str
    compute_capability : str
        For example ``"9.0"``.
    memory_bytes : int
        All of it, used or not.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaDriver:
    """The NVIDIA driver of this machine.

    Attributes
    ----------
    version : str or None
        For example ``"580.65.06"``; None where the management library does not tell.
    cuda_version : str
        Newest CUDA version the driver runs, for example ``"13.0"``.
    gpus : tuple of Gpu
    """

    version: str | None
    cuda_version: str
    gpus: tuple[Gpu, ...]

    def gpu(self, device_id: int) -> Gpu:
        """Device by its number.

        Raises
        ------
        ModelError
            There is no such device.
        """
        if device_id >= len(self.gpus):
            raise ModelError(
                f"device_id is {device_id}, and the NVIDIA driver counts {len(self.gpus)} "
                f"device(s); expected 0 to {len(self.gpus) - 1} (see ildsdk doctor)"
            )
        return self.gpus[device_id]


def read_driver(
    library: str = DRIVER_LIBRARY, management_library: str = MANAGEMENT_LIBRARY
) -> NvidiaDriver:
    """Ask the NVIDIA driver.

    Parameters
    ----------
    library, management_library : str
        Name or path of CUDA's driver library and of NVML.

    Raises
    ------
    ModelError
        There is no driver, it does not start, or it counts no device.
    """
    cuda = _load(library, "the NVIDIA driver is not installed")
    _call(cuda, "cuInit", ctypes.c_uint(0))
    cuda_version = _integer(cuda, "cuDriverGetVersion")
    count = _integer(cuda, "cuDeviceGetCount")
    if count < 1:
        raise ModelError("the NVIDIA driver counts no device; expected at least 1")
    return NvidiaDriver(
        version=_driver_version(management_library),
        cuda_version=f"{cuda_version // 1000}.{cuda_version % 1000 // 10}",
        gpus=tuple(_gpu(cuda, index) for index in range(count)),
    )


def tensorrt_version(library: str) -> str:
    """Version of a TensorRT runtime library (``libnvinfer``), for example ``"10.13.2"``.

    Raises
    ------
    ModelError
        The library does not load, or is none of TensorRT.
    """
    runtime = _load(library, "TensorRT is not installed")
    try:
        number = int(runtime.getInferLibVersion())
    except AttributeError as error:
        raise ModelError(
            f"{_base(library)} does not tell its version; is it TensorRT's?"
        ) from error
    # NvInferVersion.h: thousands and hundreds until 8, ten thousands and hundreds from 10 on.
    if number < 10_000:
        return f"{number // 1000}.{number % 1000 // 100}.{number % 100}"
    return f"{number // 10_000}.{number % 10_000 // 100}.{number % 100}"


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = _integer(cuda, "cuDeviceGet", ctypes.c_int(index))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(cuda, "cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), ctypes.c_int(device))
    memory = ctypes.c_size_t(0)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), ctypes.c_int(device))
    major, minor = (
        _integer(cuda, "cuDeviceGetAttribute", ctypes.c_int(attribute), ctypes.c_int(device))
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
    )
    return Gpu(
        index=index,
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"{major}.{minor}",
        memory_bytes=memory.value,
    )


def _driver_version(library: str) -> str | None:
    """Version as nvidia-smi prints it; a machine may have the driver without NVML."""
    with contextlib.suppress(ModelError):
        management = _load(library, "")
        with _management_session(management):
            text = ctypes.create_string_buffer(_VERSION_BYTES)
            _call(management, "nvmlSystemGetDriverVersion", text, ctypes.c_uint(_VERSION_BYTES))
            return text.value.decode("ascii", "replace")
    return None


@contextlib.contextmanager
def _management_session(management: ctypes.CDLL) -> Iterator[None]:
    _call(management, "nvmlInit_v2")
    try:
        yield
    finally:
        _call(management, "nvmlShutdown")


def _integer(library: ctypes.CDLL, function: str, *arguments: ctypes.c_int) -> int:
    """Call a function whose first parameter is where it puts an int."""
    value = ctypes.c_int(0)
    _call(library, function, ctypes.byref(value), *arguments)
    return value.value


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    try:
        code = int(getattr(library, function)(*arguments))
    except AttributeError as error:
        raise ModelError(
            f"the NVIDIA library lacks {function}: it is too old or none of NVIDIA's"
        ) from error
    if code != _SUCCESS:
        raise ModelError(
            f"the NVIDIA driver refuses {function} with error {code} (100: no device, 803: "
            "driver and libraries do not fit); see nvidia-smi"
        )


def _load(library: str, absent: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(library)
    except OSError as error:
        raise ModelError(f"{_base(library)} does not load: {absent}") from error


def _base(library: str) -> str:
    return library.replace("\\", "/").rsplit("/", 1)[-1]
