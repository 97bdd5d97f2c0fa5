"""What works on this installation: kernels, networks and data are run, not looked up."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Callable
from typing import Literal, get_args

from ildsdk import defaults
from ildsdk._version import __version__
from ildsdk.errors import IldError
from ildsdk.settings import Provider

Status = Literal["ok", "missing", "failed"]

_DISTRIBUTIONS = (
    "numpy", "numba", "scipy", "pydicom", "onnxruntime-gpu", "onnxruntime", "safetensors",
    "python-gdcm", "pyjpegls", "pylibjpeg-openjpeg", "pillow", "jinja2", "click",
    "pyradiomics-bhklab", "pyradiomics",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    area, name : str
        For example ``"provider"``, ``"cuda"``.
    status : {"ok", "missing", "failed"}
        ``"missing"``: not installed, and not needed for what is installed; ``"failed"``: must
        work here and does not.
    detail : str
    """

    area: str
    name: str
    status: Status
    detail: str


def run_checks() -> list[Check]:
    """Try versions, decoders, execution providers, kernel cache, bundle and index."""
    return [
        Check(area="version", name="ildsdk", status="ok", detail=__version__),
        Check(area="version", name="python", status="ok", detail=platform.python_version()),
        *_versions(),
        _one_onnxruntime(),
        _threads(),
        *_decoders(),
        *_providers(),
        _tried("kernels", "numba cache", _kernel_cache),
        _tried("radiomics", "pyradiomics engine", _pyradiomics, absent="missing"),
        _tried("data", "embedded bundle", _bundle),
        _tried("data", "embedded index", _index),
        _tried("answer", "slices of the demo study", _demo_slice),
    ]


def _tried(area: str, name: str, trial: Callable[[], str], absent: Status = "failed") -> Check:
    try:
        return Check(area=area, name=name, status="ok", detail=trial())
    except IldError as error:
        return Check(area=area, name=name, status=absent, detail=str(error))
    except Exception as error:  # a broken numba or onnxruntime is what this command is for
        return Check(area=area, name=name, status="failed", detail=type(error).__name__)


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
    from ildsdk.dicom import decoder_status

    return [
        Check(
            area="decoder",
            name=name,
            status="ok" if plugins else "missing",
            detail=", ".join(plugins) if plugins else "no permissively licensed decoder installed",
        )
        for name, plugins in decoder_status().items()
    ]


def _providers() -> list[Check]:
    return [
        _tried(
            "provider",
            provider,
            functools.partial(_run_on, provider),
            absent="failed" if provider == "cpu" else "missing",
        )
        for provider in get_args(Provider)
        if provider != "auto"
    ]


def _run_on(provider: Provider) -> str:
    from ildsdk.bundle import Bundle
    from ildsdk.encoder import Encoder
    from ildsdk.settings import RuntimeSettings

    bundle = Bundle.open(defaults.bundle_path())
    Encoder(bundle, RuntimeSettings(provider=provider)).self_test()
    return "embedded bundle runs"


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
