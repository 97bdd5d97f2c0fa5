"""Typed errors as problem documents (RFC 9457), and back into the same errors.

Both ends of the socket use this file, so an error has one text, one code and one exit status.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ildsdk import errors
from ildsdk.errors import IldError, NoUsableSliceError, ServerBusyError, ServerError

MEDIA_TYPE = "application/problem+json"

# By code, because a subclass may differ from its parent (server-busy from server).
_STATUS_OF_CODE = {
    "config": 400,
    "input": 422,
    "decode": 422,
    "slice-unusable": 422,
    "no-usable-slice": 422,
    "server-busy": 503,
    "cancelled": 499,
    "timeout": 504,
}
_TITLES = {
    2: "A setting or a path does not fit",
    3: "The study cannot be answered",
    4: "The model or its execution provider is at fault",
    5: "The index is at fault",
    6: "The query was stopped before it was answered",
    7: "The server takes no query now",
}


class RefusedRequestError(Exception):
    """An error with what HTTP needs beside it.

    Parameters
    ----------
    status : int or None
        HTTP status; None takes the one that belongs to the error.
    answer : mapping or None
        As in :func:`problem_of`.
    """

    def __init__(
        self, status: int | None, error: IldError, answer: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error
        self.answer = answer


def problem_of(
    error: IldError, *, status: int | None = None, answer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe an error for a client.

    Parameters
    ----------
    status : int or None
        HTTP status; None takes the one that belongs to the error.
    answer : mapping or None
        The answer without a study that goes with :class:`~ildsdk.errors.NoUsableSliceError`.

    Returns
    -------
    dict
        ``type``, ``title``, ``status``, ``detail`` as in RFC 9457, and ``code``, ``exit_code``.
    """
    problem: dict[str, Any] = {
        "type": f"/docs#{error.code}",
        "title": _TITLES.get(error.exit_code, "The server has a defect"),
        "status": status or _STATUS_OF_CODE.get(error.code, 500),
        "detail": str(error),
        "code": error.code,
        "exit_code": error.exit_code,
    }
    if isinstance(error, ServerBusyError):
        problem["retry_after_s"] = error.retry_after_s
    if answer is not None:
        problem["answer"] = dict(answer)
    return problem


def error_from_problem(problem: Mapping[str, Any]) -> IldError:
    """Error that :func:`problem_of` described, with the same text.

    A code this version does not know becomes a :class:`~ildsdk.errors.ServerError`.
    """
    code, detail = str(problem.get("code", "")), str(problem.get("detail", "no detail"))
    if code == NoUsableSliceError.code and isinstance(problem.get("answer"), Mapping):
        from ildsdk.records import SkippedItem

        return NoUsableSliceError(
            tuple(SkippedItem(**item) for item in problem["answer"]["skipped"])
        )
    if code == ServerBusyError.code:
        return ServerBusyError(detail, int(problem.get("retry_after_s", 1)))
    kind = _kinds().get(code, ServerError)
    return kind(detail)


@functools.cache
def _kinds() -> dict[str, type[IldError]]:
    """Error classes that are made of one text, by code."""
    return {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, IldError)
        and kind.__init__ is IldError.__init__
    }
