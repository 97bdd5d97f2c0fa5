"""Uploaded studies: a private file that no crash leaves behind."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from ildsdk.errors import ConfigError, InputError, ServerError
from ildsdk.serve.problems import RefusedRequestError

_ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")
_IS_LINUX = sys.platform == "linux"


class Upload:
    """Bytes of one study on their way to a file.

    Parameters
    ----------
    folder : Path
        Private folder of this upload; its study gets a fixed name in it, so that
        nothing of the sender's file name enters an answer.
    file : file object
        Where the bytes go.
    max_bytes : int
        Largest size.

    Notes
    -----
    On Linux the file has no name: the kernel frees it with the last handle, also where the server
    is killed, and only a dangling link stays. Elsewhere it is a named file in the folder.
    """

    def __init__(self, folder: Path, file: IO[bytes], max_bytes: int) -> None:
        self._folder = folder
        self._file = file
        self._max_bytes = max_bytes

    async def receive(self, chunks: AsyncIterator[bytes], announced: int | None) -> Path:
        """Write the bytes; gives the path of the study.

        Parameters
        ----------
        announced : int or None
            Content-Length.

        Raises
        ------
        RefusedRequestError
            More bytes than allowed, announced or sent.
        InputError
            No byte came.
        ServerError
            The disk is full.
        """
        self._check_size(announced or 0)
        first, n_bytes = b"", 0
        try:
            async for chunk in chunks:
                n_bytes += len(chunk)
                self._check_size(n_bytes)
                first = first if len(first) >= 4 else (first + chunk)[:4]
                self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise ServerError(
                f"the server has no room for the upload ({error.strerror})"
            ) from error
        if not first:
            raise InputError("the upload is empty, expected a DICOM file or a zip of them")
        path = self._folder / ("upload.zip" if first in _ZIP_MARKS else "upload.dcm")
        if _IS_LINUX:
            path.symlink_to(f"/proc/self/fd/{self._file.fileno()}")
        else:
            Path(self._file.name).rename(path)
        return path

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise RefusedRequestError(
                413,
                InputError(
                    f"the upload has {n_bytes} bytes or more, this server takes at most "
                    f"{self._max_bytes} (--max-upload-mib): send fewer slices, or start the server "
                    "with more"
                ),
            )


@contextlib.contextmanager
def new_upload(parent: Path | None, max_bytes: int) -> Iterator[Upload]:
    """Give an upload in a folder that only this user may enter, both gone at the end.

    Raises
    ------
    ServerError
        No file can be made there.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(
                        prefix="ildsdk-upload-", dir=parent, ignore_cleanup_errors=True
                    )
                )
            )
            file: IO[bytes]
            if _IS_LINUX:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            else:
                file = stack.enter_context((folder / "study").open("xb"))
        except OSError as error:
            raise ServerError(
                f"the server cannot keep an upload ({error.strerror}): its --upload-folder must "
                "be writable"
            ) from error
        yield Upload(folder, file, max_bytes)


def check_upload_folder(parent: Path | None) -> None:
    """Try at start what each upload will need.

    Raises
    ------
    ConfigError
        The folder is missing or not writable.
    """
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"uploads cannot be kept ({error.strerror}): name a folder that this user may write "
            "to with --upload-folder"
        ) from error
