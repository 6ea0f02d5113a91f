"""Peers of the tunnel port whose certificate, or whose TLS, is not what the mesh demands: one rule broken by each.

Refused is: the connection ends without one HTTP/2 frame, and ztunnel's log says about that very connection why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest
from cryptography import x509

from tests.hostile.conftest import Note
from tests.support.arena import Arena
from tests.support.hostile_peer import HELLO, PATIENCE_S, Heard, Wire, connect, headers
from tests.support.lab import until
from tests.support.mint import Leaf, Mint, client_context, spiffe
from ztunnel.hbone import frames

pytestmark = pytest.mark.usefixtures("bystander")
WEB = spiffe("web")
DAY = 86400


def _named(uri: str) -> Callable[[Mint], Leaf]:
    return lambda mint: mint.leaf(uri)


def _names(*names: x509.GeneralName) -> Callable[[Mint], Leaf]:
    return lambda mint: mint.leaf(names=names)


_URI, _DNS = x509.UniformResourceIdentifier, x509.DNSName

FORGED: Mapping[str, tuple[Callable[[Mint], Leaf | None], str]] = MappingProxyType(
    {
        "none": (lambda _: None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        "self-signed": (lambda mint: mint.stranger().leaf(WEB), "not verified"),
        "of an authority of the same name": (lambda mint: mint.stranger().leaf(WEB), "not verified"),
        "expired": (lambda mint: mint.leaf(WEB, begins_s=-DAY, ends_s=-60), "certificate has expired"),
        "not valid yet": (lambda mint: mint.leaf(WEB, begins_s=600, ends_s=DAY), "not yet valid"),
        "for servers only": (lambda mint: mint.leaf(WEB, usages=["server"]), "unsuitable certificate purpose"),
        "signed by a leaf": (
            lambda mint: mint.below(mint.leaf(spiffe("batch"), title="batch"), WEB),
            "invalid CA certificate",
        ),
        "without any name": (_names(), "0 URI names where exactly one is required"),
        "with a DNS name only": (_names(_DNS("web.shop.svc.cluster.local")), "0 URI names where exactly one"),
        "with two identities": (_names(_URI(WEB), _URI(spiffe("batch"))), "2 URI names where exactly one is required"),
        "with one identity twice": (_names(_URI(WEB), _URI(WEB)), "2 URI names where exactly one is required"),
        "with NUL after its identity": (_named(WEB + "\0.evil"), ""),
        "of another trust domain": (_named("spiffe://evil.example/ns/shop/sa/web"), "not of trust domain"),
        "of a trust domain in capitals": (_named("spiffe://Cluster.Local/ns/shop/sa/web"), "not of trust domain"),
        "of a trust domain below ours": (_named("spiffe://x.cluster.local/ns/shop/sa/web"), "not of trust domain"),
        "of no trust domain": (_named("spiffe:///ns/shop/sa/web"), "is empty or has odd characters"),
        "with a port in it": (_named("spiffe://cluster.local:443/ns/shop/sa/web"), "empty or has odd characters"),
        "with a user in it": (_named("spiffe://web@cluster.local/ns/shop/sa/web"), "empty or has odd characters"),
        "of another scheme": (_named("https://cluster.local/ns/shop/sa/web"), "must start with spiffe://"),
        "of a scheme in capitals": (_named("SPIFFE://cluster.local/ns/shop/sa/web"), "must start with spiffe://"),
        "with a longer path": (_named(WEB + "/more"), "expected <trust domain>/ns/<namespace>/sa/<account>"),
        "with a slash at its end": (_named(WEB + "/"), "expected <trust domain>/ns/<namespace>/sa/<account>"),
        "with a shorter path": (_named("spiffe://cluster.local/ns/shop"), "expected <trust domain>/ns/"),
        "with other words": (_named("spiffe://cluster.local/sa/web/ns/shop"), "expected <trust domain>/ns/"),
        "of no namespace": (_named("spiffe://cluster.local/ns//sa/web"), "is empty or has odd characters"),
        "of no account": (_named("spiffe://cluster.local/ns/shop/sa/"), "is empty or has odd characters"),
        "with an escaped slash": (_named("spiffe://cluster.local/ns/shop/sa/web%2Fx"), "empty or has odd characters"),
        "with a query": (_named(WEB + "?x=1"), "is empty or has odd characters"),
        "with a fragment": (_named(WEB + "#x"), "is empty or has odd characters"),
        "with a blank": (_named(WEB + " "), "is empty or has odd characters"),
        "with dots for a path": (_named("spiffe://cluster.local/ns/shop/../ns/shop/sa/web"), "expected <trust domain>"),
    }
)


def attempt(place: Arena, leaf: Leaf | None, **options: object) -> tuple[Heard, tuple[object, ...]]:
    """Ask for a tunnel in any case; what was heard, and from which address it was asked."""
    sock = place.dial()
    local: tuple[object, ...] = sock.getsockname()
    try:
        wire = Wire(sock, client_context(leaf, **options))  # type: ignore[arg-type]
    except OSError as error:
        return Heard(closed=str(error)), local
    with wire:
        wire.send(HELLO, headers(1, connect(place.authority)))
        return wire.listen(PATIENCE_S, enough=lambda heard: heard.status(1)), local


def assert_refused(place: Arena, heard: Heard, local: tuple[object, ...], why: str) -> str:
    """The words of the log."""
    assert heard.closed, "the connection stays open"
    assert not heard.frames, heard.frames
    told = until("a line of the log", lambda: place.log.about(local), 5)
    assert "connection failed" in told
    assert why in told
    assert 'direction="inbound"' in told
    return told.partition("error=")[2].strip()


def test_a_good_certificate_gets_a_tunnel_so_that_the_refusals_here_mean_something(place: Arena) -> None:
    heard, _ = attempt(place, place.web)
    assert heard.status(1) == 200


@pytest.mark.parametrize("name", FORGED)
def test_a_peer_is_refused_whose_certificate_is(place: Arena, note: Note, name: str) -> None:
    make, why = FORGED[name]
    heard, local = attempt(place, make(place.mint))
    told = assert_refused(place, heard, local, why)
    note("tunnel: certificate", why or "its identity in one reading only", f"a certificate {name}", told)


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2c",), ("http/1.1", "h3")])
def test_a_peer_is_refused_that_does_not_offer_h2(place: Arena, alpn: tuple[str, ...]) -> None:
    heard, local = attempt(place, place.web, alpn=alpn)
    assert_refused(place, heard, local, "ALPN")


def test_a_peer_is_refused_that_speaks_tls_1_2_at_most(place: Arena) -> None:
    heard, local = attempt(place, place.web, tls12=True)
    assert_refused(place, heard, local, "UNSUPPORTED_PROTOCOL")


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("plain HTTP/1", b"GET / HTTP/1.1\r\nhost: far\r\n\r\n"),
        ("HTTP/2 without TLS", HELLO + headers(1, connect("127.0.0.1:8080"))),
        ("zeros", bytes(4096)),
        ("a record of the largest size", b"\x16\x03\x01\xff\xff" + bytes(70000)),
        ("an alert", b"\x15\x03\x03\x00\x02\x02\x28"),
        ("application data first", b"\x17\x03\x03\x00\x20" + bytes(32)),
        ("a server's hello", b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"),
        ("a hello cut short, then the end", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20)),
    ],
)
def test_octets_that_are_no_handshake_end_the_connection(place: Arena, name: str, octets: bytes) -> None:
    with place.dial() as sock:
        local = sock.getsockname()
        with contextlib.suppress(OSError):
            sock.sendall(octets)
            sock.shutdown(1)
        got = b""
        with contextlib.suppress(OSError):
            while part := sock.recv(65536):
                got += part
    assert frames.PREFACE not in got
    assert b"HTTP/" not in got
    told = until("a line of the log", lambda: place.log.about(local), 5)
    assert "TLS" in told, name


def test_an_old_certificate_of_a_pod_that_is_gone_is_still_only_that_pod(place: Arena) -> None:
    """A stolen certificate is good until it ends, but opens no more than its own identity may open."""
    heard, local = attempt(place, place.mint.leaf(spiffe("evil")))
    assert heard.status(1) == 401
    told = until("a line of the log", lambda: place.log.about(local), 5)
    assert "policy rejection" in told or "DENY" in told or "denied" in told
