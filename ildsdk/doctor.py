"""What works on this installation: kernels, networks and data are run, not looked up."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

from ildsdk import defaults
from ildsdk._version import __version__
from ildsdk.check import Check, tried
from ildsdk.provider_checks import gpu_facts, provider_trials

_DISTRIBUTIONS = (
    "numpy", "numba", "scipy", "pydicom", "onnxruntime-gpu", "onnxruntime", "safetensors",
    "python-gdcm", "pyjpegls", "pylibjpeg-openjpeg", "pillow", "jinja2", "click",
    "pyradiomics-bhklab", "pyradiomics",
)  # fmt: skip


def run_checks(engine_folder: Path | None = None) -> list[Check]:
    """Try versions, decoders, execution providers, kernel cache, bundle and index.

    Parameters
    ----------
    engine_folder : Path or None
        Where TensorRT engines lie.
    """
    return [
        Check(area="version", name="ildsdk", status="ok", detail=__version__),
        Check(area="version", name="python", status="ok", detail=platform.python_version()),
        *_versions(),
        _one_onnxruntime(),
        _threads(),
        *_decoders(),
        *gpu_facts(),
        *provider_trials(engine_folder),
        tried("kernels", "numba cache", _kernel_cache),
        tried("radiomics", "pyradiomics engine", _pyradiomics, absent="missing"),
        tried("data", "embedded bundle", _bundle),
        tried("data", "embedded index", _index),
        tried("answer", "slices of the demo study", _demo_slice),
    ]


def _versions() -> list[Check]:
    checks = []
    for name in _DISTRIBUTIONS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        checks.append(Check(area="version", name=name, status="ok", detail=version))
    return checks


def _one_onnxruntime() -> Check:
    names = [name for name in ("onnxruntime-gpu", "onnxruntime") if _is_installed(name)]
    if len(names) == 2:
        return Check(
            area="version",
            name="onnxruntime builds",
            status="failed",
            detail="onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "uninstall both, then install ildsdk again",
        )
    return Check(area="version", name="onnxruntime builds", status="ok", detail=", ".join(names))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _threads() -> Check:
    from ildsdk.runtime.threads import available_cpus

    return Check(area="threads", name="budget", status="ok", detail=str(available_cpus()))


def _decoders() -> list[Check]:
    from ildsdk.dicom import broken_packages, decoder_status

    broken = [
        Check(
            area="decoder",
            name=package,
            status="failed",
            detail="installed, but it cannot be imported: "
            f"python -m pip install --force-reinstall {package}",
        )
        for package in broken_packages()
    ]
    return broken + [
        Check(
            area="decoder",
            name=name,
            status="ok" if plugins else "missing",
            detail=", ".join(plugins) if plugins else "no permissively licensed decoder installed",
        )
        for name, plugins in decoder_status().items()
    ]


def _kernel_cache() -> str:
    from native_hash import kernel_cache_is_used, warmup

    warmup()
    if kernel_cache_is_used():
        return "kernels run; their compiled code is kept between processes"
    return "kernels run, but no folder for compiled code is writable: each process compiles anew"


def _pyradiomics() -> str:
    from ildsdk.radiomics import RadiomicsExtractor

    RadiomicsExtractor(engine="pyradiomics")
    return "installed"


def _bundle() -> str:
    from ildsdk.bundle import Bundle

    bundle = Bundle.open(defaults.bundle_path())
    return f"{bundle.name} {bundle.bundle_hash[:12]}, checksums right"


def _index() -> str:
    from ildsdk.errors import IndexFileError
    from ildsdk.index import verify_index

    report = verify_index(defaults.index_path())
    if report.problems:
        raise IndexFileError("; ".join(report.problems))
    return f"{report.n_items} items, checksums right"


def _demo_slice() -> str:
    from ildsdk.retriever import Retriever
    from ildsdk.settings import QuerySettings

    with Retriever.open() as retriever:
        result = retriever.query(defaults.demo_study_path(), QuerySettings(every_mm=50))
    return f"answered on {result.provenance.provider}: decoding, mask, radiomics, networks, search"
