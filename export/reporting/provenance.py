"""How the report was made: code, versions, settings, times."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.reporting.reading import Experiment
from ildsdk import __version__

_PACKAGES = ("numpy", "numba", "matplotlib", "scikit-learn", "jinja2")


def versions() -> dict[str, str]:
    """Versions of what the figures and pictures were made with."""
    return {
        "python": platform.python_version(),
        "ildsdk": __version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def training_seconds(experiment: Experiment) -> dict[str, dict[str, float | None]]:
    """Seconds of each system and fold as its ``result.json`` says."""
    found: dict[str, dict[str, float | None]] = {}
    for (system, fold), result in sorted(experiment.results.items()):
        seconds = result.get("seconds")
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        found.setdefault(system, {})[str(fold)] = float(seconds) if is_number else None
    return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested settings as one level of dotted names."""
    found: dict[str, object] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(flat(value, f"{name}."))
        else:
            found[name] = value
    return found


def without_folders(value: Any) -> Any:
    """Settings with absolute paths cut to their last part; a report travels."""
    if isinstance(value, Mapping):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
