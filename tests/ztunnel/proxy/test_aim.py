"""Where a request leads in a pod: by its own address, a service's name, for others, into an application tunnel."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model.address import Endpoint, parse_endpoint, parse_ip
from ambient.model.policy import Action, Authorization, Match, PolicyScope
from ambient.model.workload import ApplicationTunnel, TunnelPreamble
from tests.support.h2_peer import CLIENT, Peer
from tests.support.tunnel import TestPod, World, application, echo, run, until, world
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk
from ztunnel.ipc.messages import PodPolicy
from ztunnel.proxy.aim import Aim, Miss, _endpoint, proxy_header, take_aim

OWN, OTHER = parse_ip("10.0.0.1"), "10.9.9.9:80"
NAME = "web.shop.svc.cluster.local"
PLAIN = PodPolicy(known=True, service_ports=((NAME, 80, 8080),))
FRONT = PodPolicy(known=True, fronts=True)
ANY = PodPolicy(known=True, application_tunnel=ApplicationTunnel(TunnelPreamble.NONE, 15088))
PROXY = PodPolicy(known=True, application_tunnel=ApplicationTunnel(TunnelPreamble.PROXY, 15088))
PROXY_ANY_PORT = PodPolicy(known=True, application_tunnel=ApplicationTunnel(TunnelPreamble.PROXY, 0))


def answer(port: int, address: str | None = None) -> AuthorityAnswer:
    return AuthorityAnswer(uid="u", authority="a", port=port, address=parse_ip(address) if address else None)


def at(text: str) -> Endpoint:
    return parse_endpoint(text)


def straight(text: str) -> Aim:
    return Aim(at(text), at(text))


AIMS: dict[str, tuple[PodPolicy, str, AuthorityAnswer | None, Aim | int | None]] = {
    "the pod's own address": (PLAIN, "10.0.0.1:7", None, straight("10.0.0.1:7")),
    "another address": (PLAIN, OTHER, None, 400),
    "another address of a waypoint is a question": (FRONT, OTHER, None, None),
    "that the director affirms": (FRONT, OTHER, answer(80, "10.9.9.9"), straight("10.0.0.1:80")),
    "that the director denies": (FRONT, OTHER, answer(0), 400),
    "a name of its own": (PLAIN, f"{NAME}:80", None, straight("10.0.0.1:8080")),
    "a port that the service lacks": (PLAIN, f"{NAME}:81", None, 503),
    "a name of somebody else": (PLAIN, "x.shop.svc.cluster.local:80", None, 503),
    "a name at a waypoint is a question": (FRONT, f"{NAME}:80", None, None),
    "that has an answer": (FRONT, f"{NAME}:80", answer(9, "10.96.0.1"), straight("10.0.0.1:9")),
    "that has none": (FRONT, f"{NAME}:80", answer(0), 503),
    "another address into an application tunnel": (ANY, OTHER, None, straight("10.0.0.1:15088")),
    "a name into an application tunnel": (ANY, f"{NAME}:80", answer(8080), straight("10.0.0.1:15088")),
    "a name without a port into an application tunnel": (ANY, f"{NAME}:80", answer(0), 503),
    "another address with a PROXY header": (
        PROXY,
        OTHER,
        None,
        Aim(at("10.0.0.1:15088"), at("127.0.0.1:15088"), at(OTHER)),
    ),
    "a PROXY tunnel without a port keeps the one asked for": (
        PROXY_ANY_PORT,
        OTHER,
        None,
        Aim(at("10.0.0.1:80"), at("127.0.0.1:80"), at(OTHER)),
    ),
    "a name with a PROXY header is told by its address": (
        PROXY,
        f"{NAME}:80",
        answer(8080, "10.96.0.1"),
        Aim(at("10.0.0.1:15088"), at("127.0.0.1:15088"), at("10.96.0.1:80")),
    ),
    "a name with a PROXY header and no address": (PROXY, f"{NAME}:80", answer(8080), 503),
    "a name with a PROXY header is always a question": (PROXY, f"{NAME}:80", None, None),
    "a name longer than names are is no question": (FRONT, f"{'a' * 254}:80", None, 400),
    "a port of ztunnel": (PLAIN, "10.0.0.1:15008", None, 503),
    "a port of ztunnel that the tunnel replaces": (ANY, "10.0.0.1:15008", None, straight("10.0.0.1:15088")),
    "a port of ztunnel through a name": (FRONT, f"{NAME}:80", answer(15001), 503),
    "nothing at all": (PROXY, "", None, 400),
    "a name of odd letters": (FRONT, "a_b:80", None, 400),
    "a port of more digits than a number may have": (PLAIN, f"10.0.0.1:{'9' * 5_000}", None, 400),
    "port 0 of a name": (FRONT, f"{NAME}:0", None, 400),
}


@pytest.mark.parametrize("row", AIMS)
def test_aims(row: str) -> None:
    policy, text, told, expected = AIMS[row]
    found = take_aim(text, OWN, policy, told)
    assert (found.status if isinstance(found, Miss) else found) == expected


def test_a_tunnel_need_not_go_over_loopback_and_six_has_its_own() -> None:
    assert take_aim(OTHER, OWN, PROXY, None, loopback=False) == Aim(
        at("10.0.0.1:15088"), at("10.0.0.1:15088"), at(OTHER)
    )
    six = take_aim(OTHER, parse_ip("fd00::1"), PROXY, None)
    assert isinstance(six, Aim)
    assert six.dial == at("[::1]:15088")


def parsed(header: bytes) -> tuple[Endpoint, Endpoint, dict[int, bytes]]:
    """Source, destination and TLVs of a header, read by the letter of the specification; it must be all of `header`."""
    assert header[:12] == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    command, family, size = struct.unpack_from(">BBH", header, 12)
    assert command == 0x21
    assert len(header) == 16 + size
    kind, width = {0x11: (IPv4Address, 4), 0x21: (IPv6Address, 16)}[family]
    source, destination = (kind(header[16 + n * width : 16 + (n + 1) * width]) for n in (0, 1))
    ports = struct.unpack_from(">HH", header, 16 + 2 * width)
    at_octet, tlvs = 20 + 2 * width, {}
    while at_octet < len(header):
        name, length = struct.unpack_from(">BH", header, at_octet)
        tlvs[name] = header[at_octet + 3 : at_octet + 3 + length]
        at_octet += 3 + length
    return Endpoint(source, ports[0]), Endpoint(destination, ports[1]), tlvs


@pytest.mark.parametrize(
    ("source", "destination"),
    [("10.0.0.9:5555", "10.96.0.1:80"), ("[fd00::9]:5555", "[fd96::1]:80"), ("10.0.0.9:5555", "[fd96::1]:80")],
)
def test_a_proxy_header_tells_who_calls_for_what_and_as_whom(source: str, destination: str) -> None:
    found = parsed(proxy_header(at(source), at(destination), CLIENT))
    mapped = Endpoint(IPv6Address("::ffff:10.0.0.9"), 5555) if "." in source and "[" in destination else at(source)
    assert found == (mapped, at(destination), {0xD0: CLIENT.encode()})


def test_a_proxy_header_without_an_identity_has_no_field_for_it() -> None:
    assert parsed(proxy_header(at("10.0.0.9:1"), at("10.0.0.1:2"), ""))[2] == {}


class Heard:
    """An application on the pod's loopback address that notes what it is told and by whom, and echoes the rest."""

    def __init__(self) -> None:
        self.header = b""
        self.peer = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = writer.get_extra_info("peername")[0]
        head = await reader.readexactly(16)
        self.header = head + await reader.readexactly(struct.unpack_from(">H", head, 14)[0])
        await echo(reader, writer)


