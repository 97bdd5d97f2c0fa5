"""What a failure of CUDA says to a user."""

from __future__ import annotations

from pathlib import Path

from ildsdk.runtime.gpu_session import _without

_REAL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:146 std::conditional_t<THRW, "
    "void> CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=ward-7 ; "
    "file=/onnxruntime_src/cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(0);"
)


def test_only_the_failure_itself_is_told() -> None:
    assert _without(RuntimeError(_REAL)) == ("CUDA failure 100: no CUDA-capable device is detected")


def test_folders_are_left_out() -> None:
    error = RuntimeError("could not deserialize engine from cache: /home/ward/engines/x.engine")
    assert _without(error, Path("/home/ward/engines")).endswith("cache: .../x.engine")
