"""Peers with a good certificate that ask for what a tunnel is not for: the status, and the reason in the access log.

Each row also asks what happened to the application: nothing, since it answers every request that reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest

from tests.hostile.conftest import Note
from tests.support.arena import Arena
from tests.support.hostile_peer import HELLO, PATIENCE_S, Wire, block, connect, data, headers
from tests.support.journey import HTTP, LINES, NEAR, OUTSIDE, WEB
from tests.support.lab import until
from tests.support.mint import client_context, spiffe
from ztunnel.hbone import frames

pytestmark = pytest.mark.usefixtures("bystander")
GET = b"GET /id HTTP/1.0\r\n\r\n"
_HOST = "far.shop.svc.cluster.local"
_NOT_UNDERSTOOD = "authority not understood"


def _port(port: int | str) -> Callable[[Arena], str]:
    return lambda place: f"{place.far}:{port}"


def _text(authority: str) -> Callable[[Arena], str]:
    return lambda _: authority


def _of(pod: str, port: int = HTTP, version: int = 4) -> Callable[[Arena], str]:
    def make(place: Arena) -> str:
        host = place.mesh.host(pod, version)
        return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"

    return make


AUTHORITIES: Mapping[str, tuple[Callable[[Arena], str], int, str]] = MappingProxyType(
    {
        "another pod's address": (_of(NEAR), 400, "ip mismatch"),
        "its own address": (_of(OUTSIDE), 400, "ip mismatch"),
        "an address of the same pod by another family": (_of("shop/far", version=6), 400, "ip mismatch"),
        "a pod of the mesh on the other node": (_of(WEB), 400, "ip mismatch"),
        "the loopback address": (_text("127.0.0.1:8080"), 400, "ip mismatch"),
        "the other loopback address": (_text("[::1]:8080"), 400, "ip mismatch"),
        "every address": (_text("0.0.0.0:8080"), 400, "ip mismatch"),
        "the metadata service of a cloud": (_text("169.254.169.254:80"), 400, "ip mismatch"),
        "a multicast address": (_text("224.0.0.1:8080"), 400, "ip mismatch"),
        "the outbound port": (_port(15001), 503, "15001 is a port of ztunnel"),
        "the plaintext port": (_port(15006), 503, "15006 is a port of ztunnel"),
        "the tunnel port": (_port(15008), 503, "15008 is a port of ztunnel"),
        "the admin port": (_port(15000), 503, "refused"),
        "a port where nobody listens": (_port(9), 503, "refused"),
        "port 0": (_port(0), 400, _NOT_UNDERSTOOD),
        "port 65536": (_port(65536), 400, _NOT_UNDERSTOOD),
        "a port of many digits": (_port("0" * 200 + "8080"), 400, _NOT_UNDERSTOOD),
        "a port with a sign": (_port("+8080"), 400, _NOT_UNDERSTOOD),
        "a port with a blank": (_port("8080 "), 400, _NOT_UNDERSTOOD),
        "a port in other digits": (_port("\u0668\u0660\u0668\u0660"), 400, _NOT_UNDERSTOOD),
        "no port": (_text("10.0.0.1"), 400, _NOT_UNDERSTOOD),
        "only a port": (_text(":8080"), 400, _NOT_UNDERSTOOD),
        "a URL": (_text("http://127.0.0.1:8080"), 400, _NOT_UNDERSTOOD),
        "a user and a host": (_text("root@127.0.0.1:8080"), 400, _NOT_UNDERSTOOD),
        "a path": (_text("127.0.0.1/x:8080"), 400, _NOT_UNDERSTOOD),
        "an address of IPv6 without brackets": (_text("::1:8080"), 400, _NOT_UNDERSTOOD),
        "an address with a zone": (_text("[fe80::1%eth0]:8080"), 400, "ip mismatch"),
        "an address in octal": (_text("0177.0.0.1:8080"), 503, "no such service port here"),
        "an address as one number": (_text("2130706433:8080"), 503, "no such service port here"),
        "a host with a blank": (_text("far shop:8080"), 400, _NOT_UNDERSTOOD),
        "a host in other letters": (_text("f\u0430r.shop.svc.cluster.local:8080"), 400, _NOT_UNDERSTOOD),
        "a service of another pod": (_text("near.shop.svc.cluster.local:8080"), 503, "no such service port here"),
        "a port that its service lacks": (_text(f"{_HOST}:81"), 503, "no such service port here"),
        "a name outside": (_text("example.org:8080"), 503, "no such service port here"),
        "localhost": (_text("localhost:8080"), 503, "no such service port here"),
        "a name of 4000 letters": (_text("a" * 4000 + ":8080"), 400, _NOT_UNDERSTOOD),
    }
)


def ask(place: Arena, request: bytes, identity: str = "web") -> tuple[int, str]:
    """The status of one request, and what the access log says of it; the application must not have heard of it."""
    sock = place.dial()
    with Wire(sock, client_context(place.mint.leaf(spiffe(identity)))) as wire:
        wire.send(HELLO, headers(1, request), data(1, GET))
        heard = wire.listen(PATIENCE_S, enough=lambda h: h.status(1) and (h.reset(1) is not None or h.data(1)))
        told = until("a line of the log", lambda: place.log.about(wire.local), 5) if heard.status(1) != 200 else ""
        assert not heard.data(1) or heard.status(1) == 200
        assert heard.goaway is None
        return heard.status(1), told


@pytest.mark.parametrize("name", AUTHORITIES)
def test_no_tunnel_leads_to(place: Arena, note: Note, name: str) -> None:
    make, status, why = AUTHORITIES[name]
    found, told = ask(place, connect(make(place)))
    assert found == status, told
    assert why in told
    assert "connection complete" in told
    note("tunnel: request", why, f"CONNECT to {name}", f"{status}; {told.partition('error=')[2]}")


def test_the_address_and_the_services_of_the_pod_are_reached_so_that_the_refusals_mean_something(place: Arena) -> None:
    for authority in (place.authority, f"{_HOST}:{HTTP}", f"{place.far}:{LINES}", f"[::ffff:{place.far}]:{HTTP}"):
        assert ask(place, connect(authority))[0] == 200


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("GET", ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"))),
        ("CONNECT in small letters", ((b":method", b"connect"),)),
        ("CONNECT with a path", ((b":method", b"CONNECT"), (b":path", b"/"))),
        ("CONNECT with a scheme", ((b":method", b"CONNECT"), (b":scheme", b"https"))),
        (
            "extended CONNECT",
            *(((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":path", b"/")),),
        ),
        ("a method of NULs", ((b":method", b"\0\0"),)),
    ],
)
def test_only_connect_is_served(place: Arena, name: str, fields: tuple[tuple[bytes, bytes], ...]) -> None:
    request = block(*fields, (b":authority", place.authority.encode()))
    status, told = ask(place, request)
    assert status == 400, name
    assert "not a CONNECT request" in told


def test_connect_without_an_authority_is_refused(place: Arena) -> None:
    for request in (block((b":method", b"CONNECT")), connect(b"")):
        status, told = ask(place, request)
        assert status == 400
        assert "not a CONNECT request" in told


@pytest.mark.parametrize("identity", ["evil", "batch", "far", "default", "we", "webb", "WEB", "w*", "*"])
def test_whom_the_policy_does_not_name_is_denied(place: Arena, identity: str) -> None:
    status, told = ask(place, connect(place.authority), identity)
    assert status == 401
    assert 'reason="' in told


@pytest.mark.parametrize(
    "field",
    [
        (b"baggage", b"k8s.namespace.name=shop,k8s.deployment.name=web"),
        (b"forwarded", b'for="10.65.1.2:1234";host=far.shop.svc.cluster.local'),
        (b"x-forwarded-client-cert", b"URI=spiffe://cluster.local/ns/shop/sa/web"),
        (b"x-forwarded-network", b"elsewhere"),
        (b"x-istio-source", b"waypoint"),
        (b"authorization", b"Bearer web"),
    ],
)
def test_what_a_peer_says_of_itself_in_fields_is_no_identity(place: Arena, field: tuple[bytes, bytes]) -> None:
    assert ask(place, connect(place.authority, field), "evil")[0] == 401


def test_one_denied_stream_does_not_touch_its_neighbours(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(f"{place.far}:{LINES}")))
        assert wire.listen(PATIENCE_S, enough=lambda h: b"hello" in h.data(1)).status(1) == 200
        others = range(3, 43, 2)
        wire.send(*(headers(n, connect("127.0.0.1:22")) for n in others), data(1, b"still here\n"))
        heard = wire.listen(PATIENCE_S, enough=lambda h: b"still here" in h.data(1) and h.status(41))
        assert {heard.status(n) for n in others} == {400}
        assert b"still here" in heard.data(1)


def test_a_tunnel_within_the_tunnel_is_bytes_for_the_application(place: Arena) -> None:
    """The inner CONNECT is not for ztunnel: it must not lead anywhere by itself."""
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(place.authority)))
        wire.send(data(1, HELLO + headers(1, connect("127.0.0.1:7000")), end=True))
        heard = wire.listen(PATIENCE_S, enough=lambda h: any(flags & 1 for flags, _, _ in h.of(frames.DATA)))
        assert heard.data(1), "the application said what it thinks of it"
        assert b"hello" not in heard.data(1)
