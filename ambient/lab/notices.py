"""What a component says about itself (sd_notify(3)): that it is on its way out, so that the next one may start.

One datagram socket per component, at the path it finds in $NOTIFY_SOCKET.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Final

_LARGEST: Final = 4_096


class Notices:
    """Listens until closed. Raises OSError when the socket cannot be made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.bind(str(path))
        except OSError:
            self._sock.close()
            raise

    async def stopping(self, pid: int) -> None:
        """Return when the process `pid` says that it is about to stop; what others said before is passed over."""
        loop = asyncio.get_running_loop()
        while True:
            said = await loop.sock_recv(self._sock, _LARGEST)
            fields = dict(line.partition("=")[::2] for line in said.decode("utf-8", "replace").splitlines())
            if fields.get("STOPPING") == "1" and fields.get("MAINPID") == str(pid):
                return

    def close(self) -> None:
        self._sock.close()
        self._path.unlink(missing_ok=True)