async def say(peer: Peer, stream: int, data: bytes) -> bytes:
    peer.h2.send_data(stream, data, end_stream=True)
    peer.writer.write(peer.h2.data_to_send())
    while not any(isinstance(event, h2.events.StreamEnded) for event in peer.events):
        await peer.pump()
    return b"".join(e.data for e in peer.events if isinstance(e, h2.events.DataReceived))


async def waypoint(here: World, port: int, protocol: TunnelPreamble = TunnelPreamble.PROXY) -> TestPod:
    pod = await here.pod("waypoint", "127.0.0.12")
    here.update(pod, application_tunnel=ApplicationTunnel(protocol, port))
    return pod


def test_a_waypoint_with_an_application_tunnel_hears_who_calls_for_which_service() -> None:
    async def scenario() -> None:
        heard = Heard()
        async with world() as here, application("127.0.0.1", heard.take) as port:
            here.director.authorities[f"{NAME}:80"] = (8080, "10.96.0.1")
            pod = await waypoint(here, port)
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(f"{NAME}:80"))[0] == 200
            assert await say(peer, 1, b"GET / ...") == b"GET / ..."
            source, destination, tlvs = parsed(heard.header)
            assert source == Endpoint(parse_ip("127.0.0.1"), peer.writer.get_extra_info("sockname")[1])
            assert destination == at("10.96.0.1:80")
            assert tlvs == {0xD0: CLIENT.encode()}
            assert heard.peer == "127.0.0.1"
            peer.close()

    run(scenario)


