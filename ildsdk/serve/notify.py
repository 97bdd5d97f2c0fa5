"""Tells a service manager how the server stands (the protocol of systemd's sd_notify)."""

from __future__ import annotations

import contextlib
import socket
import time


def notify(address: str | None, *lines: str) -> None:
    """Send state lines; nothing where there is nobody to tell.

    Parameters
    ----------
    address : str or None
        Value of ``NOTIFY_SOCKET``: a path, or ``@`` and an abstract name.
    lines : str
        For example ``"READY=1"``.
    """
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    # A manager that went away must not take the server with it.
    with (
        contextlib.suppress(OSError),
        contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender,
    ):
        sender.sendto("\n".join(lines).encode(), name)


def reloading() -> tuple[str, str]:
    """Lines that announce a reload."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
