"""What ``GET /v1/info`` tells: what runs, as in an answer's provenance, and what it takes."""

from __future__ import annotations

import dataclasses
from typing import Any

from ildsdk.records import Provenance
from ildsdk.serve.record_schema import record_schemas
from ildsdk.serve.settings import ServeSettings

INFO_SCHEMA = "ildsdk.server-info/1"
# Of provenance, what belongs to one query and not to the server.
_OF_A_QUERY = ("search_mode", "top_n", "every_mm", "exclude_same_patient")
# Of the settings, what a client can run into.
_LIMITS = ("n_workers", "max_waiting", "timeout_s", "max_upload_bytes")


def server_info(
    provenance: Provenance, settings: ServeSettings, *, takes_paths: bool
) -> dict[str, Any]:
    """Plain mapping for JSON, with ``schema`` first."""
    facts = dataclasses.asdict(provenance)
    return {
        "schema": INFO_SCHEMA,
        **{name: value for name, value in facts.items() if name not in _OF_A_QUERY},
        "takes_paths": takes_paths,
        **{name: getattr(settings, name) for name in _LIMITS},
    }


def info_schema() -> dict[str, Any]:
    """JSON Schema of :func:`server_info`."""
    facts = record_schemas(Provenance)["Provenance"]["properties"]
    limits = record_schemas(ServeSettings, left_out=("upload_folder",))["ServeSettings"]
    properties = {
        "schema": {"const": INFO_SCHEMA},
        **{name: schema for name, schema in facts.items() if name not in _OF_A_QUERY},
        "takes_paths": {"type": "boolean"},
        **{name: limits["properties"][name] for name in _LIMITS},
    }
    return {
        "type": "object",
        "description": "What answers are made with, and the limits of this server.",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
