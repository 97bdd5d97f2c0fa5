"""Making the folder of a new, empty index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk._version import __version__
from ildsdk.errors import ConfigError, IndexFileError
from ildsdk.index.array_writing import array_bytes
from ildsdk.index.locking import LOCK_NAME, writer_lock
from ildsdk.index.manifest import (
    COPY_NAME,
    HYPERPLANES_NAME,
    MANIFEST_NAME,
    MAX_EMBEDDING_SIZE,
    MAX_SEED,
    MAX_TABLES,
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
    is_synthetic: bool,
    calibration: Calibration,
    hyperplanes: npt.NDArray[np.float32],
    seed: int,
    salt: bytes,
) -> Manifest:
    """Write hyperplanes and first manifest; see ``Index.create``.

    Parameters
    ----------
    hyperplanes : ndarray
        float32 ``(n_tables, n_bits, embedding_size)``, from :func:`chosen_hyperplanes`.
    seed : int
        Put on record beside them.

    Raises
    ------
    ConfigError
        The folder holds something already.
    IndexFileError
        It cannot be written, or another writer works in it.
    ValueError
        The salt or the seed is out of range.
    """
    if len(salt) != 32:
        raise ValueError(f"salt has {len(salt)} bytes, expected 32")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}, expected 0 to 2**63")
    n_tables, n_bits, embedding_size = hyperplanes.shape
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


def chosen_hyperplanes(
    given: npt.NDArray[np.float32] | None,
    *,
    n_tables: int,
    n_bits: int,
    embedding_size: int,
    seed: int,
) -> npt.NDArray[np.float32]:
    """The hyperplanes handed in, checked; or those drawn from the seed.

    Raises
    ------
    TypeError, ValueError
        They are no finite float32 ``(1 to 4096, 1 to 64, embedding_size)``, or a count is out of
        range.
    """
    from native_hash import draw_hyperplanes
    from native_hash.signatures import checked_hyperplanes

    if not 1 <= embedding_size <= MAX_EMBEDDING_SIZE:
        raise ValueError(f"embedding_size is {embedding_size}, expected 1 to {MAX_EMBEDDING_SIZE}")
    if given is None:
        if n_tables > MAX_TABLES:
            raise ValueError(f"n_tables is {n_tables}, expected 1 to {MAX_TABLES}")
        return draw_hyperplanes(n_tables, n_bits, embedding_size, seed=seed)
    checked = checked_hyperplanes(given)
    if checked.shape[0] > MAX_TABLES or checked.shape[2] != embedding_size:
        raise ValueError(
            f"hyperplanes have shape {checked.shape}, expected (1 to {MAX_TABLES} tables, 1 to 64 "
            f"bits, embedding_size {embedding_size})"
        )
    return checked


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
