"""A WSGI application as a user writes it: opened at import, asked by any thread of any worker.

Started by ``gunicorn "tests.gunicorn_app:make_application('FOLDER')"``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ildsdk import QuerySettings, Retriever

SETTINGS = QuerySettings(every_mm=0)
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def opened(world: Path) -> Retriever:
    """Retriever whose networks have threads of their own and which computes each query anew."""
    return Retriever.open(
        world / "bundle", world / "index", provider="cpu", n_threads=2, remembered_slices=0
    )


def answers_of(retriever: Retriever, study: Path) -> list[object]:
    """Neighbors of each slice, as JSON gives them back."""
    studies = retriever.query(study, SETTINGS).studies
    return [
        [[one.item_id, one.score] for one in each.neighbors]
        for study in studies
        for each in study.slices
    ]


def make_application(world: str) -> Application:
    """Application that answers ``GET /?path=STUDY`` from bundle, index and study of a folder.

    Asked once at import, so that a preloading parent has networks and kernels that ran.
    """
    retriever = opened(Path(world))
    answers_of(retriever, Path(world) / "study")
    opened_by, index = os.getpid(), retriever.index

    def application(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        (path,) = parse_qs(request["QUERY_STRING"])["path"]
        answer = {
            "answers": answers_of(retriever, Path(path)),
            "worker": os.getpid(),
            "opened_by": opened_by,
            "has_own": retriever.index is not index,
        }
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    return application
