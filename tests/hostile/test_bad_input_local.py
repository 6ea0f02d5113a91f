"""What speaks to the node's own sockets and breaks one rule: ZDS, key custody, the names that pods ask for.

Nobody but the node's root reaches the first two; what answers there must still not be led astray by it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from ambient.zds import custody
from ambient.zds.codec import Ack, Hello, encode_ack, encode_hello
from tests.hostile.conftest import Note
from tests.support.arena import Arena
from tests.support.hostile_peer import PATIENCE_S, inside
from tests.support.journey import WEB
from tests.support.lab import until

pytestmark = pytest.mark.usefixtures("bystander", "unchanged")
HELLO, OK = encode_hello(Hello()), encode_ack(Ack())
SNAPSHOT_S = 5.0


class AgentLog:
    """What n2's agent says from here on."""

    def __init__(self, place: Arena) -> None:
        self._path = place.lab.names.log("n2", "agent")
        self._from = self._path.stat().st_size

    def says(self, text: str) -> str:
        def line() -> str:
            new = self._path.read_bytes()[self._from :].decode(errors="replace")
            return next((line for line in new.splitlines() if text in line), "")

        return until(f"the agent says {text!r}", line, 10)


@pytest.fixture
def log(place: Arena) -> AgentLog:
    return AgentLog(place)


@contextlib.contextmanager
def local(place: Arena, name: str) -> Iterator[socket.socket]:
    """A connection to a socket in n2's folder: from there on n2 takes this process for a ztunnel, so no test about
    forged marks may be about n2."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(place.lab.names.node_folder(2) / name))
        yield sock


def ends(sock: socket.socket) -> bool:
    """Whether the agent hangs up."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(custody.MAX_PACKET):
            pass
    return True


def _drain_snapshot(sock: socket.socket, after: bytes) -> None:
    """Be a ztunnel until the snapshot's end, then send `after` instead of its acknowledgement."""
    sock.send(HELLO)
    for _ in range(50):
        packet, fds, _, _ = socket.recv_fds(sock, 2048, 4)
        for fd in fds:
            os.close(fd)
        if packet == b"\x2a\x00" or not packet or b"Pod" in packet:  # snapshot_sent has no content
            break
        if len(packet) <= 2:
            break
        sock.send(OK)
    sock.send(after)


