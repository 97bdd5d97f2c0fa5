"""Parsing a manifest strictly: every field checked, unknown and missing keys refused."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ildsdk.errors import IndexFileError
from ildsdk.index.manifest import (
    HYPERPLANES_NAME,
    KINDS,
    MAX_EMBEDDING_SIZE,
    MAX_GRID,
    MAX_SEED,
    MAX_TABLES,
    SCHEMAS,
    SEGMENT_KEYS_V1,
    Calibration,
    DamagedManifestError,
    FileEntry,
    FileKind,
    Hashing,
    Manifest,
    MapsFormat,
    SegmentEntry,
    checksum,
    is_file_name,
    is_score,
)

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SCHEMA = re.compile(r"ildsdk\.index/([0-9]{1,6})", re.ASCII)
_NORM_RANGE = (0.998, 1.002)  # unit norm within 1e-3, with room for rounding


def parse_manifest(content: bytes, name: str) -> Manifest:
    """Check the bytes of a manifest; see :func:`ildsdk.index.manifest.read_manifest`.

    Parameters
    ----------
    name : str
        File they come from, for messages.
    """
    try:
        return _Parser(name).manifest(content)
    except _Refused as refused:
        raise DamagedManifestError(
            f"{name} {refused}: the index is damaged or was edited; run `ildsdk index repair`, or "
            "restore it from a backup"
        ) from refused.__cause__


class _Refused(Exception):
    """What is wrong with a manifest, to follow its name."""


class _Parser:
    def __init__(self, name: str) -> None:
        self._name = name

    def manifest(self, content: bytes) -> Manifest:
        try:
            fields = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise _Refused("is not JSON") from error
        if not isinstance(fields, dict):
            raise _Refused("is not a JSON object")
        version = self._version(fields)
        expected = fields.pop("checksum", None)
        if expected != checksum(fields):
            raise _Refused("does not match its checksum")
        del fields["schema"]
        return _manifest(fields, version)

    def _version(self, fields: Mapping[str, Any]) -> int:
        schema = fields.get("schema")
        match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
        if match is None:
            raise DamagedManifestError(f"{self._name} is not of an ildsdk index (no known schema)")
        version, newest = int(match[1]), max(SCHEMAS)
        if version > newest:
            raise IndexFileError(
                f"index was written by a newer ildsdk: it has schema {schema}, "
                f"this ildsdk reads {SCHEMAS[newest]}; upgrade ildsdk"
            )
        if schema != SCHEMAS.get(version):
            raise _Refused(f"has schema {schema}, expected {SCHEMAS[newest]}")
        return version


def _manifest(fields: Mapping[str, Any], version: int) -> Manifest:
    if version < 3:
        _check_keys(fields, _names(Manifest) - {"version", "maps"}, "manifest")
        fields = {**fields, "maps": None}
    _check_keys(fields, _names(Manifest) - {"version"}, "manifest")
    hashing, calibration = fields["hashing"], fields["calibration"]
    _check_keys(hashing, _names(Hashing), "hashing")
    _check_keys(calibration, _names(Calibration), "calibration")
    threshold = calibration["no_match_threshold"]
    if threshold is not None and not is_score(threshold):
        raise _Refused("has a no_match_threshold outside [-1, 1]")
    if not isinstance(fields["segments"], list):
        raise _Refused("has segments that are no array")
    segments = tuple(_segment(segment, version) for segment in fields["segments"])
    files = [entry.file for segment in segments for entry in segment.files()]
    if len(set(files)) != len(files):
        raise _Refused("names a file twice")
    maps = _maps_format(fields["maps"])
    if (maps is not None) != any(segment.maps is not None for segment in segments):
        raise _Refused("has maps in its segments that do not fit those it tells of")
    if type(fields["is_synthetic"]) is not bool:
        raise _Refused("has an is_synthetic that is no boolean")
    return Manifest(
        version=version,
        revision=_integer(fields, "revision", 1, 10**12 - 1),
        name=_text(fields, "name"),
        created_with=_text(fields, "created_with"),
        bundle_hash=_text(fields, "bundle_hash"),
        embedding_size=_integer(fields, "embedding_size", 1, MAX_EMBEDDING_SIZE),
        is_synthetic=fields["is_synthetic"],
        salt=bytes.fromhex(_hex(fields, "salt")),
        hashing=Hashing(
            n_tables=_integer(hashing, "n_tables", 1, MAX_TABLES),
            n_bits=_integer(hashing, "n_bits", 1, 64),
            n_probes=_integer(hashing, "n_probes", 1, 1),
            seed=_integer(hashing, "seed", 0, MAX_SEED),
            hyperplanes=_hyperplanes(hashing["hyperplanes"]),
        ),
        calibration=Calibration(no_match_threshold=threshold, how=_text(calibration, "how")),
        segments=segments,
        maps=maps,
    )


def _maps_format(fields: Any) -> MapsFormat | None:
    if fields is None:
        return None
    _check_keys(fields, _names(MapsFormat), "maps")
    return MapsFormat(
        explain_sha256=_hex(fields, "explain_sha256"),
        n_rows=_integer(fields, "n_rows", 1, MAX_GRID),
        n_columns=_integer(fields, "n_columns", 1, MAX_GRID),
    )


def _segment(fields: Any, version: int) -> SegmentEntry:
    if version == 1:
        _check_keys(fields, SEGMENT_KEYS_V1, "segment")
        fields = {**dict.fromkeys(_names(SegmentEntry)), "n_removed": 0, **fields}
    elif version == 2:
        _check_keys(fields, _names(SegmentEntry) - {"maps"}, "segment")
        fields = {**fields, "maps": None}
    _check_keys(fields, _names(SegmentEntry), "segment")
    n_items = _integer(fields, "n_items", 1, 2**40)
    n_removed = _integer(fields, "n_removed", 0, n_items)
    files = {kind: _segment_file(fields[kind], kind) for kind in KINDS}
    arrays, items = files.pop("arrays"), files.pop("items")
    if arrays is None or items is None:
        raise _Refused("has a segment without arrays or items")
    if (n_removed > 0) != (files["removed"] is not None):
        raise _Refused(f"has a segment with n_removed {n_removed} that does not fit its files")
    max_norm = fields["max_norm"]
    if max_norm is not None and not (
        type(max_norm) is float and _NORM_RANGE[0] <= max_norm <= _NORM_RANGE[1]
    ):
        raise _Refused("has a max_norm that is not 1")
    return SegmentEntry(
        n_items=n_items, arrays=arrays, items=items, n_removed=n_removed, max_norm=max_norm, **files
    )


def _segment_file(fields: Any, kind: FileKind) -> FileEntry | None:
    if fields is None:
        return None
    entry = _file(fields)
    if not is_file_name(kind, entry.file):
        raise _Refused("names a file that is no plain name of an index file")
    return entry


def _hyperplanes(fields: Any) -> FileEntry:
    entry = _file(fields)
    if entry.file != HYPERPLANES_NAME:
        raise _Refused("names a file that is no plain name of an index file")
    return entry


def _file(fields: Any) -> FileEntry:
    _check_keys(fields, _names(FileEntry), "file entry")
    return FileEntry(
        file=_text(fields, "file"),
        n_bytes=_integer(fields, "n_bytes", 0, 2**50),
        sha256=_hex(fields, "sha256"),
    )


def _names(record: type) -> set[str]:
    return {field.name for field in dataclasses.fields(record)}


def _check_keys(fields: Any, expected: Iterable[str], what: str) -> None:
    if not isinstance(fields, dict):
        raise _Refused(f"has a {what} that is no object")
    odd = set(fields) ^ set(expected)
    if odd:
        told = ", ".join(sorted(odd)[:5])
        raise _Refused(f"has missing or unknown keys in its {what}: {told[:200]}")


def _integer(fields: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = fields[key]
    if type(value) is not int or not low <= value <= high:
        raise _Refused(f"has a {key} that is no whole number from {low} to {high}")
    return value


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields[key]
    if not isinstance(value, str) or len(value) > 10_000:
        raise _Refused(f"has a {key} that is no text of at most 10,000 characters")
    return value


def _hex(fields: Mapping[str, Any], key: str) -> str:
    value = _text(fields, key)
    if not _SHA256.fullmatch(value):
        raise _Refused(f"has a {key} that is not 64 hexadecimal digits")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
