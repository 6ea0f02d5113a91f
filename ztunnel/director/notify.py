"""Telling whoever started us that we are on our way out, so that it can start the next one (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def say_stopping(main_pid: int) -> None:
    """STOPPING=1 to $NOTIFY_SOCKET; nothing happens without one. `main_pid`: the process that was told to end."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    name = "\0" + path[1:] if path[0] == "@" else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(f"STOPPING=1\nMAINPID={main_pid}\n".encode(), name)