def test_what_came_before_the_application_answered_comes_after_the_header() -> None:
    async def scenario() -> None:
        heard = Heard()
        async with world() as here, application("127.0.0.1", heard.take) as port:
            pod = await waypoint(here, port)
            peer = Peer(here, pod)
            await peer.connect()
            peer.h2.send_headers(1, [(":method", "CONNECT"), (":authority", OTHER)])
            assert await say(peer, 1, b"early") == b"early"
            assert parsed(heard.header)[1] == at(OTHER)
            peer.close()

    run(scenario)


def test_policy_judges_the_port_of_the_application_tunnel() -> None:
    async def scenario() -> None:
        heard = Heard()
        async with world() as here, application("127.0.0.1", heard.take) as port:
            pod = await waypoint(here, port)
            rules = (((Match(destination_ports=(port,)),),),)
            deny = Authorization(
                name="p", namespace="test", scope=PolicyScope.NAMESPACE, action=Action.DENY, rules=rules
            )
            here.update(pod, policies=(deny,))
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(OTHER))[0] == 401
            assert heard.header == b""
            peer.close()

    run(scenario)


def test_a_waypoint_is_asked_for_what_it_stands_in_front_of_and_the_director_says_what_that_is() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            here.director.authorities[f"10.9.9.9:{port}"] = (port, "10.9.9.9")
            pod = await here.pod("waypoint", "127.0.0.12")
            here.update(pod, fronts=True)
            peer = Peer(here, pod)
            await peer.connect()
            for _ in range(2):
                assert (await peer.ask(f"10.9.9.9:{port}"))[0] == 200
                assert (await peer.ask(f"10.9.9.8:{port}"))[0] == 400
            assert len(here.director.of(AuthorityAsk)) == 2, "an answer is kept"
            peer.close()

    run(scenario)


def test_a_director_that_does_not_say_what_is_meant_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.proxy.inbound.UNKNOWN_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        async with world() as here:
            pod = await here.pod("waypoint", "127.0.0.12")
            here.update(pod, fronts=True)
            here.director.silent = True
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(OTHER))[0] == 503
            assert 'reason="no-director"' in here.log()
            await until(lambda: here.workers[0].recorder.open_count == 0)
            peer.close()

    run(scenario)


