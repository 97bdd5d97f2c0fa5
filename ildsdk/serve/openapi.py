"""The OpenAPI description of the server, made from our settings and records."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any

from ildsdk._version import __version__
from ildsdk.records import NOT_IN_JSON, QUERY_SCHEMA, QueryResult
from ildsdk.serve.parameters import LINES_TYPE, PATH_TYPE, UPLOAD_TYPES
from ildsdk.serve.problems import MEDIA_TYPE
from ildsdk.serve.record_schema import record_schemas, type_schema
from ildsdk.serve.server_info import info_schema
from ildsdk.settings import QuerySettings

_ABOUT = (
    "Finds the most similar slices of diagnosed interstitial-lung-disease patients for a chest CT. "
    "Research use only, not a medical device, not for diagnosis; `provenance` says what an answer "
    "was made with."
)
_PROBLEMS = {
    "400": "A parameter or the path does not fit (code `config`).",
    "413": "The upload is larger than the server takes.",
    "415": "The Content-Type is none of those above.",
    "422": "The study cannot be answered (`input`, `decode`, `no-usable-slice`); with "
    "`no-usable-slice` comes the answer without a study, every file with its reason.",
    "500": "Model, index or software at fault (`model`, `index`, `error`).",
    "503": "Not now (`server-busy`): starting, all places taken, or ending. Retry-After says when "
    "to come again.",
    "504": "The time for one query is over (`timeout`).",
}
_PROBLEMS_OF_A_PORT = {
    "403": "The body names a path, which is taken on a Unix socket only; or a page of another site "
    "asks.",
    "421": "The Host header is none of this server's.",
}


def openapi_document(*, takes_paths: bool) -> dict[str, Any]:
    """OpenAPI 3.1 document.

    Parameters
    ----------
    takes_paths : bool
        Whether a query may name a path (on a Unix socket).
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ildsdk",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/v1/query": {"post": _query_operation(takes_paths)},
            "/v1/info": {"get": _info_operation()},
            "/health/live": {"get": _health("live", "The process answers.", {})},
            "/health/ready": {
                "get": _health(
                    "ready",
                    "Queries are taken.",
                    {"503": {"description": "Starting or ending.", **_json("Health")}},
                )
            },
            "/metrics": {"get": _metrics_operation()},
            "/openapi.json": {"get": _plain("openapi", "This document.", "application/json")},
            "/docs": {"get": _plain("docs", "This document for people.", "text/html")},
        },
        "components": {"schemas": _schemas()},
    }


# ---------------------------------------------------------------- operations


def _query_operation(takes_paths: bool) -> dict[str, Any]:
    problems = dict(_PROBLEMS) if takes_paths else {**_PROBLEMS, **_PROBLEMS_OF_A_PORT}
    return {
        "operationId": "query",
        "summary": "Most similar diagnosed cases for a chest CT",
        "description": "The same answer as `ildsdk query --format json`. An upload is kept in a "
        "private file while its query runs and is gone after it. Closing the connection stops the "
        "query.",
        "parameters": _parameters(),
        "requestBody": {"required": True, "content": _bodies(takes_paths)},
        "responses": {
            "200": _answers(),
            **{status: _problem(text) for status, text in sorted(problems.items())},
        },
    }


def _answers() -> dict[str, Any]:
    content = _json("QueryAnswer")["content"]
    content[LINES_TYPE] = {"schema": {"$ref": "#/components/schemas/Event"}}
    return {
        "description": f"The answer, schema `{QUERY_SCHEMA}`. With `Accept: {LINES_TYPE}` one JSON "
        "object a line as soon as it is known: `slice` and `skipped` in order, `study` after its "
        "slices, `end` last; `problem` instead where the query fails later than its first line.",
        "content": content,
    }


def _bodies(takes_paths: bool) -> dict[str, Any]:
    upload = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    bodies: dict[str, Any] = {media_type: upload for media_type in UPLOAD_TYPES}
    if takes_paths:
        bodies[PATH_TYPE] = {
            "schema": {"$ref": "#/components/schemas/StudyPath"},
            "example": {"path": "/data/study"},
        }
    return bodies


