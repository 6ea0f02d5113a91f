"""A way from this process's own namespace to an address of a lab: a loopback port whose connections go on there.

Libraries that open sockets in threads of their own (gRPC) cannot be put into a network namespace; this can.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ambient.netns import entered


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for sock, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            sock.shutdown(how)


@contextmanager
def crossing(netns: Path, host: str, port: int) -> Iterator[int]:
    """A port on 127.0.0.1 that leads to host:port as seen from `netns`."""
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                with entered(fd):
                    far = socket.create_connection((host, port), 30)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            ends.extend((near, far))
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=_pump, args=pair, daemon=True)
                thread.start()
                threads.append(thread)

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for sock in ends:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for sock in ends:
            sock.close()
        os.close(fd)
