"""What a container with CAP_NET_RAW puts on its own wire, and whom it dials with it: nothing of it gets past ztunnel.

The whole mesh is in place; each refusal is counted by the datapath of the pod's node, by the reason it was refused for.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

import pytest

from ambient.lab.names import NETNS_DIR
from ambient.model.address import PROXY_MARK
from ambient.netns import entered
from tests.support import frames as craft
from tests.support.arena import EVIL, Arena
from tests.support.hostile_peer import PATIENCE_S, dial, inside
from tests.support.journey import FAR, HTTP, LINES, OUTSIDE, WEB
from tests.support.lab import until

pytestmark = pytest.mark.usefixtures("bystander")
GET = b"GET /id HTTP/1.0\r\n\r\n"
NOPS = b"\1\1\1\0"
RECORD_ROUTE = b"\7\7\4" + bytes(4) + b"\0"
IPV6_HDRINCL = 36
ALL_PROTOCOLS = 3
PATIENT_S = 1.0


@contextlib.contextmanager
def node(place: Arena, name: str) -> Iterator[None]:
    """This thread makes its sockets in the node's namespace."""
    fd = os.open(NETNS_DIR / place.lab.names.node(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


def refusals(place: Arena, node: str) -> dict[str, int]:
    """Reason -> how many new connections and packets the node's datapath refused."""
    command = ["nsenter", f"--net={NETNS_DIR / place.lab.names.node(node)}", "curl", "-sS", "--fail"]
    url = "http://127.0.0.1:15099/pods"
    done = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=60)
    counters: dict[str, dict[str, int]] = json.loads(done.stdout)["counters"]
    return {**counters["refused"], **{f"forged_{name}": value for name, value in counters["forged"].items()}}


def answer(
    place: Arena, pod: str, host: str, port: int, prepare: Callable[[socket.socket], None] = lambda _: None
) -> bytes:
    """What the far end says to an HTTP request of the pod; b"" when it is refused in any way."""
    with inside(place.lab, pod):
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    got = b""
    with sock, contextlib.suppress(OSError):
        sock.settimeout(PATIENT_S)
        prepare(sock)
        sock.connect((host, port))
        sock.sendall(GET)
        while part := sock.recv(65536):
            got += part
    return got


def _option(level: int, name: int, value: bytes | int) -> Callable[[socket.socket], None]:
    return lambda sock: sock.setsockopt(level, name, value)


_V6 = socket.IPPROTO_IPV6
OPTIONS: Mapping[str, tuple[int, str, Callable[[socket.socket], None]]] = MappingProxyType(
    {
        "options of nothing": (4, "options", _option(socket.IPPROTO_IP, socket.IP_OPTIONS, NOPS)),
        "record route": (4, "options", _option(socket.IPPROTO_IP, socket.IP_OPTIONS, RECORD_ROUTE)),
        "destination options": (6, "extension_header", _option(_V6, socket.IPV6_DSTOPTS, b"\0\0\1\4" + bytes(4))),
        "hop by hop options": (6, "extension_header", _option(_V6, socket.IPV6_HOPOPTS, b"\0\0\1\4" + bytes(4))),
    }
)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("pod", [EVIL, WEB])
def test_a_connection_with_ip_options_leaves_no_pod_of_the_mesh(place: Arena, pod: str, name: str) -> None:
    """Not even of the pod that the policy lets in: what cannot be parsed safely is refused."""
    version, reason, prepare = OPTIONS[name]
    before = refusals(place, "n1")[reason]
    assert answer(place, pod, place.mesh.host(FAR, version), HTTP, prepare) == b""
    assert refusals(place, "n1")[reason] > before


@pytest.mark.parametrize("name", OPTIONS)
def test_a_connection_with_ip_options_enters_no_pod_of_the_mesh(place: Arena, name: str) -> None:
    version, _, prepare = OPTIONS[name]
    assert answer(place, OUTSIDE, place.mesh.host(FAR, version), HTTP, prepare) == b""


@pytest.mark.parametrize("version", [4, 6])
def test_the_same_connection_without_options_is_answered_so_that_the_refusals_mean_something(
    place: Arena, version: int
) -> None:
    assert answer(place, WEB, place.mesh.host(FAR, version), HTTP).startswith(b"HTTP/1.1 200")


def _raw(version: int) -> Callable[[Arena, str], socket.socket]:
    def make(place: Arena, pod: str) -> socket.socket:
        with inside(place.lab, pod):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if version == 6:
            sock.setsockopt(_V6, IPV6_HDRINCL, 1)
        return sock

    return make


def _segment(place: Arena, pod: str, version: int, token: bytes, port: int = HTTP) -> tuple[bytes, tuple[object, ...]]:
    source, to = (ip_address(place.mesh.host(name, version)) for name in (pod, FAR))
    return craft.tcp(source, to, (40_001, port), token), (source, to)


def _v4(**kwargs: bytes | int) -> Callable[[Arena, str, bytes], bytes]:
    def make(place: Arena, pod: str, token: bytes) -> bytes:
        body, (source, to) = _segment(place, pod, 4, token)
        return craft.ipv4(source, to, body, **kwargs)  # type: ignore[arg-type]

    return make


def _v6(first: int, chain: bytes) -> Callable[[Arena, str, bytes], bytes]:
    def make(place: Arena, pod: str, token: bytes) -> bytes:
        body, (source, to) = _segment(place, pod, 6, token)
        return craft.ipv6(source, to, chain + body, first_header=first)  # type: ignore[arg-type]

    return make


_DST = craft.padding_options(craft.TCP)
PACKETS: Mapping[str, tuple[int, str, Callable[[Arena, str, bytes], bytes]]] = MappingProxyType(
    {
        "a SYN with payload": (4, "", _v4()),
        "a SYN with options": (4, "options", _v4(options=NOPS)),
        "a first fragment": (4, "fragment", _v4(fragment=craft.MORE_FRAGMENTS)),
        "a later fragment": (4, "fragment", _v4(fragment=2)),
        "v6: a SYN with payload": (6, "", _v6(craft.TCP, b"")),
        "v6: hop by hop": (6, "extension_header", _v6(craft.HOP_BY_HOP, _DST)),
        "v6: destination options": (6, "extension_header", _v6(craft.DESTINATION, _DST)),
        "v6: authentication": (
            *(6, "extension_header"),
            _v6(craft.AUTHENTICATION, craft.authentication_header(craft.TCP)),
        ),
        "v6: a first fragment": (6, "fragment", _v6(craft.FRAGMENT, craft.fragment_header(craft.TCP, 1))),
        "v6: an atomic fragment": (6, "fragment", _v6(craft.FRAGMENT, craft.fragment_header(craft.TCP, 0))),
        "v6: a fragment of options": (
            *(6, "fragment"),
            _v6(craft.FRAGMENT, craft.fragment_header(craft.DESTINATION, 1) + _DST),
        ),
    }
)


def leaves(place: Arena, pod: str, version: int, packet: Callable[[bytes], bytes]) -> bool:
    """Does the packet's payload leave the pod? Seen at the node, before its netfilter puts fragments together. A
    datagram sent after it ends the wait."""
    token, last = secrets.token_bytes(12), secrets.token_bytes(12)
    host = place.mesh.host(FAR, version)
    with node(place, "n1"):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    with inside(place.lab, pod):
        datagram = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    with sniffer, datagram, _raw(version)(place, pod) as raw:
        sniffer.settimeout(0.05)
        with contextlib.suppress(OSError):  # ENOBUFS: the sender hears of a packet that was refused at its own wire
            raw.sendto(packet(token), (host, 0))
        deadline, seen = time.monotonic() + PATIENCE_S, False
        while time.monotonic() < deadline:
            datagram.sendto(last, (host, 9))
            with contextlib.suppress(TimeoutError):
                while last not in (received := sniffer.recv(65536)):
                    seen = seen or token in received
                return seen
    raise AssertionError("the datagram after it did not arrive")


@pytest.mark.parametrize("name", PACKETS)
def test_a_crafted_packet_of_a_pod_of_the_mesh_does_not_leave_it(place: Arena, name: str) -> None:
    version, reason, make = PACKETS[name]
    before = refusals(place, "n1").get(reason, 0)
    assert not leaves(place, EVIL, version, lambda token: make(place, EVIL, token))
    if reason:
        assert refusals(place, "n1")[reason] > before


@pytest.mark.parametrize("name", PACKETS)
def test_sabotage_the_same_packet_of_a_pod_that_is_not_captured_leaves(place: Arena, name: str) -> None:
    version, _, make = PACKETS[name]
    assert leaves(place, OUTSIDE, version, lambda token: make(place, OUTSIDE, token))


@pytest.mark.parametrize("mark", [0x539, 0x53A, 0x111, 0x539 | 0x10000])
@pytest.mark.parametrize("version", [4, 6])
def test_a_forged_mark_is_counted_and_of_no_use(place: Arena, version: int, mark: int) -> None:
    before = refusals(place, "n1")["forged_mark"]
    prepare = _option(socket.SOL_SOCKET, socket.SO_MARK, mark)
    assert answer(place, EVIL, place.mesh.host(FAR, version), HTTP, prepare) == b""
    if mark == PROXY_MARK:
        assert refusals(place, "n1")["forged_mark"] > before


@pytest.mark.parametrize("host", ["own", "127.0.0.1", "::1", "own v6"])
@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053, 15000])
@pytest.mark.parametrize("pod", [EVIL, WEB])
def test_the_proxys_ports_at_the_pods_own_addresses_give_it_nothing(
    place: Arena, pod: str, host: str, port: int
) -> None:
    address = {"own": place.mesh.host(pod, 4), "own v6": place.mesh.host(pod, 6)}.get(host, host)
    assert b"HTTP/1.1 200" not in answer(place, pod, address, port)


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_dialling_the_proxy_through_itself_makes_no_loop(place: Arena, port: int) -> None:
    """A loop would open connections until descriptors are gone: afterwards there are as many as before."""

    def open_connections() -> int:
        return sum(
            len(list(path.iterdir()))
            for pid in place.lab.component("n1", "ztunnel")["pids"]
            if (path := Path(f"/proc/{pid}/fd")).exists()
        )

    def dial_everywhere() -> None:
        for pod in (WEB, EVIL):
            for host in (place.mesh.host(pod, 4), "127.0.0.1", place.far):
                answer(place, pod, host, port)

    dial_everywhere()  # tunnels that stay open for whoever comes next are no loop
    before = open_connections()
    dial_everywhere()
    until("as many descriptors as before", lambda: open_connections() <= before + 4, 10)


