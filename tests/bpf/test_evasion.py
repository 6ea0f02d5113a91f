"""Hand-made packets do not get a new connection out of an enrolled pod, nor past the guard on the node's side."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType

import pytest

from ambient.datapath import programs
from ambient.datapath.layout import Counter, Flag
from ambient.model.address import IpAddress
from tests.support import frames
from tests.support.capture_bench import EVERY_WAY, FULL, Bench, outside_saw

pytestmark = EVERY_WAY

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
ETH_P_ARP = 0x0806
PORTS = (40_001, 80)


@dataclass(frozen=True)
class Crafted:
    """`body`: the IP packet, of source, destination and a token; `reason`: what pod_egress counts, None = captured."""

    version: int
    body: Callable[[IpAddress, IpAddress, bytes], bytes]
    reason: Counter | None
    vlans: tuple[int, ...] = ()
    claimed: int = 0


def _v4(reason: Counter | None, **kwargs: int | bytes) -> Crafted:
    return Crafted(4, lambda s, d, token: frames.ipv4(s, d, frames.tcp(s, d, PORTS, token), **kwargs), reason)  # type: ignore[arg-type]


def _v6(reason: Counter | None, *chain: tuple[int, bytes]) -> Crafted:
    first = chain[0][0] if chain else frames.TCP
    headers = b"".join(data for _, data in chain)
    return Crafted(
        6, lambda s, d, token: frames.ipv6(s, d, headers + frames.tcp(s, d, PORTS, token), first_header=first), reason
    )


def _cut(source: IpAddress, destination: IpAddress, token: bytes) -> bytes:
    return frames.ipv4(source, destination, frames.tcp(source, destination, PORTS, b"")[:4] + token)


_EXTENSION = Counter.REFUSED_EXTENSION_HEADER
_PAD_TO_TCP = frames.padding_options(frames.TCP)
_PAD_TO_PAD = frames.padding_options(frames.DESTINATION)

CRAFTED: Mapping[str, Crafted] = MappingProxyType(
    {
        "plain": _v4(None),
        "options": _v4(Counter.REFUSED_OPTIONS, options=b"\1\1\1\0"),
        "record route": _v4(Counter.REFUSED_OPTIONS, options=b"\7\7\4" + bytes(5)),
        "first fragment": _v4(Counter.REFUSED_FRAGMENT, fragment=frames.MORE_FRAGMENTS),
        "later fragment": _v4(Counter.REFUSED_FRAGMENT, fragment=1),
        "cut before the flags": Crafted(4, _cut, Counter.REFUSED_UNREADABLE),
        "lies about its protocol": Crafted(
            4, lambda s, d, token: frames.ipv4(s, d, frames.tcp(s, d, PORTS, token)), None, claimed=ETH_P_ARP
        ),
        "priority tag": Crafted(
            4, lambda s, d, token: frames.ipv4(s, d, frames.tcp(s, d, PORTS, token)), Counter.REFUSED_VLAN, vlans=(0,)
        ),
        "v6 plain": _v6(None),
        "v6 destination options": _v6(_EXTENSION, (frames.DESTINATION, _PAD_TO_TCP)),
        "v6 hop by hop": _v6(_EXTENSION, (frames.HOP_BY_HOP, _PAD_TO_TCP)),
        "v6 authentication": _v6(_EXTENSION, (frames.AUTHENTICATION, frames.authentication_header(frames.TCP))),
        "v6 atomic fragment": _v6(Counter.REFUSED_FRAGMENT, (frames.FRAGMENT, frames.fragment_header(frames.TCP, 0))),
        "v6 first fragment": _v6(Counter.REFUSED_FRAGMENT, (frames.FRAGMENT, frames.fragment_header(frames.TCP, 1))),
        "v6 fragment of options": _v6(
            Counter.REFUSED_FRAGMENT,
            (frames.FRAGMENT, frames.fragment_header(frames.DESTINATION, 1)),
            (frames.DESTINATION, _PAD_TO_TCP),
        ),
        "v6 six headers": _v6(_EXTENSION, *((frames.DESTINATION, _PAD_TO_PAD),) * 5, (frames.DESTINATION, _PAD_TO_TCP)),
        "v6 nine headers": _v6(
            _EXTENSION, *((frames.DESTINATION, _PAD_TO_PAD),) * 8, (frames.DESTINATION, _PAD_TO_TCP)
        ),
        "v6 priority tag": Crafted(
            6, lambda s, d, token: frames.ipv6(s, d, frames.tcp(s, d, PORTS, token)), Counter.REFUSED_VLAN, vlans=(0,)
        ),
    }
)


def _mac(bench: Bench, place: str, interface: str) -> bytes:
    with bench.world.inside(bench.world.places[place], "app"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        return bytes(raw.getsockname()[4])


def reaches(bench: Bench, crafted: Crafted, *, bypass: bool = False, source: IpAddress | None = None) -> bool:
    """Send the frame from the pod's interface; was it seen outside?"""
    world = bench.world
    version = crafted.version
    token = secrets.token_bytes(8)
    packet = crafted.body(source or world.pod.ip(version), world.outside.ip(version), token)
    kind = frames.ETH_IPV4 if version == 4 else frames.ETH_IPV6
    frame = frames.ethernet(_mac(bench, "pod", "eth0"), _mac(bench, "node", "pod"), kind, packet, vlans=crafted.vlans)
    with world.inside(world.pod, "app"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with wire:
        wire.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, bypass)

        def send() -> None:
            with contextlib.suppress(OSError):  # ENOBUFS tells the sender of a packet that egress refused it
                wire.sendto(frame, ("eth0", crafted.claimed or kind))

        return outside_saw(bench, version, token, send)


