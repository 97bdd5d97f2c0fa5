"""Where the embedded default bundle, index and demo study lie."""

from __future__ import annotations

from pathlib import Path

from ildsdk.errors import ConfigError

_DATA = Path(__file__).parent / "data"


def bundle_path() -> Path:
    """Folder of the embedded bundle (trained on phantom CT)."""
    return _existing("bundle", "pass a bundle folder of your own")


def index_path() -> Path:
    """Folder of the embedded index (phantom cases)."""
    return _existing("index", "pass an index folder of your own")


def demo_study_path() -> Path:
    """Zip with one phantom study that is not in the embedded index."""
    return _existing("demo-study.zip", "query a study of your own")


def _existing(name: str, remedy: str) -> Path:
    path = _DATA / name
    if not path.exists():
        raise ConfigError(
            f"this installation of ildsdk carries no embedded {name}; reinstall it, or {remedy}"
        )
    return path