def _says(*packets: bytes) -> Callable[[socket.socket], None]:
    def do(sock: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for packet in packets:
                sock.send(packet)

    return do


def _with_descriptors(packet: bytes, *paths: str) -> Callable[[socket.socket], None]:
    def do(sock: socket.socket) -> None:
        fds = [os.memfd_create(path) if path == "memfd" else os.open(path, os.O_RDONLY) for path in paths]
        try:
            socket.send_fds(sock, [packet], fds)
        finally:
            for fd in fds:
                os.close(fd)

    return do


ZDS: Mapping[str, tuple[Callable[[socket.socket], None], str]] = MappingProxyType(
    {
        "garbage for a hello": (_says(b"\xff\xff\xff"), "bytes are not that message"),
        "a hello of another version": (_says(encode_hello(Hello(7))), "version"),
        "an acknowledgement for a hello": (_says(OK), "ZDS"),
        "a packet of 2 KB": (_says(HELLO + bytes(2048)), "over 1024 bytes or 0 descriptors"),
        "a descriptor with its hello": (_with_descriptors(HELLO, "/dev/null"), "over 1024 bytes or 0 descriptors"),
        "a refused snapshot": (
            lambda sock: _drain_snapshot(sock, encode_ack(Ack("no"))), "refused by ztunnel: no",
        ),
        "garbage for an acknowledgement": (lambda sock: _drain_snapshot(sock, b"\xff\xff"), "bytes are not that"),
        "an answer of an unknown kind": (lambda sock: _drain_snapshot(sock, b"\x7a\x00"), "of a kind that we do not"),
        "an acknowledgement of nothing": (
            lambda sock: (_drain_snapshot(sock, OK), sock.send(OK), None)[-1], "nothing was asked",
        ),
    }
)  # fmt: skip


@pytest.mark.parametrize("name", ZDS)
def test_the_agent_hangs_up_on_a_ztunnel_that_sends(place: Arena, log: AgentLog, note: Note, name: str) -> None:
    say, why = ZDS[name]
    with local(place, "zds.sock") as sock:
        say(sock)
        assert ends(sock)
    told = log.says(why)
    assert f"ztunnel pid {os.getpid()}" in told
    note("ZDS", why, name, told.partition("ztunnel pid")[2] and told.split("WARNING")[-1].strip())


def test_a_ztunnel_that_says_nothing_is_given_up(place: Arena, log: AgentLog, note: Note) -> None:
    with local(place, "zds.sock") as sock:
        sock.settimeout(60)
        begin = time.monotonic()
        assert ends(sock)
        assert time.monotonic() - begin > SNAPSHOT_S - 1
    note("ZDS", "a hello within 5 s", "silence", log.says("no answer within 5 s").split("WARNING")[-1].strip())


@pytest.mark.parametrize("name", ["zds.sock", "custody.sock"])
def test_another_user_is_no_ztunnel(place: Arena, log: AgentLog, note: Note, name: str) -> None:
    """The socket's mode keeps him out; and were it open to all, whom the kernel calls him would."""
    path = place.lab.names.node_folder(2) / name
    assert path.stat().st_mode & 0o077 == 0
    program = "import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); os.setuid(65534)\n"
    program += "s.settimeout(5); s.connect(sys.argv[1]); print(s.recv(99))"
    command = ["/usr/bin/python3", "-c", program, str(path)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "PermissionError" in refused.stderr
    ways = [path, *[way for way in path.parents if len(way.parts) > 2]]
    before = {way: way.stat().st_mode & 0o7777 for way in ways}
    try:
        for way in ways:
            way.chmod(before[way] | 0o077)
        let_in = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        for way, mode in before.items():
            way.chmod(mode)
    assert let_in.stdout.strip() == "b''", let_in.stderr
    told = log.says("user 65534 may not be ztunnel")
    note("ZDS" if name[0] == "z" else "key custody", "of the agent's own user", "a connection of nobody",
         told.split("WARNING")[-1].strip())  # fmt: skip


PUT = custody.encode(custody.Put("spiffe://cluster.local/ns/shop/sa/thief", time.time() + 60, "roots"))
CUSTODY: Mapping[str, tuple[Callable[[socket.socket], None], str]] = MappingProxyType(
    {
        "garbage": (_says(b"\xc1\xc1"), "custody packet"),
        "an unknown message": (_says(msgspec.msgpack.encode({"type": "steal"})), "Invalid value 'steal'"),
        "a message without its fields": (_says(msgspec.msgpack.encode({"type": "put"})), "missing required field"),
        "a secret without a descriptor": (_says(PUT), "Put: came with 0 descriptors"),
        "a secret with two": (_with_descriptors(PUT, "memfd", "memfd"), "or 1 descriptors"),
        "a secret in a file": (_with_descriptors(PUT, "/etc/hostname"), "the descriptor is no memfd"),
        "a list with a descriptor": (
            _with_descriptors(custody.encode(custody.List()), "memfd"), "List: came with 1 descriptors",
        ),
        "what only the agent says": (_says(custody.encode(custody.End())), "only the agent sends it"),
        "a packet of 200 KB": (
            _says(msgspec.msgpack.encode({"type": "drop", "identity": "x" * 140_000})), "over 131072 bytes",
        ),
    }
)  # fmt: skip


@pytest.mark.parametrize("name", CUSTODY)
def test_the_agent_keeps_no_secret_of_who_sends(place: Arena, log: AgentLog, note: Note, name: str) -> None:
    say, why = CUSTODY[name]
    with local(place, "custody.sock") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        say(sock)
        assert ends(sock)
    told = log.says(why)
    with local(place, "custody.sock") as sock:
        sock.send(custody.encode(custody.List()))
        held = []
        while not isinstance(got := _held(sock), custody.End):
            held.append(got.identity)
        assert held, "the bystanders' keys are still there"
        assert not [identity for identity in held if identity.endswith("thief")]
    note("key custody", why, name, told.split("WARNING")[-1].strip())


def _held(sock: socket.socket) -> custody.Held | custody.End:
    packet, fds, _, _ = socket.recv_fds(sock, custody.MAX_PACKET, 1)
    for fd in fds:
        os.close(fd)
    message = custody.decode(packet, len(fds))
    assert isinstance(message, custody.Held | custody.End)
    return message


def question(name: bytes = b"\3far\4shop\3svc\7cluster\5local\0", kind: int = 1, **head: int) -> bytes:
    counts = [head.get(part, default) for part, default in (("questions", 1), ("answers", 0), ("authorities", 0))]
    return struct.pack(">HHHHHH", 7, head.get("flags", 0x0100), *counts, 0) + name + struct.pack(">HH", kind, 1)


MALFORMED: Mapping[str, bytes] = MappingProxyType(
    {
        "nothing but an id": b"\0\7",
        "a header cut short": question()[:11],
        "a header alone": question()[:12],
        "a response": question(flags=0x8180),
        "a notify": question(flags=0x2000),
        "an update": question(flags=0x2800),
        "no question": question(questions=0),
        "two questions": question(questions=2),
        "an answer beside its question": question(answers=1),
        "an authority beside its question": question(authorities=1),
        "a label of 64": question(name=b"\x40" + b"a" * 64 + b"\0"),
        "a name of 300": question(name=(b"\x3f" + b"a" * 63) * 5 + b"\0"),
        "a name that points to itself": question(name=b"\xc0\x0c"),
        "a name that points forward": question(name=b"\xc0\xff"),
        "a label longer than its message": question(name=b"\x3fabc"),
        "a name without an end": question()[:20],
        "a question without its type": question()[:-4],
        "a type without its class": question()[:-2],
        "text": b"GET / HTTP/1.1\r\n\r\n",
    }
)


def nameserver(place: Arena) -> str:
    resolv = place.lab.exec(WEB, "cat", "/etc/resolv.conf").stdout
    return next(line.split()[1] for line in resolv.splitlines() if line.startswith("nameserver"))


@pytest.fixture(scope="module")
def resolver(place: Arena) -> str:
    return nameserver(place)


@contextlib.contextmanager
def asker(place: Arena, resolver: str, kind: int) -> Iterator[socket.socket]:
    with inside(place.lab, WEB):
        sock = socket.socket(socket.AF_INET6 if ":" in resolver else socket.AF_INET, kind)
    with sock:
        sock.settimeout(PATIENCE_S)
        sock.connect((resolver, 53))
        yield sock


def test_a_good_question_is_answered_by_ztunnel_so_that_silence_means_something(place: Arena, resolver: str) -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with asker(place, resolver, kind) as sock:
            stream = kind == socket.SOCK_STREAM
            sock.sendall((struct.pack(">H", len(question())) if stream else b"") + question())
            answer = sock.recv(4096)
            assert struct.unpack(">H", answer[8 if stream else 6 :][:2])[0] >= 1


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_question_is_dropped(place: Arena, resolver: str, note: Note, name: str) -> None:
    """Over UDP nothing comes back (an answer to a stranger's forgery would be an amplifier), and the next good question
    on the same socket is answered; over TCP the connection ends."""
    with asker(place, resolver, socket.SOCK_DGRAM) as sock:
        sock.send(MALFORMED[name])
        sock.send(question())
        assert sock.recv(4096)[:2] == b"\0\7"
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(4096)
    with asker(place, resolver, socket.SOCK_STREAM) as sock:
        sock.sendall(struct.pack(">H", len(MALFORMED[name])) + MALFORMED[name])
        assert sock.recv(4096) == b""
    note("DNS", "a standard query with one whole question", name, "UDP: dropped; TCP: closed; dns_malformed_queries")


def test_every_malformed_question_was_counted(place: Arena, resolver: str) -> None:
    counter = "ambient_dns_malformed_queries_total"
    before = place.metrics("n1").get(counter, 0)
    with asker(place, resolver, socket.SOCK_DGRAM) as sock:
        for message in MALFORMED.values():
            sock.send(message)
    until("they are counted", lambda: place.metrics("n1").get(counter, 0) >= before + len(MALFORMED), 10)


def test_clients_of_names_beyond_the_limit_are_closed_and_counted(place: Arena, resolver: str, note: Note) -> None:
    counter = "ambient_dns_tcp_clients_limit_total"
    before = place.metrics("n1").get(counter, 0)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * 256 + 40):
            stack.enter_context(asker(place, resolver, socket.SOCK_STREAM))
        until("they are counted", lambda: place.metrics("n1").get(counter, 0) > before, 5)
        with asker(place, resolver, socket.SOCK_DGRAM) as sock:
            sock.send(question())
            assert sock.recv(4096)
    note(
        "DNS", "at most 256 TCP clients of a pod's names", "552 connections", "the others closed; dns_tcp_clients_limit"
    )


def test_a_message_that_never_comes_whole_is_given_up(place: Arena, resolver: str, note: Note) -> None:
    with asker(place, resolver, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.sendall(b"\xff\xff\0")
        begin = time.monotonic()
        assert sock.recv(10) == b""
        assert time.monotonic() - begin > 3
    note("DNS", "a whole message within 5 s", "three octets, then nothing", "closed after 5 s")


def test_what_speaks_here_is_what_a_user_runs(place: Arena) -> None:
    """The processes of these tests are the lab's own, from this source tree."""
    for name in ("agent", "ztunnel"):
        pid = place.lab.component("n1", name)["pid"]
        assert (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").startswith(sys.executable.encode() + b" -m ")
        )
