"""The error tree of ildsdk.

    IldError                         exit  code of the CLI
    ├── ConfigError                     2  a setting, option or file the caller chose
    ├── InputError                      3  the study, image or mask is at fault
    │   ├── DecodeError                    pixels cannot be decoded here
    │   │   └── BrokenDecoderError            a decoder is installed and cannot be imported
    │   ├── SliceUnusableError             one slice the method cannot answer
    │   └── NoUsableSliceError             no slice of the study can be answered
    ├── ModelError                      4  bundle, model contract or execution provider
    ├── IndexFileError                  5  index format, version, damage or mismatch
    ├── QueryStoppedError               6  the caller had the work end before it was done
    │   ├── QueryCancelledError            the caller's cancel token was set
    │   └── QueryTimeoutError              the caller's time limit was reached
    └── ServerError                     7  the resident server: absent, or gone before it answered
        └── ServerBusyError                not now: starting, its queue full, ending

A message says what was found, what was expected, where, and what to do. It
never holds a patient's name, id, birth date or a full path.
Programming mistakes stay ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ildsdk.records import SkippedItem


class IldError(Exception):
    """Base of every error ildsdk raises on purpose.

    Attributes
    ----------
    code : str
        Stable name of the error class for programs (``"input"``, ``"model"``...).
    exit_code : int
        Exit status of the command line for this error.
    """

    code = "error"
    exit_code = 1


class ConfigError(IldError):
    """A setting, an option or a file chosen by the caller does not fit."""

    code = "config"
    exit_code = 2


class InputError(IldError):
    """The study (or image, or mask) handed in cannot be answered."""

    code = "input"
    exit_code = 3


class DecodeError(InputError):
    """The pixels of one object cannot be decoded on this installation."""

    code = "decode"


class BrokenDecoderError(DecodeError):
    """A decoder is installed and cannot be imported; nothing is known about the pixels."""

    code = "decoder-broken"


class SliceUnusableError(InputError):
    """One slice is unsuited to the method; in a study it is skipped and listed.

    Parameters
    ----------
    reason : str
        Stable short code, for example ``"too-little-lung"``.
    detail : str
        What was found and what was expected, with units.
    """

    code = "slice-unusable"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class NoUsableSliceError(InputError):
    """Nothing under the path can be answered.

    Parameters
    ----------
    skipped : tuple of SkippedItem
        Everything found, with the reason it is not used.
    """

    code = "no-usable-slice"

    def __init__(self, skipped: tuple[SkippedItem, ...]) -> None:
        counts = collections.Counter(item.reason for item in skipped)
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
        first = f"; for example {skipped[0].source}: {skipped[0].detail}" if skipped else ""
        super().__init__(
            f"no usable slice among {len(skipped)} files or slices ({reasons or 'nothing found'})"
            f"{first}. Expected at least one axial chest CT slice that shows lung"
        )
        self.skipped = skipped


class ModelError(IldError):
    """The bundle, a model's contract, or the execution provider is at fault."""

    code = "model"
    exit_code = 4


class IndexFileError(IldError):
    """An index on disk is foreign, damaged, newer, or built for another bundle."""

    code = "index"
    exit_code = 5


class QueryStoppedError(IldError):
    """The caller had the work end before it was done; nothing of it goes on."""

    code = "stopped"
    exit_code = 6


class QueryCancelledError(QueryStoppedError):
    """The cancel token that the caller handed in was set."""

    code = "cancelled"


class QueryTimeoutError(QueryStoppedError):
    """The time limit that the caller handed in was reached."""

    code = "timeout"


class ServerError(IldError):
    """The resident server (``ildsdk serve``) cannot be asked, or went away before it answered."""

    code = "server"
    exit_code = 7


class ServerBusyError(ServerError):
    """The resident server takes no query at the moment; the same query may be sent again.

    Parameters
    ----------
    retry_after_s : int
        When to try again, seconds.
    """

    code = "server-busy"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