def _parameters() -> list[dict[str, Any]]:
    about = _attribute_texts(QuerySettings)
    hints = typing.get_type_hints(QuerySettings)
    limits: dict[str, dict[str, Any]] = {
        "top_n": {"minimum": 1, "maximum": 1000},
        "every_mm": {"minimum": 0},
    }
    parameters = []
    for field in dataclasses.fields(QuerySettings):
        # A parameter that is left out is None; there is no text for null.
        hint = hints[field.name]
        if isinstance(hint, types.UnionType):
            hint = typing.get_args(hint)[0]
        schema = {**type_schema(hint, []), **limits.get(field.name, {})}
        if field.default is not None:
            schema["default"] = field.default
        parameters.append(
            {"name": field.name, "in": "query", "schema": schema, "description": about[field.name]}
        )
    return parameters


def _info_operation() -> dict[str, Any]:
    return {
        "operationId": "info",
        "summary": "Bundle, index, execution provider, limits, notice",
        "responses": {
            "200": {"description": "What runs.", **_json("Info")},
            "503": _problem(_PROBLEMS["503"]),
        },
    }


def _metrics_operation() -> dict[str, Any]:
    return {
        **_plain("metrics", "Counters in Prometheus form, without patient data.", "text/plain"),
        "summary": "Metrics",
    }


def _health(name: str, text: str, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": f"Health: {name}",
        "responses": {"200": {"description": text, **_json("Health")}, **more},
    }


def _plain(name: str, text: str, media_type: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "responses": {"200": {"description": text, "content": {media_type: {"schema": {}}}}},
    }


def _json(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"content": {"application/json": {"schema": schema}}}


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}


# ---------------------------------------------------------------- schemas


def _schemas() -> dict[str, Any]:
    schemas = record_schemas(QueryResult, left_out=NOT_IN_JSON)
    answer = schemas.pop("QueryResult")
    answer["properties"] = {"schema": {"const": QUERY_SCHEMA}, **answer["properties"]}
    answer["required"] = ["schema", *answer["required"]]
    schemas["QueryAnswer"] = answer
    schemas["Event"] = _event_schema(answer)
    schemas["Info"] = info_schema()
    schemas["StudyPath"] = {
        "type": "object",
        "properties": {
            "path": {
                "type": "string",
                "description": "Absolute path of a folder, a DICOM file or a zip.",
            }
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    schemas["Health"] = {
        "type": "object",
        "properties": {"status": {"enum": ["alive", "starting", "ready", "ending"]}},
        "required": ["status"],
    }
    schemas["Problem"] = {
        "type": "object",
        "description": "RFC 9457, with the code and the exit status of the command line.",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
            "exit_code": {"type": "integer"},
            "retry_after_s": {"type": "integer"},
            "answer": {"$ref": "#/components/schemas/QueryAnswer"},
        },
        "required": ["type", "title", "status", "detail", "code", "exit_code"],
    }
    return dict(sorted(schemas.items()))


def _event_schema(answer: dict[str, Any]) -> dict[str, Any]:
    fields = answer["properties"]
    one_of = {
        "slice": {"$ref": "#/components/schemas/SliceAnswer"},
        "skipped": {"$ref": "#/components/schemas/SkippedItem"},
        "study": {"$ref": "#/components/schemas/StudyAnswer"},
        "problem": {"$ref": "#/components/schemas/Problem"},
    }
    # `skipped` names the field of its own event and that of the last one, which is a list.
    either = {"anyOf": [one_of["skipped"], fields["skipped"]]}
    rest = {name: fields[name] for name in ("schema", "provenance", "timings_ms")}
    return {
        "type": "object",
        "description": "One line of a streamed answer: `event` names the field it has. The last "
        "one, `end`, has what the whole answer has beside its studies.",
        "properties": {
            "event": {"type": "string", "enum": [*one_of, "end"]},
            **one_of,
            "skipped": either,
            **rest,
        },
        "required": ["event"],
        "additionalProperties": False,
    }


def _attribute_texts(record: type) -> dict[str, str]:
    """Texts of the attributes in a NumPy docstring, by name."""
    attributes = (record.__doc__ or "").split("----------", 1)[-1]
    found = re.findall(r"^    (\w+) : [^\n]*\n((?:        [^\n]+\n?)+)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
