"""Driver facts: the calls are made of small libraries that answer as NVIDIA's do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ildsdk.errors import ModelError
from ildsdk.runtime.nvidia import Gpu, read_driver, tensorrt_version
from tests.nvidia_factory import compiled, fake_cuda, fake_nvml, fake_tensorrt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="compiles for Linux and macOS")


def test_driver_and_devices(tmp_path: Path) -> None:
    driver = read_driver(fake_cuda(tmp_path), fake_nvml(tmp_path))
    assert (driver.version, driver.cuda_version) == ("580.65.06", "13.0")
    assert driver.gpus == (
        Gpu(index=0, name="Test GPU A", compute_capability="9.0", memory_bytes=(8 << 30) + 70),
        Gpu(index=1, name="Test GPU B", compute_capability="8.6", memory_bytes=(8 << 30) + 71),
    )
    assert driver.gpu(1).name == "Test GPU B"
    with pytest.raises(ModelError, match="device_id is 2, and the NVIDIA driver counts 2"):
        driver.gpu(2)


def test_without_management_library_the_version_is_unknown(tmp_path: Path) -> None:
    assert read_driver(fake_cuda(tmp_path), str(tmp_path / "absent.so")).version is None


@pytest.mark.parametrize(
    ("n_devices", "init_code", "message"),
    [(0, 0, "counts no device"), (1, 100, "refuses cuInit with error 100")],
)
def test_no_device(tmp_path: Path, n_devices: int, init_code: int, message: str) -> None:
    library = fake_cuda(tmp_path, n_devices=n_devices, init_code=init_code)
    with pytest.raises(ModelError, match=message):
        read_driver(library, "absent.so")


def test_absent_and_foreign_libraries(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"libabsent.so.1 does not load: the NVIDIA driver") as got:
        read_driver(str(tmp_path / "libabsent.so.1"))
    assert str(tmp_path) not in str(got.value)
    foreign = compiled(tmp_path, "libforeign.so", "int nothing(void) { return 0; }\n")
    with pytest.raises(ModelError, match="lacks cuInit"):
        read_driver(foreign)
    with pytest.raises(ModelError, match=r"libforeign.so does not tell its version"):
        tensorrt_version(foreign)


@pytest.mark.parametrize(
    ("number", "version"), [(8601, "8.6.1"), (101302, "10.13.2"), (110400, "11.4.0")]
)
def test_tensorrt_version(tmp_path: Path, number: int, version: str) -> None:
    assert tensorrt_version(fake_tensorrt(tmp_path, number)) == version


@pytest.mark.gpu
def test_this_machine() -> None:
    driver = read_driver()
    assert driver.gpus
    assert all(float(gpu.compute_capability) >= 5 for gpu in driver.gpus)
