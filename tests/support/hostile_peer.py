"""A peer at a pod's tunnel port that says whatever bytes a test wants, and hears what is answered.

Connections are made by the test's own process from inside a pod's network namespace: milliseconds each, and the local
port tells which line of ztunnel's log is about which peer.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpack import Decoder

from ambient.lab.names import NETNS_DIR
from ambient.netns import entered
from tests.support.lab import LabUnderTest
from ztunnel.hbone import frames

PATIENCE_S = 20.0
SHORT_S = 0.4
"""How long to listen where silence is the right answer."""
EMPTY_SETTINGS = frames.settings(())
HELLO = frames.PREFACE + EMPTY_SETTINGS


@contextmanager
def inside(lab: LabUnderTest, pod: str) -> Iterator[None]:
    """This thread makes its sockets in the pod's namespace."""
    fd = os.open(NETNS_DIR / lab.names.pod(*pod.split("/")), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


def dial(lab: LabUnderTest, pod: str, host: str, port: int, *, source_port: int = 0) -> socket.socket:
    """A TCP connection of the pod."""
    with inside(lab, pod):
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(PATIENCE_S)
    try:
        if source_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source_port))
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return sock


@dataclass
class Heard:
    """What a tunnel's server said so far. Frames as (type, flags, stream, payload)."""

    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    closed: str = ""
    """Why nothing more comes: "end", or the error; "" while it is open."""

    def of(self, kind: int) -> list[tuple[int, int, bytes]]:
        """Flags, stream and payload of all frames of a kind."""
        return [(flags, stream, payload) for found, flags, stream, payload in self.frames if found == kind]

    @property
    def goaway(self) -> tuple[int, str] | None:
        """Code and text of the GOAWAY that says that we did wrong."""
        for _, _, payload in self.of(frames.GOAWAY):
            code = struct.unpack(">I", payload[4:8])[0]
            if code:
                return code, payload[8:].decode("ascii", "replace")
        return None

    def reset(self, stream: int) -> int | None:
        """The code with which a stream was reset."""
        found = [struct.unpack(">I", payload)[0] for _, at, payload in self.of(frames.RST_STREAM) if at == stream]
        return found[0] if found else None

    def status(self, stream: int) -> int:
        """The status of the answer on a stream, 0 while there is none."""
        decoder = Decoder()
        for _, at, block in self.of(frames.HEADERS):
            fields = decoder.decode(block, raw=True)
            if at == stream:
                return int(dict(fields)[b":status"])
        return 0

    def data(self, stream: int) -> bytes:
        return b"".join(payload for _, at, payload in self.of(frames.DATA) if at == stream)


class Wire:
    """One TLS connection to a tunnel port; `heard` grows with `listen`. Close it, or `with` it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Raises OSError when the handshake fails; with TLS 1.3 a refused certificate is heard of only afterwards."""
        self.local = sock.getsockname()
        self._tail = b""
        self.heard = Heard()
        try:
            self.tls = context.wrap_socket(sock)
        except OSError:
            sock.close()
            raise
        self.tls.settimeout(PATIENCE_S)

    def send(self, *parts: bytes) -> None:
        """Send all; a server that has hung up already is no error here: `listen` tells."""
        try:
            self.tls.sendall(b"".join(parts))
        except OSError as error:
            self.heard.closed = self.heard.closed or str(error)

    def listen(self, seconds: float = SHORT_S, *, enough: object = None) -> Heard:
        """Hear until the connection is closed, the time is over, or `enough(heard)`."""
        deadline = time.monotonic() + seconds
        while not (callable(enough) and enough(self.heard)):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.tls.settimeout(left)
            try:
                data = self.tls.recv(65536)
            except TimeoutError:
                break
            except OSError as error:
                self.heard.closed = str(error)
                break
            if not data:
                self.heard.closed = "end"
                break
            self._cut(data)
        self.tls.settimeout(PATIENCE_S)
        return self.heard

    def pour(self, stream: int, size: int) -> None:
        """Send so many octets of DATA, never more than the server's windows allow. AssertionError when it stops."""
        sent, piece = 0, 65_536
        while sent < size:
            while self._credit(stream) - sent < piece or self._credit(0) - sent < piece:
                before = len(self.heard.frames)
                self.listen(PATIENCE_S, enough=lambda heard, before=before: len(heard.frames) > before)
                assert len(self.heard.frames) > before, f"no more room after {sent} octets"
                assert self.heard.reset(stream) is None
            self.send(data(stream, bytes(piece)))
            sent += piece

    def _credit(self, stream: int) -> int:
        """Octets that may be sent on a stream (0: on the connection) since the beginning."""
        credit = frames.DEFAULT_WINDOW
        for flags, _, payload in self.heard.of(frames.SETTINGS) if stream else ():
            for name, value in frames.SETTING.iter_unpack(b"" if flags & frames.ACK else payload):
                credit = value if name == frames.SETTING_INITIAL_WINDOW else credit
        updates = [payload for _, at, payload in self.heard.of(frames.WINDOW_UPDATE) if at == stream]
        return credit + sum(struct.unpack(">I", payload)[0] for payload in updates)

    def _cut(self, data: bytes) -> None:
        data = self._tail + data
        at = 0
        while len(data) - at >= 9:
            high, low, kind, flags, stream = frames.HEADER.unpack_from(data, at)
            size = high << 8 | low
            if len(data) - at < 9 + size:
                break
            self.heard.frames.append((kind, flags, stream, data[at + 9 : at + 9 + size]))
            at += 9 + size
        self._tail = data[at:]

    def close(self) -> None:
        self.tls.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NodeLog:
    """A ztunnel's log file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def about(self, local: tuple[object, ...]) -> str:
        """The lines about connections from a local address; not the last one while it is being written."""
        host, port = local[0], local[1]
        source = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
        text = self._path.read_text(errors="replace")
        whole = text[: text.rfind("\n") + 1]
        return "\n".join(line for line in whole.splitlines() if f"src.addr={source} " in line)


def literal(name: bytes, value: bytes) -> bytes:
    """A header field in plain literals of any size."""

    def text(raw: bytes) -> bytes:
        if len(raw) < 127:
            return bytes((len(raw),)) + raw
        size, out = len(raw) - 127, bytearray(b"\x7f")
        while size >= 128:
            out.append(size & 127 | 128)
            size >>= 7
        return bytes(out) + bytes((size,)) + raw

    return b"\x00" + text(name) + text(value)


def block(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def connect(authority: str | bytes, *more: tuple[bytes, bytes]) -> bytes:
    """The header block of a CONNECT request."""
    text = authority.encode() if isinstance(authority, str) else authority
    return block((b":method", b"CONNECT"), (b":authority", text), *more)


def headers(stream: int, payload: bytes, *, end: bool = False, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags | (frames.END_STREAM if end else 0), stream, payload)


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    return frames.frame(frames.DATA, frames.END_STREAM if end else 0, stream, payload)
