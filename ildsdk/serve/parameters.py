"""What a request asks for: settings from its query string, a path from its body."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ildsdk.errors import ConfigError
from ildsdk.serve.problems import RefusedRequestError
from ildsdk.settings import QuerySettings, settings_from_mapping

PATH_TYPE = "application/json"
UPLOAD_TYPES = ("application/dicom", "application/zip", "application/octet-stream")
LINES_TYPE = "application/x-ndjson"
MAX_PATH_BODY_BYTES = 64 << 10

BodyKind = Literal["path", "upload"]

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def query_settings(parameters: Iterable[tuple[str, str]]) -> QuerySettings:
    """Settings of a query from the parameters of its URL.

    Raises
    ------
    ConfigError
        A parameter is unknown (the nearest valid name is given), given twice, or out of range.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(QuerySettings)}
    values: dict[str, Any] = {}
    for name, text in parameters:
        if name in values:
            raise ConfigError(f"parameter {name!r} is given twice")
        values[name] = _value(name, text, kinds.get(name, "str"))
    return settings_from_mapping(QuerySettings, values)


def _value(name: str, text: str, kind: str) -> Any:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "bool":
            return _TRUTHS[text.lower()]
    except (ValueError, KeyError):
        expected = {"int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
        raise ConfigError(f"parameter {name} is {text[:64]!r}, expected {expected}") from None
    return text


def body_kind(content_type: str | None, *, is_private: bool) -> BodyKind:
    """What the body of a query is, by its Content-Type.

    Parameters
    ----------
    is_private : bool
        Only this user can connect, so the body may name a path.

    Raises
    ------
    RefusedRequestError
        415: neither; 403: a path, but any user of this machine could have sent it.
    """
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type in UPLOAD_TYPES:
        return "upload"
    if media_type == PATH_TYPE:
        if is_private:
            return "path"
        raise RefusedRequestError(
            403,
            ConfigError(
                "a path is taken on a Unix socket only (ildsdk serve --socket), for every user of "
                f"this machine can reach a port: send the DICOM file or a zip as {UPLOAD_TYPES[0]}"
            ),
        )
    expected = ", ".join((*UPLOAD_TYPES, PATH_TYPE) if is_private else UPLOAD_TYPES)
    raise RefusedRequestError(
        415, ConfigError(f"Content-Type is {media_type[:64]!r}, expected one of {expected}")
    )


def study_path(body: bytes) -> Path:
    """Path that a JSON body ``{"path": "/..."}`` names.

    Raises
    ------
    ConfigError
        It is no such object, or the path is not absolute.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigError("the body is not JSON") from None
    path = document.get("path") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(path, str) or "\0" in path or not Path(path).is_absolute():
        raise ConfigError('the body is not {"path": "..."} with an absolute path')
    return Path(path)
