"""Work in threads of our own; the compiled kernels release the GIL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def in_threads(work: Callable[[int], None], tasks: range, n_threads: int) -> None:
    """Do work that releases the GIL for each task, in this thread where one is enough."""
    if n_threads == 1 or len(tasks) < 2:
        for task in tasks:
            work(task)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, tasks))
