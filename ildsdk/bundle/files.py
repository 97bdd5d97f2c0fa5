"""Checking the files of a bundle against its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ildsdk.bundle.layout import (
    BACKBONE_NAME,
    CARD_NAME,
    GRAPHS_BY_REFERENCE,
    MANIFEST_NAME,
    MAX_CARD_BYTES,
    MAX_MODEL_BYTES,
    sha256_of_file,
)
from ildsdk.bundle.onnx_files import check_references
from ildsdk.errors import ModelError


def check_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Require exactly these files, with these sizes and checksums, that refer to nothing else.

    Parameters
    ----------
    files : dict
        File name to its ``bytes`` and ``sha256``, as in the manifest.

    Raises
    ------
    ModelError
        A file is missing, damaged or not named, or a graph refers to data outside the bundle.
    """
    # An ONNX graph may keep weights in files beside it, which no checksum here would cover.
    strangers = {path.name for path in folder.iterdir()} - {MANIFEST_NAME, *files}
    if strangers:
        raise ModelError(
            f"bundle folder holds {len(strangers)} file(s) its manifest does not name; expected "
            f"{', '.join([MANIFEST_NAME, *files])} and nothing else"
        )
    for file_name, expected in files.items():
        path = folder / file_name
        if not path.is_file():
            raise ModelError(f"bundle file {file_name} is missing")
        n_bytes = path.stat().st_size
        if n_bytes != expected["bytes"] or n_bytes > MAX_MODEL_BYTES:
            raise ModelError(
                f"bundle file {file_name} has {n_bytes} bytes, the manifest says "
                f"{expected['bytes']}; it is damaged or was replaced: take the bundle again"
            )
        digest = sha256_of_file(path)
        if digest != expected["sha256"]:
            raise ModelError(
                f"bundle file {file_name} has SHA-256 {digest[:12]}, the manifest says "
                f"{str(expected['sha256'])[:12]}; it is damaged or was replaced: take the bundle "
                "again"
            )
    for file_name in files:
        if file_name.endswith(".onnx"):
            weights = BACKBONE_NAME if file_name in GRAPHS_BY_REFERENCE else None
            check_references(folder / file_name, weights)
    if CARD_NAME in files:
        _check_card(folder / CARD_NAME)


def _check_card(path: Path) -> None:
    n_bytes = path.stat().st_size
    if n_bytes > MAX_CARD_BYTES:
        raise ModelError(f"{CARD_NAME} has {n_bytes} bytes, expected at most {MAX_CARD_BYTES}")
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{CARD_NAME} is not UTF-8 text") from error
