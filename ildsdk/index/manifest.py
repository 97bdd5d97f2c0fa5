"""The manifest: what belongs to an index (docs/index-format.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ildsdk.errors import IndexFileError

SCHEMAS = {1: "ildsdk.index/1", 2: "ildsdk.index/2", 3: "ildsdk.index/3"}
NEWEST = max(SCHEMAS)
MANIFEST_NAME = "manifest.json"
COPY_NAME = "manifest.copy.json"
HYPERPLANES_NAME = "hyperplanes.safetensors"
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_EMBEDDING_SIZE = 65_536
MAX_TABLES, MAX_SEED = 4096, 2**63


class DamagedManifestError(IndexFileError):
    """The manifest is missing or damaged, which its copy can mend.

    Not raised for one of a newer ildsdk, nor for one the system refuses to read.
    """


FileKind = Literal["arrays", "columns", "codes", "items", "maps", "removed"]
KINDS: tuple[FileKind, ...] = ("arrays", "columns", "codes", "items", "maps", "removed")
_EXTENSIONS = {kind: "sqlite" if kind == "items" else "safetensors" for kind in KINDS}
_NAMES = {
    kind: re.compile(rf"{kind}-[0-9]{{6,12}}\.{extension}", re.ASCII)
    for kind, extension in _EXTENSIONS.items()
}
SEGMENT_KEYS_V1 = ("n_items", "arrays", "items")
MAX_GRID = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One immutable file of the index: plain name, size, SHA-256 in hex."""

    file: str
    n_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hashing:
    """Settings of the hash tables and the file of their hyperplanes.

    The seed is a record of where they came from; hyperplanes handed in need not come from any.
    """

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
class MapsFormat:
    """What all activation maps of an index have in common; fields as in docs/index-format.md."""

    explain_sha256: str
    n_rows: int
    n_columns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEntry:
    """Rows added together; fields as in docs/index-format.md."""

    n_items: int
    arrays: FileEntry
    items: FileEntry
    columns: FileEntry | None = None
    codes: FileEntry | None = None
    maps: FileEntry | None = None
    removed: FileEntry | None = None
    n_removed: int = 0
    max_norm: float | None = None

    @property
    def n_live(self) -> int:
        """Rows that were not removed."""
        return self.n_items - self.n_removed

    def files(self) -> list[FileEntry]:
        """Every file of the segment."""
        found = [getattr(self, kind) for kind in KINDS]
        return [entry for entry in found if entry is not None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One complete state of an index; fields as in docs/index-format.md.

    Attributes
    ----------
    version : int
        Of the schema, 1 to 3. Whatever is written anew is of the newest.
    """

    version: int = NEWEST
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
    maps: MapsFormat | None = None

    def changed(self, **fields: Any) -> Manifest:
        """The manifest with other fields, in the newest version."""
        after = dataclasses.replace(self, version=NEWEST, **fields)
        if after.maps is not None and not any(segment.maps for segment in after.segments):
            after = dataclasses.replace(after, maps=None)  # the next ones may be of another graph
        return after

    @property
    def n_live(self) -> int:
        """Number of items: rows that were not removed."""
        return sum(segment.n_live for segment in self.segments)

    def files(self) -> list[FileEntry]:
        """Every file but the manifest and its copy."""
        found = [self.hashing.hyperplanes]
        for segment in self.segments:
            found += segment.files()
        return found

    def content_hash(self) -> str:
        """SHA-256 (hex) over what search results depend on: bundle, hashing, segments.

        Codes are derived and maps change no answer, so they do not count; nor does the version the
        segments are kept in.
        """
        content = {
            "schema": SCHEMAS[1],
            "bundle_hash": self.bundle_hash,
            "embedding_size": self.embedding_size,
            "hashing": dataclasses.asdict(self.hashing),
            "segments": [
                [segment.n_items, segment.arrays.sha256, segment.items.sha256]
                + ([segment.removed.sha256] if segment.removed else [])
                for segment in self.segments
            ],
        }
        return checksum(content)

    def to_bytes(self) -> bytes:
        """The manifest file."""
        fields = {**dataclasses.asdict(self), "salt": self.salt.hex()}
        fields["schema"] = SCHEMAS[fields.pop("version")]
        if self.version < 3:
            del fields["maps"]
            for segment in fields["segments"]:
                del segment["maps"]
        if self.version == 1:
            fields["segments"] = [
                {key: segment[key] for key in SEGMENT_KEYS_V1} for segment in fields["segments"]
            ]
        fields["checksum"] = checksum(fields)
        return (json.dumps(fields, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def file_name(kind: FileKind, number: int) -> str:
    """Name of a segment's file; the number is the revision that wrote it."""
    return f"{kind}-{number:06d}.{_EXTENSIONS[kind]}"


def is_file_name(kind: FileKind, name: str) -> bool:
    """Whether a name is one of :func:`file_name`."""
    return _NAMES[kind].fullmatch(name) is not None


def read_manifest(folder: Path, name: str = MANIFEST_NAME) -> Manifest:
    """Read and check the manifest of an index folder; no other file is touched.

    Raises
    ------
    DamagedManifestError
        Missing, too large, damaged, or not an ildsdk index.
    IndexFileError
        Of a newer version, or the system refuses to read it.
    """
    from ildsdk.index.manifest_fields import parse_manifest

    try:
        with (folder / name).open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        has_copy = name == MANIFEST_NAME and (folder / COPY_NAME).exists()
        raise DamagedManifestError(
            f"no index found in {folder.resolve().name!r}: {name} is missing"
            + ("; `ildsdk index repair` restores it from its copy" if has_copy else "")
        ) from error
    except OSError as error:
        raise IndexFileError(
            f"{name} of {folder.name!r} cannot be read: {error.strerror}"
        ) from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise DamagedManifestError(f"{name} is larger than {MAX_MANIFEST_BYTES} bytes")
    return parse_manifest(content, name)


def checksum(fields: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of compact, key-sorted JSON."""
    compact = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(compact.encode()).hexdigest()


def is_score(value: object) -> bool:
    """Whether a value is a number in [-1, 1] (and no boolean)."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -1 <= value <= 1  # type: ignore[operator]
