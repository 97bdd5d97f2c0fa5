"""OpenAPI document and page: true, complete, and of one file."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import validate
from PIL import Image

from ildsdk import errors
from ildsdk.cli import cli
from ildsdk.records import QueryResult
from ildsdk.serve.answers import result_from_dict
from ildsdk.serve.docs_page import docs_page
from ildsdk.serve.openapi import openapi_document
from ildsdk.serve.record_schema import type_schema
from ildsdk.settings import QuerySettings
from tests.result_factory import make_odd_result, make_result
from tests.serve_factory import Running, running_server
from tests.test_reports_chromium import CHROMIUM, FLAGS


@pytest.fixture(scope="module")
def served(serve_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(serve_world, tmp_path_factory.mktemp("s") / "s.sock") as running:
        yield running


def check(document: dict[str, Any], name: str, value: Any) -> None:
    """Compare a value with one of the document's schemas."""
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    ).validate(value)


@pytest.mark.parametrize("takes_paths", [True, False])
def test_the_document_is_valid_openapi(takes_paths: bool) -> None:
    document = openapi_document(takes_paths=takes_paths)
    validate(document)
    names = [
        parameter["name"] for parameter in document["paths"]["/v1/query"]["post"]["parameters"]
    ]
    assert names == [field.name for field in dataclasses.fields(QuerySettings)]
    for parameter in document["paths"]["/v1/query"]["post"]["parameters"]:
        assert parameter["description"]
    body = document["paths"]["/v1/query"]["post"]["requestBody"]["content"]
    assert ("application/json" in body) is takes_paths
    responses = document["paths"]["/v1/query"]["post"]["responses"]
    assert ({"403", "421"} <= set(responses)) is not takes_paths
    assert ("403" in responses or "421" in responses) is not takes_paths


def test_what_is_served_fits_its_schema(served: Running, serve_world: Path, tmp_path: Path) -> None:
    document = json.loads(served.ask("GET", "/openapi.json")[2])
    check(document, "QueryAnswer", served.ask_path(serve_world / "study")[2])
    check(document, "Info", json.loads(served.ask("GET", "/v1/info")[2]))
    check(document, "Health", json.loads(served.ask("GET", "/health/ready")[2]))
    (tmp_path / "notes.txt").write_text("no DICOM")
    problem = served.ask_path(tmp_path)[2]
    check(document, "Problem", problem)
    assert problem["answer"]["studies"] == []
    answer = served.ask_path(serve_world / "study")[2]
    del answer["studies"][0]["slices"][0]["neighbors"][0]["score"]
    with pytest.raises(jsonschema.ValidationError):
        check(document, "QueryAnswer", answer)


def test_every_address_stands_in_the_document(served: Running) -> None:
    document = json.loads(served.ask("GET", "/openapi.json")[2])
    for path, methods in document["paths"].items():
        for method in methods:
            if method == "get":
                status, headers, _ = served.ask("GET", path)
                assert status == 200
                media_types = methods[method]["responses"]["200"]["content"]
                assert headers["content-type"].split(";")[0] in media_types


@pytest.mark.parametrize("make", [make_result, make_odd_result])
def test_answers_come_back_as_the_records_they_were(make: Any) -> None:
    result: QueryResult = make()
    again = result_from_dict(json.loads(result.to_json()))
    assert again.to_json() == result.to_json()
    assert again == result


def test_answers_of_another_version_are_refused() -> None:
    document = make_result().to_dict()
    with pytest.raises(errors.ServerError, match="same version"):
        result_from_dict({**document, "schema": "ildsdk.query/9"})
    with pytest.raises(errors.ServerError, match="same version"):
        result_from_dict({**document, "novelty": 1})


def test_annotations_without_a_json_form_are_refused() -> None:
    with pytest.raises(TypeError, match="no form in JSON"):
        type_schema(bytes, [])


def test_the_page_needs_nothing_from_anywhere() -> None:
    for takes_paths in (True, False):
        document = openapi_document(takes_paths=takes_paths)
        page = docs_page(document)
        assert not re.search(r"""(?:src|href)=["'](?!#|/openapi\.json|data:,)""", page)
        assert "<script" not in page
        assert "@import" not in page
        assert "url(" not in page
        for name in document["components"]["schemas"]:
            assert f'id="{name}"' in page
        for link in re.findall(r'href="#([^"]+)"', page):
            assert f'id="{link}"' in page, link
        for kind in vars(errors).values():
            if isinstance(kind, type) and issubclass(kind, errors.IldError):
                assert f'id="{kind.code}"' in page


def test_the_manual_names_what_there_is(repo: Path) -> None:
    text = (repo / "docs" / "serve.md").read_text()
    known = {option for name in ("serve", "query", "warmup")
             for parameter in cli.commands[name].params for option in parameter.opts}  # fmt: skip
    commands = re.findall(r"ildsdk (?:serve|query|warmup) [^`\n]*", text)
    for words in [*commands, *re.findall(r"`(--[^`]*)`", text)]:
        for option in re.findall(r"--[a-z-]+", words):
            assert option in known, option
    paths = openapi_document(takes_paths=True)["paths"]
    for address in re.findall(r"`(?:GET|POST) (/[^`]*)`", text):
        assert address in paths
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ServerError):
            assert f"| {kind.exit_code} |" in text
    for code, exit_code in re.findall(r"\| \d{3} \| `([a-z-]+)` \| (\d) \|", text):
        kinds = {one.code: one for one in vars(errors).values() if hasattr(one, "exit_code")}
        assert kinds[code].exit_code == int(exit_code)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_the_page_and_has_nothing_to_say(serve_world: Path, tmp_path: Path) -> None:
    picture = tmp_path / "docs.png"
    with running_server(serve_world, None) as running:
        done = subprocess.run(
            [CHROMIUM or "", *FLAGS[:-1],
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
             f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}",
             running.listener.address + "/docs"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "CONSOLE" not in done.stderr
        assert running.metric('ildsdk_requests_total{method="GET",route="/docs",status="200"}') == 1
        assert running.metric('ildsdk_requests_total{method="GET",route="other",status="404"}') == 0
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.std() > 10  # not blank
