"""Making the folder of a new, empty index."""

from __future__ import annotations

from pathlib import Path

from ildsdk._version import __version__
from ildsdk.errors import ConfigError, IndexFileError
from ildsdk.index.array_writing import array_bytes
from ildsdk.index.locking import LOCK_NAME, writer_lock
from ildsdk.index.manifest import (
    COPY_NAME,
    HYPERPLANES_NAME,
    MANIFEST_NAME,
    MAX_EMBEDDING_SIZE,
    Calibration,
    Hashing,
    Manifest,
    is_score,
)
from ildsdk.index.writing import (
    all_or_nothing,
    delete_leftovers,
    leftovers,
    write_bytes,
    write_manifest,
)


def create_folder(
    folder: Path,
    *,
    name: str,
    bundle_hash: str,
    embedding_size: int,
    is_synthetic: bool,
    calibration: Calibration,
    n_tables: int,
    n_bits: int,
    seed: int,
    salt: bytes,
) -> Manifest:
    """Write hyperplanes and first manifest; see ``Index.create``.

    Raises
    ------
    ConfigError
        The folder holds something already.
    IndexFileError
        It cannot be written, or another writer works in it.
    ValueError
        A size, count or salt is out of range.
    """
    from native_hash import draw_hyperplanes

    if not 1 <= embedding_size <= MAX_EMBEDDING_SIZE:
        raise ValueError(f"embedding_size is {embedding_size}, expected 1 to {MAX_EMBEDDING_SIZE}")
    if len(salt) != 32:
        raise ValueError(f"salt has {len(salt)} bytes, expected 32")
    hyperplanes = draw_hyperplanes(n_tables, n_bits, embedding_size, seed=seed)
    _make_folder(folder)
    with writer_lock(folder), all_or_nothing(folder, [HYPERPLANES_NAME]):
        _check_empty(folder)
        delete_leftovers(folder, None)
        entry = write_bytes(folder / HYPERPLANES_NAME, array_bytes({"hyperplanes": hyperplanes}))
        manifest = Manifest(
            revision=1,
            name=name,
            created_with=__version__,
            bundle_hash=bundle_hash,
            embedding_size=embedding_size,
            is_synthetic=is_synthetic,
            salt=salt,
            hashing=Hashing(
                n_tables=n_tables, n_bits=n_bits, n_probes=1, seed=seed, hyperplanes=entry
            ),
            calibration=calibration,
        )
        write_manifest(folder, manifest)
    return manifest


def checked_calibration(no_match_threshold: float | None, how: str) -> Calibration:
    """Calibration record.

    Raises
    ------
    ValueError
        The threshold is no number from -1 to 1.
    """
    if no_match_threshold is not None:
        no_match_threshold = float(no_match_threshold)
        if not is_score(no_match_threshold):
            raise ValueError(f"no_match_threshold is {no_match_threshold}, expected -1 to 1")
    return Calibration(no_match_threshold=no_match_threshold, how=how)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexFileError(
            f"index folder {folder.name!r} cannot be made: {error.strerror}"
        ) from error
    _check_empty(folder)


def _check_empty(folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists() or (folder / COPY_NAME).exists():
        raise ConfigError(
            f"{folder.name!r} holds an index already: add to it, or name a new folder"
        )
    ours = {*leftovers(folder, None), LOCK_NAME}
    n_foreign = sum(path.name not in ours for path in folder.iterdir())
    if n_foreign:
        raise ConfigError(
            f"{folder.name!r} holds {n_foreign} files that are no index: name a new or empty folder"
        )
