"""Tiny shared libraries that answer as NVIDIA's do, compiled for a test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_CUDA = r"""
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return flags ? 1 : INIT_CODE; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = N_DEVICES; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 70 + ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, device == 70 ? "Test GPU A" : "Test GPU B", length);
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  *bytes = ((size_t)8 << 30) + device;
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (attribute == 75) { *value = device == 70 ? 9 : 8; return 0; }
  if (attribute == 76) { *value = device == 70 ? 0 : 6; return 0; }
  return 1;
}
"""
_NVML = r"""
#include <string.h>
static int is_open = 0;
int nvmlInit_v2(void) { is_open = 1; return 0; }
int nvmlShutdown(void) { is_open = 0; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  if (!is_open) return 1;
  strncpy(text, "580.65.06", length);
  return 0;
}
"""
_TENSORRT = "int getInferLibVersion(void) { return VERSION; }\n"


def compiled(folder: Path, name: str, source: str, **defines: int) -> str:
    """Path of a shared library made of C source; the test is skipped without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / f"{name}.c").write_text(source)
    library = folder / name
    flags = [f"-D{key}={value}" for key, value in defines.items()]
    subprocess.run(
        [compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(folder / f"{name}.c")],
        check=True,
    )
    return str(library)


def fake_cuda(folder: Path, *, n_devices: int = 2, init_code: int = 0) -> str:
    return compiled(folder, "libcuda.so.1", _CUDA, N_DEVICES=n_devices, INIT_CODE=init_code)


def fake_nvml(folder: Path) -> str:
    return compiled(folder, "libnvidia-ml.so.1", _NVML)


def fake_tensorrt(folder: Path, version: int = 101302) -> str:
    return compiled(folder, "libnvinfer.so.10", _TENSORRT, VERSION=version)
