"""The manifest: what belongs to an index, parsed strictly (docs/index-format.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ildsdk.errors import IndexFileError

SCHEMA = "ildsdk.index/1"
MANIFEST_NAME = "manifest.json"
HYPERPLANES_NAME = "hyperplanes.safetensors"
ARRAYS_NAME = re.compile(r"arrays-[0-9]{6,12}\.safetensors", re.ASCII)
ITEMS_NAME = re.compile(r"items-[0-9]{6,12}\.sqlite", re.ASCII)
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_EMBEDDING_SIZE = 65_536
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SCHEMA = re.compile(r"ildsdk\.index/([0-9]{1,6})", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One immutable file of the index: plain name, size, SHA-256 in hex."""

    file: str
    n_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hashing:
    """Settings of the hash tables and the file of their hyperplanes."""

    n_tables: int
    n_bits: int
    n_probes: int
    seed: int
    hyperplanes: FileEntry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Best score below which nothing in the index is similar, and how it was found."""

    no_match_threshold: float | None
    how: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEntry:
    """Rows added together: their arrays and their items."""

    n_items: int
    arrays: FileEntry
    items: FileEntry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One complete state of an index; fields as in docs/index-format.md."""

    revision: int
    name: str
    created_with: str
    bundle_hash: str
    embedding_size: int
    is_synthetic: bool
    salt: bytes = dataclasses.field(repr=False)
    hashing: Hashing
    calibration: Calibration
    segments: tuple[SegmentEntry, ...] = ()

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return sum(segment.n_items for segment in self.segments)

    def files(self) -> list[FileEntry]:
        """Every file but the manifest."""
        entries = [self.hashing.hyperplanes]
        for segment in self.segments:
            entries += [segment.arrays, segment.items]
        return entries

    def content_hash(self) -> str:
        """SHA-256 (hex) over what search results depend on: bundle, hashing, segments."""
        content = {
            "schema": SCHEMA,
            "bundle_hash": self.bundle_hash,
            "embedding_size": self.embedding_size,
            "hashing": dataclasses.asdict(self.hashing),
            "segments": [
                [segment.n_items, segment.arrays.sha256, segment.items.sha256]
                for segment in self.segments
            ],
        }
        return _checksum(content)

    def to_bytes(self) -> bytes:
        """The manifest file."""
        fields = {"schema": SCHEMA, **dataclasses.asdict(self), "salt": self.salt.hex()}
        fields["checksum"] = _checksum(fields)
        return (json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of an index folder; no other file is touched.

    Raises
    ------
    IndexFileError
        Missing, too large, damaged, of a newer version, or not an ildsdk index.
    """
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexFileError(
            f"no index found in {folder.name!r}: {MANIFEST_NAME} is missing"
        ) from error
    except OSError as error:
        raise IndexFileError(
            f"{MANIFEST_NAME} of {folder.name!r} cannot be read: {error.strerror}"
        ) from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise IndexFileError(f"{MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    return parse_manifest(content)


def parse_manifest(content: bytes) -> Manifest:
    """Check the bytes of a manifest; see :func:`read_manifest`."""
    try:
        fields = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged("is not JSON") from error
    if not isinstance(fields, dict):
        raise _damaged("is not a JSON object")
    schema = fields.pop("schema", None)
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise IndexFileError(f"{MANIFEST_NAME} is not of an ildsdk index (no known schema)")
    if int(match[1]) > 1:
        raise IndexFileError(
            f"index was written by a newer ildsdk: it has schema {schema}, "
            f"this ildsdk reads {SCHEMA}; upgrade ildsdk"
        )
    if schema != SCHEMA:
        raise _damaged(f"has schema {schema}, expected {SCHEMA}")
    checksum = fields.pop("checksum", None)
    if checksum != _checksum({"schema": SCHEMA, **fields}):
        raise _damaged("does not match its checksum")
    return _manifest(fields)


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    _check_keys(fields, Manifest, "manifest")
    hashing, calibration = fields["hashing"], fields["calibration"]
    _check_keys(hashing, Hashing, "hashing")
    _check_keys(calibration, Calibration, "calibration")
    threshold = calibration["no_match_threshold"]
    if threshold is not None and not is_score(threshold):
        raise _damaged("has a no_match_threshold outside [-1, 1]")
    if not isinstance(fields["segments"], list):
        raise _damaged("has segments that are no array")
    segments = tuple(_segment(segment) for segment in fields["segments"])
    names = [entry.file for segment in segments for entry in (segment.arrays, segment.items)]
    if len(set(names)) != len(names):
        raise _damaged("names a file twice")
    if type(fields["is_synthetic"]) is not bool:
        raise _damaged("has an is_synthetic that is no boolean")
    return Manifest(
        revision=_integer(fields, "revision", 1, 10**12 - 1),
        name=_text(fields, "name"),
        created_with=_text(fields, "created_with"),
        bundle_hash=_text(fields, "bundle_hash"),
        embedding_size=_integer(fields, "embedding_size", 1, MAX_EMBEDDING_SIZE),
        is_synthetic=fields["is_synthetic"],
        salt=bytes.fromhex(_hex(fields, "salt")),
        hashing=Hashing(
            n_tables=_integer(hashing, "n_tables", 1, 4096),
            n_bits=_integer(hashing, "n_bits", 1, 64),
            n_probes=_integer(hashing, "n_probes", 1, 1),
            seed=_integer(hashing, "seed", 0, 2**63),
            hyperplanes=_file(hashing["hyperplanes"], HYPERPLANES_NAME.__eq__),
        ),
        calibration=Calibration(no_match_threshold=threshold, how=_text(calibration, "how")),
        segments=segments,
    )


def _segment(fields: Any) -> SegmentEntry:
    _check_keys(fields, SegmentEntry, "segment")
    return SegmentEntry(
        n_items=_integer(fields, "n_items", 1, 2**40),
        arrays=_file(fields["arrays"], ARRAYS_NAME.fullmatch),
        items=_file(fields["items"], ITEMS_NAME.fullmatch),
    )


def _file(fields: Any, is_allowed: Callable[[str], object]) -> FileEntry:
    _check_keys(fields, FileEntry, "file entry")
    name = _text(fields, "file")
    if not is_allowed(name):
        raise _damaged("names a file that is no plain name of an index file")
    return FileEntry(
        file=name, n_bytes=_integer(fields, "n_bytes", 0, 2**50), sha256=_hex(fields, "sha256")
    )


def _check_keys(fields: Any, record: type, what: str) -> None:
    if not isinstance(fields, dict):
        raise _damaged(f"has a {what} that is no object")
    expected = {field.name for field in dataclasses.fields(record)}
    if set(fields) != expected:
        odd = ", ".join(sorted(set(fields) ^ expected)[:5])
        raise _damaged(f"has missing or unknown keys in its {what}: {odd[:200]}")


def _integer(fields: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = fields[key]
    if type(value) is not int or not low <= value <= high:
        raise _damaged(f"has a {key} that is no whole number from {low} to {high}")
    return value


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields[key]
    if not isinstance(value, str) or len(value) > 10_000:
        raise _damaged(f"has a {key} that is no text of at most 10,000 characters")
    return value


def _hex(fields: Mapping[str, Any], key: str) -> str:
    value = _text(fields, key)
    if not _SHA256.fullmatch(value):
        raise _damaged(f"has a {key} that is not 64 hexadecimal digits")
    return value


def is_score(value: object) -> bool:
    """Whether a value is a number in [-1, 1] (and no boolean)."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -1 <= value <= 1  # type: ignore[operator]


def _checksum(fields: Mapping[str, Any]) -> str:
    compact = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(compact.encode()).hexdigest()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _damaged(what: str) -> IndexFileError:
    return IndexFileError(
        f"{MANIFEST_NAME} {what}: the index is damaged or was edited; restore it from a copy"
    )
