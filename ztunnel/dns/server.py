"""15053: one of a pod's DNS sockets, UDP or TCP."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ambient.errors import InvalidInput, MeshError
from ambient.model.address import Endpoint
from ambient.model.dns import AAAA, IN, A, Query, read_query, write_answer, write_failure
from ztunnel.dns.measure import asked, dns_labels
from ztunnel.dns.stream import MessageEnd
from ztunnel.dns.upstream import Resolvers
from ztunnel.ipc.messages import NameAnswer
from ztunnel.proxy.accept import Acceptor
from ztunnel.proxy.backlog import Chunks
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.pod import Pod
from ztunnel.proxy.poller import READ
from ztunnel.proxy.sockets import endpoint_of, speak_as

IDLE_S: Final = 5.0
ASK_S: Final = 1.0
CLIENTS_LIMIT: Final = 256
WAITING_LIMIT: Final = 256
"""Questions of a socket that wait for the director: the other pods' wait behind them."""
_PER_WAKEUP: Final = 64
_REPLY_SOCKETS: Final = 8
_ORIGDSTADDR: Final = {(socket.SOL_IP, 20), (socket.IPPROTO_IPV6, 74)}
_TYPES: Final = {A: "A", AAAA: "AAAA"}


def original_of(ancillary: list[tuple[int, int, bytes]]) -> Endpoint | None:
    """The address a datagram was sent to, from its control messages."""
    for level, kind, raw in ancillary:
        if (level, kind) not in _ORIGDSTADDR or len(raw) < 8:
            continue
        family, port = struct.unpack_from("=H", raw)[0], struct.unpack_from(">H", raw, 2)[0]
        if family == socket.AF_INET:
            return endpoint_of((socket.inet_ntop(family, raw[4:8]), port))
        if family == socket.AF_INET6 and len(raw) >= 24:
            return endpoint_of((socket.inet_ntop(family, raw[8:24]), port))
    return None


