"""Throw-away servers for the capture tests: an application that says whom it sees, and a stand-in for ztunnel.

The stand-in keeps the capture contract (marked transparent listeners, marked upstream sockets, the client's address
towards the application) and relays bytes in plain; what it saw is in `StandIn.seen`.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from ambient.model.address import (
    DNS_PORT,
    HBONE_PORT,
    OUTBOUND_PORT,
    PLAINTEXT_PORT,
    PROXY_MARK,
    ZTUNNEL_PORTS,
    Endpoint,
    canonical,
)
from tests.support.capture_world import IP_TRANSPARENT, IPV6_TRANSPARENT, Place, World, family_of

PATIENCE = 10.0
IP_RECVORIGDSTADDR = 20
IPV6_RECVORIGDSTADDR = 74


def endpoint(address: tuple[object, ...]) -> Endpoint:
    return Endpoint(canonical(ip_address(str(address[0]).partition("%")[0])), int(str(address[1])))


@dataclass(frozen=True, slots=True)
class Seen:
    """A connection at a listener of the stand-in: by port, with the addresses that it carried."""

    port: int
    source: Endpoint
    destination: Endpoint


def marked_listener(
    world: World, place: Place, port: int, kind: int = socket.SOCK_STREAM, *, owner: str = "ztunnel"
) -> socket.socket:
    """A socket as ztunnel binds it in a pod: dual stack, transparent, marked. TCP: not listening yet."""
    listener = world.socket(place, socket.AF_INET6, kind, owner=owner)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if kind == socket.SOCK_DGRAM:
        listener.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)
    listener.bind(("::", port))
    return listener


class _Server:
    """Accepts on some sockets, each connection in a thread of its own, until closed."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def _serve(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        listener.listen(128)
        self._listeners.append(listener)
        self._start(lambda: self._accept(listener, handle))

    def _start(self, body: Callable[[], None]) -> None:
        thread = threading.Thread(target=body, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._open.add(connection)
            self._start(lambda connection=connection: self._guarded(connection, handle))  # type: ignore[misc]

    def _guarded(self, connection: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError), connection:
            handle(connection)

    def stop_listening(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._listeners.clear()

    def close(self) -> None:
        self.stop_listening()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for connection in self._open:
            connection.close()


class App(_Server):
    """Greets with the address that it sees ("ip port\\n"), then echoes."""

    def __init__(self, world: World, place: Place, version: int, port: int = 0) -> None:
        super().__init__()
        listener = world.socket(place, family_of(version))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(place.ip(version)), port))
        self.address = Endpoint(place.ip(version), listener.getsockname()[1])
        self._serve(listener, self._echo)

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        peer = endpoint(connection.getpeername())
        connection.sendall(f"{peer.ip} {peer.port}\n".encode())
        while data := connection.recv(65536):
            connection.sendall(data)


class StandIn(_Server):
    """ztunnel's place in one pod."""

    def __init__(self, world: World, place: Place, *, owner: str = "ztunnel", names: bool = False) -> None:
        super().__init__()
        self._world = world
        self._place = place
        self._owner = owner
        self.seen: queue.Queue[Seen] = queue.Queue()
        for port, handle in (
            (OUTBOUND_PORT, self._outbound),
            (PLAINTEXT_PORT, self._inbound),
            (HBONE_PORT, self._hbone),
            *(((DNS_PORT, self._echo_names),) if names else ()),
        ):
            self._serve(marked_listener(world, place, port, owner=owner), self._noting(port, handle))
        if names:
            self._names = marked_listener(world, place, DNS_PORT, socket.SOCK_DGRAM, owner=owner)
            self._listeners.append(self._names)
            self._start(self._answer_names)

    def _noting(self, port: int, handle: Callable[[socket.socket, Seen], None]) -> Callable[[socket.socket], None]:
        def noted(connection: socket.socket) -> None:
            seen = Seen(port, endpoint(connection.getpeername()), endpoint(connection.getsockname()))
            self.seen.put(seen)
            if seen.destination.port not in ZTUNNEL_PORTS or port == HBONE_PORT:
                handle(connection, seen)

        return noted

    def upstream(self, target: Endpoint, source: Endpoint | None = None) -> socket.socket:
        """A marked connection; with `source`, from its address and any port."""
        family = family_of(target.ip.version)
        made = self._world.socket(self._place, family, owner=self._owner)
        self._open.add(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        if source is not None:
            level, option = (
                (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 19)
            )
            made.setsockopt(level, option, 1)
            made.bind((str(source.ip), 0))
        made.settimeout(PATIENCE)
        made.connect((str(target.ip), target.port))
        made.settimeout(None)
        return made

    def _outbound(self, connection: socket.socket, seen: Seen) -> None:
        self._relay(connection, self.upstream(seen.destination))

    def _inbound(self, connection: socket.socket, seen: Seen) -> None:
        self._relay(connection, self.upstream(seen.destination, seen.source))

    def _hbone(self, connection: socket.socket, _seen: Seen) -> None:
        connection.sendall(b"hbone\n")

    def _echo_names(self, connection: socket.socket, _seen: Seen) -> None:
        connection.sendall(b"names\n")

    def _relay(self, one: socket.socket, two: socket.socket) -> None:
        with two:
            back = threading.Thread(target=self._copy, args=(two, one), daemon=True)
            back.start()
            self._copy(one, two)
            back.join(PATIENCE)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _answer_names(self) -> None:
        """Each query is answered from the address that it was sent to, with that address as the answer."""
        while True:
            try:
                data, ancillary, _, client = self._names.recvmsg(4096, 256)
            except OSError:
                return
            if not ancillary:
                return  # the socket was shut down
            destination = _original_destination(ancillary)
            source = endpoint(client)
            self.seen.put(Seen(DNS_PORT, source, destination))
            family = family_of(destination.ip.version)
            with self._world.socket(self._place, family, socket.SOCK_DGRAM, owner=self._owner) as reply:
                level, option = (
                    (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 19)
                )
                reply.setsockopt(level, option, 1)
                reply.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reply.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
                reply.bind((str(destination.ip), destination.port))
                reply.sendto(data + f" {destination}".encode(), (str(source.ip), source.port))


def _original_destination(ancillary: list[tuple[int, int, bytes]]) -> Endpoint:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_RECVORIGDSTADDR):
            return Endpoint(ip_address(data[4:8]), int.from_bytes(data[2:4], "big"))
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR):
            return Endpoint(canonical(ip_address(data[8:24])), int.from_bytes(data[2:4], "big"))
    raise AssertionError(f"no original destination in {ancillary}")