@pytest.mark.parametrize("name", CRAFTED)
@pytest.mark.usefixtures("one_cpu")
def test_a_crafted_opening_does_not_leave_an_enrolled_pod(bench: Bench, name: str) -> None:
    crafted = CRAFTED[name]
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod, Flag(0), host=False)
    assert reaches(bench, crafted), "the frame is good: it gets out of a pod that is not enrolled"
    bench.enrol(bench.world.pod, FULL)
    reason = crafted.reason or Counter.REDIRECTED_OUT
    before = bench.count(reason)
    assert not reaches(bench, crafted)
    assert bench.count(reason) == before + 1


@pytest.mark.parametrize("name", CRAFTED)
@pytest.mark.usefixtures("one_cpu")
def test_going_round_the_pods_programs_ends_at_the_guard_of_the_node(bench: Bench, name: str) -> None:
    crafted = CRAFTED[name]
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod, FULL, host=False)
    assert reaches(bench, crafted, bypass=True), "sabotage: without the guard this is a way out"
    programs.attach_host(bench.bpffs, bench.world.node.netns, "pod", "pod", bench.via)
    before = bench.count(Counter.REFUSED_BYPASS)
    assert not reaches(bench, crafted, bypass=True)
    assert bench.count(Counter.REFUSED_BYPASS) == before + 1


@pytest.mark.parametrize("name", ["plain", "v6 plain"])
@pytest.mark.usefixtures("one_cpu")
def test_an_address_that_the_agent_does_not_know_opens_nothing(bench: Bench, name: str) -> None:
    crafted = CRAFTED[name]
    stranger = ip_address("10.213.1.77" if crafted.version == 4 else "fd00:213:1::77")
    assert reaches(bench, crafted, source=stranger)
    bench.attach(bench.world.pod, FULL)
    for bypass in (False, True):
        before = bench.count(Counter.REFUSED_UNKNOWN_SOURCE)
        assert not reaches(bench, crafted, bypass=bypass, source=stranger)
        assert bench.count(Counter.REFUSED_UNKNOWN_SOURCE) == before + 1


@pytest.mark.parametrize("name", ["plain", "v6 plain"])
@pytest.mark.usefixtures("one_cpu")
def test_the_address_of_another_pod_that_is_not_captured_opens_nothing(bench: Bench, name: str) -> None:
    crafted = CRAFTED[name]
    other = bench.world.other.ip(crafted.version)
    bench.attach(bench.world.pod, FULL)
    bench.enrol(bench.world.other, Flag(0), check_source=False)
    assert reaches(bench, crafted, source=other), "sabotage: nobody checks whose address it is"
    bench.enrol(bench.world.other, Flag(0))
    before = bench.count(Counter.REFUSED_SPOOFED_SOURCE)
    assert not reaches(bench, crafted, source=other)
    assert bench.count(Counter.REFUSED_SPOOFED_SOURCE) == before + 1
