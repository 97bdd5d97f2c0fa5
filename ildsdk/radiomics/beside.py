"""Two pieces of work at once, for callers whose thread budget has room for a second thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_both(work: Callable[[], None], beside: Callable[[], None]) -> None:
    """Run ``beside`` in a thread of its own while ``work`` runs in this one.

    The thread lives for this call only: nothing is left for a forked child to miss. Both have
    ended on return, also where one raises or an interrupt arrives; the first to raise wins.
    """
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            beside()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded, name="ildsdk-radiomics")
    thread.start()
    try:
        work()
    finally:
        interrupt: BaseException | None = None
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as error:  # the buffers stay in use until the thread ends
                interrupt = error
        if interrupt is not None:
            raise interrupt
    if raised:
        raise raised[0]
