"""Around every request: who may ask, what is written down, and errors as problems."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ildsdk.errors import ConfigError, IldError
from ildsdk.serve.log import LOGGER, unexpected
from ildsdk.serve.metrics import Metrics
from ildsdk.serve.problems import MEDIA_TYPE, RefusedRequestError, problem_of
from ildsdk.serve.service import ClientGoneError

CLIENT_GONE = 499  # as nginx logs it; nobody receives it

_METHODS = ("GET", "HEAD", "POST")
_SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Layer around all addresses.

    Parameters
    ----------
    app : ASGI application
    hosts : collection of str
        Host headers that are accepted; empty: any. A page of another site whose name was made to
        point to 127.0.0.1 comes with that name in the Host header.
    routes : collection of str
        Paths of the application: a log line and a metric name these, never what was sent.
    metrics : Metrics
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], routes: Collection[str], metrics: Metrics
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._routes = frozenset(routes)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS]
            await send(message)

        try:
            self._check_sender(Headers(scope=scope))
            await self._app(scope, receive, watched_send)
        except ClientGoneError:
            pass
        except Exception as error:
            problem = problem_from(error)
            # Where half an answer is out, the server closes the connection: the client sees that.
            if status is None:
                await problem_response(problem)(scope, receive, watched_send)
        finally:
            self._write_down(scope, status or CLIENT_GONE, time.perf_counter() - started)

    def _check_sender(self, headers: Headers) -> None:
        """Refuse requests that another site's page made in a browser of this machine."""
        if not self._hosts:
            return
        if headers.get("host", "").lower() not in self._hosts:
            raise RefusedRequestError(
                421, ConfigError(f"the Host header is none of {', '.join(sorted(self._hosts))}")
            )
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() not in self._hosts
        if is_foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise RefusedRequestError(
                403, ConfigError("pages of other sites may not ask this server")
            )

    def _write_down(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        LOGGER.info("%s %s %d %.1f ms", method, route, status, seconds * 1e3)


def problem_response(problem: dict[str, Any]) -> Response:
    """Answer that carries a problem document."""
    headers = {}
    if "retry_after_s" in problem:
        headers["retry-after"] = str(problem["retry_after_s"])
    return Response(
        json.dumps(problem, ensure_ascii=False, allow_nan=False),
        status_code=problem["status"],
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def problem_from(error: Exception) -> dict[str, Any]:
    """Problem document of whatever ended a request; a defect is logged too."""
    if isinstance(error, RefusedRequestError):
        return problem_of(error.error, status=error.status, answer=error.answer)
    if isinstance(error, IldError):
        return problem_of(error)
    text = f"{unexpected(error)}: a defect of ildsdk, please report it"
    LOGGER.error("%s", text)
    return problem_of(IldError(text), status=500)