class DnsServer:
    """Owns nothing: the listening socket is the served pod's."""

    def __init__(self, plane: Plane, pod: Pod, sock: socket.socket, resolvers: Resolvers) -> None:
        self._plane = plane
        self._pod = pod
        self._sock = sock
        self._resolvers = resolvers
        self._replies: OrderedDict[Endpoint, socket.socket] = OrderedDict()
        self._clients: set[_TcpClient] = set()
        self._acceptor: Acceptor | None = None
        self._port = sock.getsockname()[1]
        self._open = True
        self.waiting = 0
        """Questions that the director has not answered yet."""
        if sock.type == socket.SOCK_DGRAM:
            sock.setblocking(False)
            plane.poller.watch(sock.fileno(), READ, self._readable)
        else:
            count = plane.recorder.counters.count
            self._acceptor = Acceptor(plane.poller, sock, self._take, count, plane.crashed)

    def close(self) -> None:
        """Answer no more."""
        if not self._open:
            return
        self._open = False
        if self._acceptor is not None:
            self._acceptor.pause()
        else:
            self._plane.poller.leave(self._sock.fileno())
        self._resolvers.drop(self._pod.uid)
        for reply in self._replies.values():
            reply.close()
        self._replies.clear()
        for client in list(self._clients):
            client.close()

    # --- UDP

    def _readable(self, events: int) -> None:
        for _ in range(_PER_WAKEUP):
            try:
                data, ancillary, _, peer = self._sock.recvmsg(4096, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._plane.recorder.counters.count("dns_receive_errors")
                return
            try:
                self._datagram(data, endpoint_of(peer), original_of(ancillary), peer)
            except Exception as error:
                self._plane.crashed("dns", error)

    def _datagram(self, data: bytes, client: Endpoint, dialled: Endpoint | None, peer: tuple[object, ...]) -> None:
        target = dialled or endpoint_of(self._sock.getsockname())

        def reply(answer: bytes) -> None:
            if not self._open:
                return
            try:
                if target.port == self._port:
                    self._sock.sendto(answer, peer)
                else:
                    self._reply_socket(target).sendto(answer, (str(client.ip), client.port))
            except (OSError, MeshError) as error:
                self._plane.recorder.counters.count("dns_reply_errors")
                self._plane.recorder.log.log("debug", "dns", f"reply to {client} as {target}: {error}")

        self.answer(data, target, reply, stream=False)

    def _reply_socket(self, target: Endpoint) -> socket.socket:
        """A socket that speaks as the resolver the pod had dialled."""
        found = self._replies.get(target)
        if found is None:
            if len(self._replies) >= _REPLY_SOCKETS:
                self._replies.popitem(last=False)[1].close()
            found = self._pod.sockets.udp(target.ip.version)
            try:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                speak_as(found, target)
                # It only speaks; whatever is sent to it is not for us.
                found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            except OSError:
                found.close()
                raise
            self._replies[target] = found
        else:
            self._replies.move_to_end(target)
        return found

    # --- TCP

    def _take(self, sock: socket.socket, peer: tuple[object, ...]) -> None:
        if len(self._clients) >= CLIENTS_LIMIT:
            self._plane.recorder.counters.count("dns_tcp_clients_limit")
            sock.close()
            return
        client = _TcpClient(self, sock, self._pod.sockets.dialled(sock))
        self._clients.add(client)

    def forget(self, client: _TcpClient) -> None:
        self._clients.discard(client)

    # --- both

    @property
    def plane(self) -> Plane:
        return self._plane

    def answer(self, data: bytes, dialled: Endpoint, reply: Callable[[bytes], None], *, stream: bool) -> bool:
        """Answer or forward one message; False when it was malformed and dropped."""
        counters = self._plane.recorder.counters
        try:
            query = read_query(data)
        except InvalidInput:
            counters.count("dns_malformed_queries")
            return False
        asked(counters, dns_labels(query.qtype, self._pod.labels, stream=stream))
        if query.qclass == IN and query.qtype in _TYPES and query.name:
            _Question(self, query, data, dialled, reply, stream=stream).ask()
        else:
            self.forward(query, data, dialled, reply, stream=stream)
        return True

    def resolve(self, query: Query, answer: NameAnswer, *, stream: bool) -> bytes:
        """The message for a name of the mesh; addresses in random order."""
        addresses = sorted(answer.addresses, key=lambda _: self._plane.random())
        return write_answer(query, addresses, answer.canonical, limit=None if stream else query.limit)

    def forward(
        self, query: Query, data: bytes, dialled: Endpoint, reply: Callable[[bytes], None], *, stream: bool
    ) -> None:
        """Pass on to a real resolver."""

        def done(answer: bytes | None) -> None:
            reply(write_failure(query) if answer is None else answer)

        if self._open:
            self._resolvers.forward(self._pod, query, data, dialled, done, stream=stream)

    @property
    def chunks(self) -> Chunks:
        """What answers wait in that a client does not read: the pod's."""
        return self._pod.buffers.chunks

    @property
    def uid(self) -> str:
        return self._pod.uid

    @property
    def resolvers(self) -> Resolvers:
        return self._resolvers


class _Question:
    """A question of A or AAAA: the director is asked first, for a short time."""

    __slots__ = ("_data", "_dialled", "_key", "_query", "_reply", "_server", "_stream", "_timer")

    def __init__(
        self,
        server: DnsServer,
        query: Query,
        data: bytes,
        dialled: Endpoint,
        reply: Callable[[bytes], None],
        *,
        stream: bool,
    ) -> None:
        self._server = server
        self._query = query
        self._data = data
        self._dialled = dialled
        self._reply = reply
        self._stream = stream
        self._key = (server.uid, query.name, _TYPES[query.qtype])
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        server = self._server
        names = server.resolvers.names
        known = names.get(self._key)
        if known is not None:
            self._tell(known)
            return
        if server.waiting >= WAITING_LIMIT:
            server.plane.recorder.counters.count("dns_waiting_limit")
            self._reply(write_failure(self._query))
            return
        server.waiting += 1
        self._timer = server.plane.loop.call_later(ASK_S, self._expired)
        names.ask(self._key, self._answered)

    def _expired(self) -> None:
        self._server.resolvers.names.leave(self._key, self._answered)
        self._server.plane.recorder.counters.count("dns_director_slow")
        self._answered(None)

    def _answered(self, answer: NameAnswer | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._server.waiting -= 1
        self._tell(answer)

    def _tell(self, answer: NameAnswer | None) -> None:
        if answer is not None and answer.known:
            self._reply(self._server.resolve(self._query, answer, stream=self._stream))
        else:
            self._server.forward(self._query, self._data, self._dialled, self._reply, stream=self._stream)


class _TcpClient:
    """One TCP connection of the pod to the DNS server. A client that ends its side still gets what it has asked for."""

    __slots__ = ("_dialled", "_end", "_owed", "_server", "_timer")

    def __init__(self, server: DnsServer, sock: socket.socket, dialled: Endpoint) -> None:
        self._server = server
        self._dialled = dialled
        self._owed = 0
        """Questions that are not answered yet."""
        self._end = MessageEnd(server.plane, sock, self._message, self.close, server.chunks, self._close_if_done)
        self._timer = server.plane.loop.call_later(IDLE_S, self.close)
        self._end.start_reading()

    def _message(self, data: bytes) -> None:
        self._timer.cancel()
        self._timer = self._server.plane.loop.call_later(IDLE_S, self.close)
        self._owed += 1
        if not self._server.answer(data, self._dialled, self._reply, stream=True):
            self.close()

    def _reply(self, answer: bytes) -> None:
        self._owed -= 1
        self._end.send(answer)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._end.heard_all and not self._owed:
            self._end.end_writing()

    def close(self) -> None:
        self._timer.cancel()
        self._end.close()
        self._server.forget(self)
