"""What a figure depends on: processor, threads, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

OUR_PACKAGES = ("ildsdk", "numpy", "numba", "onnxruntime-gpu", "onnxruntime", "pydicom")
RIVAL_PACKAGES = (
    "torch",
    "scikit-learn",
    "scikit-image",
    "scipy",
    "pyradiomics-bhklab",
    "faiss-cpu",
    "hnswlib",
    "pillow",
)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")


def describe_machine(n_threads: int) -> dict[str, object]:
    """Facts for the results file: plain values, no host or user names.

    Parameters
    ----------
    n_threads : int
        The budget of ours and of the rivals.
    """
    facts = _cpuinfo()
    model = facts.get("model name", platform.processor() or platform.machine())
    numbers = [facts[key] for key in ("cpu family", "model") if key in facts]
    if numbers:  # virtual machines often say no more than the maker's name
        model += f" (family {', model '.join(numbers)})"
    flags = set(facts.get("flags", "").split())
    return {
        "cpu": model,
        "vector_extensions": [flag for flag in _FLAGS if flag in flags],
        "n_cpus": os.cpu_count(),
        "threads": n_threads,
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions((*OUR_PACKAGES, *RIVAL_PACKAGES)),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> dict[str, str]:
    """Facts of the last processor listed, empty where there is no such list."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
