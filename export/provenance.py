"""Where a model comes from: hashes of its weights and data, commit, versions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.dataset import SliceSet
from ildsdk._version import __version__
from ildsdk.settings import MethodSettings

_ROWS_AT_ONCE = 64


def model_hash(trained: Any, method: MethodSettings) -> str:
    """SHA-256 (hex) over method, label names, GeM p, scaler and the float32 weights.

    It stands in the metadata of each exported graph and in the bundle's provenance, so that a
    loose file can be traced to its bundle. The bundle hash itself cannot: it covers these files,
    and no file can hold a hash of itself.

    Parameters
    ----------
    trained : TrainedModel
    method : MethodSettings
    """
    digest = hashlib.sha256()
    about = {
        "method": dataclasses.asdict(method),
        "labels": list(trained.label_names),
        "gem_p": trained.backbone.gem.p,
        "scaler": trained.scaler.to_dict(),
    }
    _add_json(digest, about)
    for part in ("backbone", "fusion"):
        for name, value in sorted(getattr(trained, part).state_dict().items()):
            if value.is_floating_point():  # counters of batch norm change no answer
                array = value.detach().cpu().numpy().astype("<f4")
                _add_json(digest, [part, name, list(array.shape)])
                digest.update(array.tobytes())
    return digest.hexdigest()


def data_hash(slices: SliceSet) -> str:
    """SHA-256 (hex) over the images, radiomics and table of a training set."""
    digest = hashlib.sha256()
    _add_json(digest, [str(slices.images.dtype), list(slices.images.shape)])
    for start in range(0, len(slices), _ROWS_AT_ONCE):  # the images may not fit in memory
        rows = slices.images[start : start + _ROWS_AT_ONCE]
        digest.update(np.ascontiguousarray(rows).tobytes())
    _add_json(digest, [str(slices.radiomics.dtype), list(slices.radiomics.shape)])
    digest.update(np.ascontiguousarray(slices.radiomics).tobytes())
    _add_json(
        digest,
        {
            "labels": slices.labels,
            "case_ids": slices.case_ids,
            "position_mm": slices.position_mm,
            "method": dataclasses.asdict(slices.method),
        },
    )
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes."""
    packages = ("torch", "onnx", "numpy")
    found = {"python": platform.python_version(), "ildsdk": __version__}
    found |= {name: version(name) for name in packages}
    # By its module: its distribution has another name in the build for GPUs.
    import onnxruntime

    return {**found, "onnxruntime": onnxruntime.__version__}


def git_commit() -> str | None:
    """Commit of this checkout, with ``+changes`` where it has been edited; None outside one."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _add_json(digest: Any, value: Any) -> None:
    digest.update(json.dumps(value, sort_keys=True).encode())
