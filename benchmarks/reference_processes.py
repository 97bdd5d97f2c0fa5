"""The reference stack in processes of one thread each: its way to use all cores on a study."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self


def _answer_requests(requests: Connection, folder: Path) -> None:
    """Work of one process: answer lists of files until an empty one comes."""
    from benchmarks.reference_stack import ReferenceStack

    stack = ReferenceStack.open(folder, n_threads=1)
    requests.send("ready")
    while paths := requests.recv():
        requests.send([stack.query_file(path).rows.tolist() for path in paths])


class ReferenceProcesses:
    """Processes that have loaded the stack already, so that starting them costs no round.

    Parameters
    ----------
    folder : Path
        Files of the stack.
    n_processes : int
    """

    def __init__(self, folder: Path, n_processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(n_processes)]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_answer_requests, args=(theirs, folder), daemon=True)
            for _, theirs in pipes
        ]
        n_threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # OpenMP reads it when a process starts
        for process in self._processes:
            process.start()
        if n_threads is not None:
            os.environ["OMP_NUM_THREADS"] = n_threads

    def query_files(self, paths: Sequence[Path]) -> None:
        """Answer all files, each process every n-th one."""
        n = len(self._pipes)
        for start, pipe in enumerate(self._pipes):
            pipe.send(list(paths[start::n]))
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> Self:
        for pipe in self._pipes:
            pipe.recv()  # ready
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()
