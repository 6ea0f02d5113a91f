"""The other project's ends of ZDS, written from the protocol's facts alone: nothing of ours makes or reads an octet.

Both are stricter than the real ones: an agent that sees an answer it did not ask for, a field it does not know or a
late descriptor fails the test; a ztunnel that is sent two requests at once, a wrong number of descriptors or a packet
that does not fit its 1024 octets does so too. Blocking sockets, for use in threads (`asyncio.to_thread`).
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

HELLO = bytes.fromhex("0801")
SNAPSHOT_SENT = bytes.fromhex("1a00")
ACKED = bytes.fromhex("0a00")
PACKET = 1024
DEADLINE_S = 5.0
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000
_ADD, _DEL, _SNAPSHOT, _KEEP = 1, 2, 3, 5


def text(number: int, value: str) -> bytes:
    """A string field of a message; nothing when it is empty (proto3)."""
    return piece(number, value.encode()) if value else b""


def piece(number: int, body: bytes) -> bytes:
    """A length-delimited field; lengths over 127 take two octets."""
    size = len(body)
    return bytes([number << 3 | 2, *([size] if size < 128 else [size & 0x7F | 0x80, size >> 7])]) + body


def add(uid: str, name: str, namespace: str, account: str) -> bytes:
    info = text(1, name) + text(2, namespace) + text(3, account)
    return piece(_ADD, text(1, uid) + piece(2, info))


def delete(uid: str) -> bytes:
    """The uid of a deletion has number 2."""
    return piece(_DEL, text(2, uid))


def keep(uid: str) -> bytes:
    return piece(_KEEP, text(1, uid))


def refusal(error: str) -> bytes:
    return piece(1, text(1, error))


def pieces(packet: bytes) -> dict[int, bytes]:
    """The fields of a message that has only length-delimited ones, each at most once."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(packet):
        number, kind = packet[at] >> 3, packet[at] & 7
        assert kind == 2, f"field {number} has wire type {kind}"
        size, at = packet[at + 1], at + 2
        if size & 0x80:
            size, at = size & 0x7F | packet[at] << 7, at + 1
        assert number not in found, f"field {number} is there twice"
        assert at + size <= len(packet), "a field is longer than its packet"
        found[number], at = packet[at : at + size], at + size
    return found


def is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


class IstioAgent:
    """The node agent: listens; `accept` takes a ztunnel, whose hello must be right."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(20)

    def accept(self) -> Told:
        sock, _ = self._listener.accept()
        sock.settimeout(DEADLINE_S)
        packet, fds, _, _ = socket.recv_fds(sock, PACKET, 4)
        assert packet == HELLO, packet
        assert not fds
        return Told(sock)

    def close(self) -> None:
        self._listener.close()


class Told:
    """One ztunnel that is told about pods; each request waits for its answer, and there is exactly one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def ask(self, request: bytes, *fds: int) -> str:
        """Send a request; the error of its acknowledgement, "" when there is none."""
        self.silent()
        socket.send_fds(self._sock, [request], list(fds))
        packet, came, _, _ = socket.recv_fds(self._sock, PACKET, 4)
        assert packet, "ztunnel hung up"
        assert not came
        self.silent()
        (number, ack), *others = pieces(packet).items()
        assert (number, others) == (1, [])
        fields = pieces(ack)
        assert fields.keys() <= {1}
        assert fields or packet == ACKED
        return fields.get(1, b"").decode()

    def serve(self, uid: str, netns: int, name: str = "web", namespace: str = "shop", account: str = "seller") -> str:
        return self.ask(add(uid, name, namespace, account), netns)

    def silent(self) -> None:
        """Between requests a ztunnel says nothing: the real agent takes anything for its death."""
        self._sock.setblocking(False)
        try:
            said = self._sock.recv(PACKET)
        except BlockingIOError:
            return
        finally:
            self._sock.settimeout(DEADLINE_S)
        raise AssertionError(f"unasked: {said!r}")

    def hung_up(self, request: bytes, *fds: int) -> bool:
        """A request after which the other side ends the connection, without an answer."""
        socket.send_fds(self._sock, [request], list(fds))
        return self._sock.recv(PACKET) == b""

    def close(self) -> None:
        self._sock.close()


@dataclass
class RustZtunnel:
    """A ztunnel: connects, says hello, answers what it is asked. `refuse`: uids it cannot serve."""

    path: Path
    refuse: set[str] = field(default_factory=set)
    served: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    heard: list[tuple[str, str]] = field(default_factory=list)
    snapshot: bool = False

    def __post_init__(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(20)
        self._sock.connect(str(self.path))
        self._named: set[str] = set()
        socket.send_fds(self._sock, [HELLO], [])

    def answer(self, count: int) -> None:
        """Take so many requests, one after the other, and answer each."""
        for _ in range(count):
            self.answer_one()

    def answer_one(self) -> None:
        room = socket.CMSG_LEN(4 * array.array("i").itemsize)
        packet, ancillary, flags, _ = self._sock.recvmsg(PACKET, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        assert packet, "the agent hung up"
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        self._nothing_more()
        ((number, body),) = pieces(packet).items()
        try:
            assert len(fds) == (1 if number == _ADD else 0)
            error = self._act(number, pieces(body), fds)
        finally:
            for fd in fds:
                os.close(fd)
        self._sock.send(refusal(error) if error else ACKED)

    def _act(self, number: int, fields: dict[int, bytes], fds: array.array[int]) -> str:
        if number == _SNAPSHOT:
            assert not fields
            assert not self.snapshot, "two snapshots on one connection"
            self.snapshot = True
            self.heard.append(("snapshot", ""))
            self.served = {uid: info for uid, info in self.served.items() if uid in self._named}
            return ""
        uid = fields[2 if number == _DEL else 1].decode()
        assert uid
        if number == _KEEP:
            assert not self.snapshot, "keep after the snapshot"
            self.heard.append(("keep", uid))
            self._named.add(uid)
        elif number == _DEL:
            assert fields.keys() == {2}
            self.heard.append(("del", uid))
            self._named.discard(uid)
            if self.snapshot:
                self.served.pop(uid, None)
        else:
            return self._add(number, uid, fields, fds)
        return ""

    def _add(self, number: int, uid: str, fields: dict[int, bytes], fds: array.array[int]) -> str:
        assert number == _ADD
        assert is_network_namespace(fds[0])
        info = pieces(fields[2])
        assert info.keys() == {1, 2, 3}
        self.heard.append(("add", uid))
        self._named.add(uid)
        if uid in self.refuse:
            return "failed to bind: Address already in use"
        self.served[uid] = (info[1].decode(), info[2].decode(), info[3].decode())
        return ""

    def _nothing_more(self) -> None:
        self._sock.setblocking(False)
        try:
            more = self._sock.recv(PACKET, socket.MSG_PEEK)
        except BlockingIOError:
            return
        finally:
            self._sock.settimeout(20)
        raise AssertionError(f"a second request before the first was answered: {more!r}")

    def say(self, packet: bytes) -> None:
        """Anything, asked for or not."""
        self._sock.send(packet)

    def hung_up(self) -> bool:
        """Wait until the other side ends the connection."""
        return self._sock.recv(PACKET) == b""

    def close(self) -> None:
        self._sock.close()
