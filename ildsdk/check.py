"""One thing that ``ildsdk doctor`` tried, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from ildsdk.errors import IldError

Status = Literal["ok", "missing", "failed"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    area, name : str
        For example ``"provider"``, ``"cuda"``.
    status : {"ok", "missing", "failed"}
        ``"missing"``: not installed, and not needed for what is installed; ``"failed"``: must
        work here and does not.
    detail : str
    """

    area: str
    name: str
    status: Status
    detail: str


def tried(area: str, name: str, trial: Callable[[], str], absent: Status = "failed") -> Check:
    """Run a trial; what it says, or what it raised.

    Parameters
    ----------
    area, name : str
    trial : callable
        Gives the detail of a success.
    absent : {"missing", "failed"}
        Status of an error that ildsdk raises on purpose.
    """
    try:
        return Check(area=area, name=name, status="ok", detail=trial())
    except IldError as error:
        return Check(area=area, name=name, status=absent, detail=str(error))
    except Exception as error:  # a broken numba or onnxruntime is what this command is for
        return Check(area=area, name=name, status="failed", detail=type(error).__name__)
