"""The HTTP application: addresses, and what each of them answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Send

from ildsdk.errors import ConfigError
from ildsdk.serve.docs_page import docs_page
from ildsdk.serve.guard import Guard, problem_from, problem_response
from ildsdk.serve.openapi import openapi_document
from ildsdk.serve.parameters import (
    LINES_TYPE,
    MAX_PATH_BODY_BYTES,
    BodyKind,
    body_kind,
    query_settings,
    study_path,
)
from ildsdk.serve.problems import RefusedRequestError, problem_of
from ildsdk.serve.queueing import Place
from ildsdk.serve.service import ClientGoneError, Service
from ildsdk.serve.uploads import new_upload
from ildsdk.settings import QuerySettings

_HTTP_TEXTS = {
    404: "there is nothing at this address: see /docs",
    405: "this address does not take this method: see /docs",
}
# A client that reads still gets the line that says that its time is over.
_LAST_LINE_S = 1.0


def make_app(service: Service, hosts: Collection[str] = ()) -> ASGIApp:
    """Build the application.

    Parameters
    ----------
    hosts : collection of str
        See :class:`~ildsdk.serve.guard.Guard`.
    """
    addresses = _Addresses(service)
    routes = [
        Route("/v1/query", addresses.query, methods=["POST"]),
        Route("/v1/info", addresses.info, methods=["GET"]),
        Route("/health/live", addresses.live, methods=["GET"]),
        Route("/health/ready", addresses.ready, methods=["GET"]),
        Route("/metrics", addresses.metrics, methods=["GET"]),
        Route("/openapi.json", addresses.openapi, methods=["GET"]),
        Route("/docs", addresses.docs, methods=["GET"]),
    ]
    # Inside Starlette's own error layer, which would answer a typed error with a bare 500.
    guard = Middleware(Guard, hosts, [route.path for route in routes], service.metrics)
    app = Starlette(
        routes=routes, middleware=[guard], exception_handlers={HTTPException: _http_problem}
    )
    app.router.redirect_slashes = False
    return app


class _Addresses:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._document = openapi_document(takes_paths=service.takes_paths)

    async def query(self, request: Request) -> Response:
        service = self._service
        settings = query_settings(request.query_params.multi_items())
        kind = body_kind(request.headers.get("content-type"), is_private=service.takes_paths)
        place = service.admit()
        if LINES_TYPE in request.headers.get("accept", ""):
            return await self._lines(request, place, kind, settings)
        with service.counted():
            study = await self._study(request, place, kind)
            answer = await service.answer(place, study, settings, _disconnected(request))
        # A source may hold bytes that were no text (lone surrogates), which UTF-8 refuses.
        content = (answer + "\n").encode("utf-8", errors="replace")
        return Response(content, media_type="application/json")

    async def _lines(
        self, request: Request, place: Place, kind: BodyKind, settings: QuerySettings
    ) -> Response:
        """Stream events; what fails before the first one is a problem with its own status."""
        service = self._service
        with service.counted(is_answered=False):
            study = await self._study(request, place, kind)
        events = service.events(place, study, settings)
        first = asyncio.ensure_future(anext(events))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({first, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                raise ClientGoneError
            lines = _lines_of(first.result(), events)
        finally:
            gone.cancel()
            if not first.done():
                first.cancel()
        return _Lines(lines, lambda: service.time_left_s(place))

    async def _study(self, request: Request, place: Place, kind: BodyKind) -> Path:
        """Path of the study to answer; the place holds what an upload needs."""
        service = self._service
        try:
            async with asyncio.timeout(service.time_left_s(place)):
                announced = _content_length(request)
                if kind == "path":
                    return study_path(await _short_body(request, announced))
                upload = place.resources.enter_context(
                    new_upload(service.settings.upload_folder, service.settings.max_upload_bytes)
                )
                return await upload.receive(request.stream(), announced)
        except BaseException as error:
            place.leave()
            if isinstance(error, TimeoutError):
                raise service.timeout_error() from error
            if isinstance(error, ClientDisconnect):
                raise ClientGoneError from error
            raise

    async def info(self, request: Request) -> Response:
        return JSONResponse(self._service.info())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        state = self._service.state
        return JSONResponse({"status": state}, status_code=200 if state == "ready" else 503)

    async def metrics(self, request: Request) -> Response:
        text, content_type = self._service.metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._document)

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(docs_page(self._document))


class _Lines(StreamingResponse):
    """A stream that ends, its query with it, where the client takes nothing until time is over."""

    def __init__(
        self, lines: AsyncGenerator[bytes, None], time_left_s: Callable[[], float]
    ) -> None:
        super().__init__(lines, media_type=LINES_TYPE)
        self._lines = lines
        self._time_left_s = time_left_s

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(max(self._time_left_s(), _LAST_LINE_S)):
                await send(message)

        async with contextlib.aclosing(self._lines):
            with contextlib.suppress(TimeoutError):
                await super().stream_response(send_in_time)


async def _lines_of(
    first: dict[str, Any], events: AsyncGenerator[dict[str, Any], None]
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(events):
        yield _line(first)
        try:
            async for event in events:
                yield _line(event)
        except Exception as error:
            yield _line({"event": "problem", "problem": problem_from(error)})


def _line(event: dict[str, Any]) -> bytes:
    text = json.dumps(event, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode("utf-8", errors="replace")


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isdecimal() else None


async def _short_body(request: Request, announced: int | None) -> bytes:
    body = b""
    if (announced or 0) <= MAX_PATH_BODY_BYTES:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_PATH_BODY_BYTES:
                break
        else:
            return body
    raise RefusedRequestError(
        413, ConfigError(f"the body that names a path has more than {MAX_PATH_BODY_BYTES} bytes")
    )


async def _disconnected(request: Request) -> None:
    """Done once the client has closed the connection; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_problem(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    problem = problem_of(ConfigError(_HTTP_TEXTS.get(status, "not served here")), status=status)
    response = problem_response(problem)
    response.headers.update(getattr(error, "headers", None) or {})
    return response