@pytest.mark.parametrize("pod", [EVIL, OUTSIDE])
@pytest.mark.parametrize("port", [53, 80, 8080, 10250, 15000, 15020, 15021, 15053, 15080])
def test_no_source_port_is_a_key(place: Arena, pod: str, port: int) -> None:
    assert answer(place, pod, place.far, HTTP, lambda sock: sock.bind(("", port))) == b""


def test_a_four_tuple_used_again_at_once_is_a_new_connection(place: Arena) -> None:
    for round_ in range(10):
        with dial(place.lab, WEB, place.far, LINES, source_port=39_001) as sock:
            # So that the pod's own kernel does not keep the four-tuple for a minute.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            lines = sock.makefile("rb")
            assert lines.readline().startswith(b"hello")
            sock.sendall(b"round %d\n" % round_)
            assert lines.readline() == b"round %d\n" % round_
            lines.close()


def test_a_four_tuple_that_the_proxy_gave_up_does_not_let_the_next_one_in(place: Arena) -> None:
    """`evil` dials from one port again and again: never is it taken for what was there before."""

    def bound(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind(("", 39_002))

    for _ in range(10):
        assert answer(place, EVIL, place.far, HTTP, bound) == b""


def test_a_segment_without_a_connection_opens_none(place: Arena) -> None:
    """ACK, FIN, RST and Christmas trees with no connection behind them: nobody answers with data, nobody suffers."""
    source, to = ip_address(place.mesh.host(EVIL, 4)), ip_address(place.far)
    with _raw(4)(place, EVIL) as raw:
        for flags in (0x00, 0x10, 0x11, 0x04, 0x14, 0x29, 0x3F, 0xFF):
            for port in (HTTP, 15001, 15006, 15008):
                packet = craft.ipv4(source, to, craft.tcp(source, to, (40_003, port), b"secret", flags))
                with contextlib.suppress(OSError):
                    raw.sendto(packet, (place.far, 0))
    place.unharmed()
