"""Put a finished default bundle, its index and a demo study into the package."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import pydicom
from pydicom.uid import JPEGLSLossless

from export.default_bundle import SHIPPED_NAME
from ildsdk.errors import ConfigError
from ildsdk.ingest import CaseRow, read_cases_csv

MAX_BYTES = 50_000_000
DEMO_LABEL = "IPF-ILD"


def install_defaults(finished: Path, archive: Path, data: Path) -> dict[str, int]:
    """Copy ``bundle`` and ``index`` of a finished run and zip one held-out case as demo study.

    The demo study is the first held-out case of class ``DEMO_LABEL`` in the order of case ids:
    chosen by rule, not by how well it is answered.

    Parameters
    ----------
    finished : Path
        Folder of one input size in the work folder of ``default-bundle``.
    archive : Path
        Phantom archive in that work folder.
    data : Path
        The package's data folder; what stands there is replaced.

    Returns
    -------
    dict
        Bytes by name.

    Raises
    ------
    ConfigError
        The run is not finished, or the parts are larger than ``MAX_BYTES`` together.
    """
    from ildsdk.bundle import Bundle

    sources = {"bundle": finished / SHIPPED_NAME, "index": finished / "index"}
    for name, source in sources.items():
        if not source.is_dir():
            raise ConfigError(
                f"{finished.name!r} has no {source.name} to install as {name}; finish "
                "default-bundle first"
            )
    held_out = Bundle.open(sources["bundle"]).provenance["training"]["held_out_cases"]
    cases = [
        case
        for case in read_cases_csv(archive / "cases.csv")
        if case.case_id in held_out and case.label == DEMO_LABEL
    ]
    demo = _zip_of(min(cases, key=lambda case: case.case_id))
    sizes = {
        name: sum(path.stat().st_size for path in source.iterdir())
        for name, source in sources.items()
    }
    sizes["demo-study.zip"] = len(demo)
    if sum(sizes.values()) > MAX_BYTES:
        raise ConfigError(
            f"bundle, index and demo study have {sum(sizes.values())} bytes, {MAX_BYTES} at most; "
            "make it of fewer cases"
        )
    data.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        shutil.rmtree(data / name, ignore_errors=True)
        shutil.copytree(source, data / name)
    (data / "demo-study.zip").write_bytes(demo)
    return sizes


def _zip_of(case: CaseRow) -> bytes:
    """One case as zip of losslessly compressed DICOM; the same input gives the same bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for path in sorted(case.path.iterdir()):
            dataset = pydicom.dcmread(path)
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
            buffer = io.BytesIO()
            dataset.save_as(buffer)
            target.writestr(zipfile.ZipInfo(f"demo-study/{path.name}"), buffer.getvalue())
    return archive.getvalue()
