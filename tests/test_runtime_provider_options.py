"""Provider options: records that check themselves, and names that ONNX Runtime really knows."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from ildsdk.runtime.provider_libraries import missing_for, provider_library
from ildsdk.runtime.provider_options import CudaOptions, ShapeProfile, TensorrtOptions
from tests.nvidia_factory import compiled

# Option names and values lie close together among the strings of the library.
_WINDOW_BYTES = 1 << 17

PROFILE = ShapeProfile.of_batches({"image": ["batch", 1, 64, 64]}, optimum=1, maximum=4)


def tensorrt_options(**changes: object) -> TensorrtOptions:
    values = {
        "precision": "fp16",
        "profile": PROFILE,
        "engine_folder": Path("/engines"),
        "engine_prefix": "ildsdk",
        "timing_folder": Path("/timings"),
        "device_id": 3,
        "cuda_graph": True,
        "detailed_build_log": True,
    }
    return TensorrtOptions(**{**values, **changes})


def test_cuda_options() -> None:
    name, options = CudaOptions(device_id=2, memory_limit_bytes=1 << 31, cuda_graph=True).to_ort()
    assert name == "CUDAExecutionProvider"
    assert options == {
        "device_id": "2",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1",
        "use_tf32": "0",
        "gpu_mem_limit": "2147483648",
    }
    assert "gpu_mem_limit" not in CudaOptions().to_ort()[1]


def test_tensorrt_options() -> None:
    name, options = tensorrt_options().to_ort()
    assert name == "TensorrtExecutionProvider"
    assert options["trt_profile_min_shapes"] == "image:1x1x64x64"
    assert options["trt_profile_opt_shapes"] == "image:1x1x64x64"
    assert options["trt_profile_max_shapes"] == "image:4x1x64x64"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("True", "False")
    assert options["trt_engine_hw_compatible"] == "False"
    assert (options["trt_engine_cache_path"], options["device_id"]) == ("/engines", "3")
    int8 = tensorrt_options(precision="int8", timing_folder=None).to_ort()[1]
    assert (int8["trt_fp16_enable"], int8["trt_int8_enable"]) == ("False", "True")
    assert int8["trt_timing_cache_enable"] == "False"
    assert "trt_timing_cache_path" not in int8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device_id": -1}, "device_id is -1"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0"),
        ({"builder_level": 6}, "expected 0 to 5"),
    ],
)
def test_tensorrt_options_check_themselves(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensorrt_options(**change)


def test_cuda_options_check_themselves() -> None:
    with pytest.raises(ValueError, match="memory_limit_bytes is 0"):
        CudaOptions(memory_limit_bytes=0)
    with pytest.raises(ValueError, match="device_id is -2"):
        CudaOptions(device_id=-2)


def test_profiles_check_themselves() -> None:
    two = ShapeProfile.of_batches(
        {"deep": ["batch", 8], "radiomics": ["batch", 102]}, optimum=2, maximum=2
    )
    assert two.texts()["trt_profile_opt_shapes"] == "deep:2x8,radiomics:2x102"
    assert ShapeProfile.from_dict(two.to_dict()) == two
    with pytest.raises(ValueError, match="expected one free axis"):
        ShapeProfile.of_batches({"image": ["batch", 1, "height", 64]}, optimum=1, maximum=1)
    with pytest.raises(ValueError, match="min <= opt <= max"):
        ShapeProfile.of_batches({"image": ["batch", 1]}, optimum=3, maximum=2)
    with pytest.raises(ValueError, match="cannot stand in a profile"):
        ShapeProfile.of_batches({"a:b": ["batch", 1]}, optimum=1, maximum=1)
    with pytest.raises(ValueError, match="different inputs"):
        ShapeProfile(minimum={"a": (1,)}, optimum={"a": (1,)}, maximum={"b": (1,)})


def add_provider(name: str, options: dict[str, str]) -> str:
    """What ONNX Runtime says to options; without a device it always says something."""
    try:
        ort.SessionOptions().add_provider(name, options)
    except Exception as error:  # onnxruntime raises its own unrelated exception classes
        return str(error)
    return "added"


def needs_tensorrt_build() -> None:
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime without TensorRT")
    if missing_for("tensorrt") is None:
        pytest.skip("TensorRT loads here: the tests marked gpu open real sessions")


def test_onnxruntime_takes_every_tensorrt_option() -> None:
    """The real parser reads the options before it looks for TensorRT's libraries."""
    needs_tensorrt_build()
    for precision in ("fp32", "fp16", "int8"):
        name, options = tensorrt_options(precision=precision).to_ort()
        assert "Provider configuration is not supported" in add_provider(name, options)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"trt_engine_cache": "True"}, "Invalid TensorRT EP option: trt_engine_cache"),
        ({"trt_fp16_enable": "1"}, "should be 'True' or 'False'"),
        ({"trt_engine_cache_prefix": ""}, "should be a string"),
        ({"trt_builder_optimization_level": "high"}, "stoi"),
    ],
)
def test_that_parser_refuses_wrong_options(options: dict[str, str], answer: str) -> None:
    needs_tensorrt_build()
    assert answer in add_provider("TensorrtExecutionProvider", options)


def test_the_parser_of_cuda_takes_every_option(tmp_path: Path) -> None:
    """Where CUDA's libraries are installed, a driver library without a device is enough for it."""
    stub = compiled(tmp_path, "libcuda.so.1", "int cuTensorMapEncodeTiled(void) { return 1; }\n")
    done = subprocess.run(
        [sys.executable, "-c", _PARSE],
        env=os.environ | {"LD_LIBRARY_PATH": str(Path(stub).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    if not done.stdout.startswith("loads"):
        pytest.skip(f"CUDA libraries are not installed: {done.stdout.strip()}")
    assert done.stdout.split("\n")[1:4] == ["added", "unknown", "wrong value"]


_PARSE = """
import onnxruntime as ort
from ildsdk.runtime.provider_libraries import missing_for
from ildsdk.runtime.provider_options import CudaOptions

print(missing_for("cuda") or "loads")
name, options = CudaOptions(memory_limit_bytes=1 << 30, cuda_graph=True).to_ort()
del options["device_id"]  # the parser counts the devices

def answer(options):
    try:
        ort.SessionOptions().add_provider(name, options)
    except Exception as error:
        return str(error)
    return "added"

print(answer(options))
if 'Unknown provider option: "other"' in answer({**options, "other": "1"}):
    print("unknown")
if "Failed to parse" in answer({**options, "use_tf32": "maybe"}):
    print("wrong value")
"""


def test_cuda_options_stand_in_the_provider_library() -> None:
    """Its parser needs CUDA to load; the names it knows are strings of the library."""
    library = provider_library("cuda")
    if not library.is_file():
        pytest.skip("onnxruntime without CUDA")
    options = CudaOptions(memory_limit_bytes=1).to_ort()[1]
    names = [*options, options["arena_extend_strategy"], options["cudnn_conv_algo_search"]]
    with library.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
        place = m.find(b"\0arena_extend_strategy\0")
        nearby = m[max(0, place - _WINDOW_BYTES) : place + _WINDOW_BYTES]
    assert [name for name in names if f"\0{name}\0".encode() not in nearby] == []
    assert b"\0no_such_option\0" not in nearby