@pytest.mark.parametrize("policy", [{}, {"fronts": True}])
def test_sabotage_without_the_tunnel_the_same_requests_lead_nowhere(policy: dict[str, bool]) -> None:
    async def scenario() -> None:
        heard = Heard()
        async with world() as here, application("127.0.0.1", heard.take):
            pod = await here.pod("waypoint", "127.0.0.12")
            here.update(pod, **policy)
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(OTHER))[0] == 400
            assert (await peer.ask(f"{NAME}:80"))[0] == 503
            assert heard.header == b""
            peer.close()

    run(scenario)


@pytest.mark.parametrize("own", [True, False])
def test_nobodys_address_is_put_on_in_ztunnels_own_pod(own: bool) -> None:
    callers: list[str] = []

    async def who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername")[0])
        await echo(reader, writer)

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", who) as port:
            pod = await here.pod("server", "127.0.0.12")
            served = here.workers[0]._pods[pod.uid]
            served.pod.up = replace(served.pod.up, own=own)
            peer = Peer(here, pod)
            await peer.connect("127.0.0.77")
            assert (await peer.ask(f"127.0.0.12:{port}"))[0] == 200
            await until(lambda: bool(callers))
            tried = callers == ["127.0.0.77"] or here.counter("source_address_not_preserved") > 0
            assert tried is not own
            peer.close()

    run(scenario)


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.builds("{}:{}".format, st.ip_addresses(), st.integers(-5, 70_000)),
        st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(-5, 70_000)),
        st.builds("{}:{}".format, st.from_regex(r"[a-z0-9.\-_]{0,40}", fullmatch=True), st.integers(-5, 70_000)),
    ),
    st.sampled_from([PLAIN, FRONT, ANY, PROXY, PROXY_ANY_PORT]),
    st.one_of(st.none(), st.builds(answer, st.integers(0, 65_535), st.sampled_from([None, "10.96.0.1", "fd96::1"]))),
)
def test_whatever_is_asked_for_leads_to_a_port_of_the_pod_or_nowhere(
    text: str, policy: PodPolicy, told: AuthorityAnswer | None
) -> None:
    found = take_aim(text, OWN, policy, told)
    if isinstance(found, Aim):
        assert found.judged.ip == OWN
        assert 0 < found.judged.port < 65_536
        assert found.judged.port not in (15001, 15006, 15008)
        assert found.dial.port == found.judged.port
        assert found.dial == found.judged or (policy.application_tunnel and found.dial.ip.is_loopback)
        assert (found.said is not None) == (policy in (PROXY, PROXY_ANY_PORT))
    else:
        assert found is None or found.status in (400, 503)
        assert found is not None or told is None


endpoints = st.builds(lambda ip, port: Endpoint(parse_ip(str(ip)), port), st.ip_addresses(), st.integers(0, 65_535))


@settings(max_examples=300, deadline=None)
@given(endpoints, endpoints, st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_proxy_header_says_what_it_was_told_whatever_that_is(
    source: Endpoint, destination: Endpoint, identity: str
) -> None:
    heard_source, heard_destination, tlvs = parsed(proxy_header(source, destination, identity))
    for heard, told in ((heard_source, source), (heard_destination, destination)):
        assert (parse_ip(str(heard.ip)), heard.port) == (told.ip, told.port)
    assert tlvs == ({0xD0: identity.encode()} if identity else {})


def test_an_authority_of_any_length_is_refused_and_kept_nowhere() -> None:
    async def scenario() -> None:
        async with world() as here:
            pod = await here.pod("server", "127.0.0.12")
            peer = Peer(here, pod)
            await peer.connect()
            before = _endpoint.cache_info().currsize
            for text in (
                "x" * 10_000,
                "127.0.0.12:" + "0" * 10_000,
                "[" + "0" * 10_000 + "]:80",
                "127.0.0.12:80" * 900,
            ):
                assert (await peer.ask(text))[0] == 400
            assert _endpoint.cache_info().currsize == before
            await until(lambda: here.log().count("authority not understood") == 4)
            assert max(map(len, here.log().splitlines())) < 2_000
            peer.close()

    run(scenario)
