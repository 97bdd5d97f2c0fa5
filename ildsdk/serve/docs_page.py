"""The OpenAPI description as one page: no script, no second file, no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ildsdk import errors
from ildsdk.errors import IldError


def docs_page(document: Mapping[str, Any]) -> str:
    """Lay out a document of :func:`~ildsdk.serve.openapi.openapi_document` for reading."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ildsdk.serve", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["type_text"] = _type_text
    environment.filters["marked"] = _marked
    return environment.get_template("docs.html.jinja").render(
        document=document,
        operations=[
            {"path": path, "method": method, **operation}
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ],
        problems=sorted(_problems(), key=lambda problem: (problem["exit_code"], problem["code"])),
    )


def _problems() -> list[dict[str, Any]]:
    kinds = [IldError, *(kind for kind in vars(errors).values() if _is_error(kind))]
    return [
        {
            "code": kind.code,
            "exit_code": kind.exit_code,
            "text": (kind.__doc__ or "").split("\n\n")[0],
        }
        for kind in dict.fromkeys(kinds)
    ]


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, IldError)


def _type_text(schema: Mapping[str, Any]) -> Markup:
    """A schema in one line; records link to where they are described."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return Markup('<a href="#{0}">{0}</a>').format(name)
    if "const" in schema:
        return Markup("<code>{}</code>").format(schema["const"])
    if "enum" in schema:
        return Markup(" | ").join(Markup("<code>{}</code>").format(one) for one in schema["enum"])
    if "anyOf" in schema:
        return Markup(" or ").join(_type_text(one) for one in schema["anyOf"])
    kind = schema.get("type")
    if kind == "array":
        return Markup("list of ") + _type_text(schema["items"])
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return Markup("mapping of name to ") + _type_text(schema["additionalProperties"])
    text = str(kind or "any")
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"))
        if key in schema
    ]
    return escape(" ".join([text, *bounds]))


def _marked(text: str) -> Markup:
    """Escaped text with ``code`` between single or double backquotes set as code."""
    pieces = re.split(r"``?([^`]+)``?", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if number % 2 else escape(piece)
        for number, piece in enumerate(pieces)
    )
