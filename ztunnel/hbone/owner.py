"""Who drives a connection: what the protocol core asks of whoever has the transport."""

from __future__ import annotations

from typing import Protocol

from ztunnel.hbone.limits import Violation
from ztunnel.hbone.message import Request
from ztunnel.hbone.stream import Sink, Stream


class Owner(Protocol):
    """Who drives the connection."""

    def write(self, data: bytes | memoryview) -> None:
        """Take octets to send; the memory is reused after the call."""

    def on_request(self, stream: Stream, request: Request) -> Sink:
        """Server role: a new stream; answer it with `Stream.answer` or `Stream.reset`, now or later."""

    def on_going_away(self) -> None:
        """GOAWAY came. To a client: no new streams, the known ones go on. To a server nothing: clients may open on."""

    def on_violation(self, violation: Violation) -> None:
        """Count `violation.reason`. When `Connection.broken` is set, send what was written and close."""
