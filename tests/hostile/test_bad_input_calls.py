"""Callers of the real control plane that break one rule each: tokens, certificate requests, discovery requests.

Refused is: the right gRPC status and words; no certificate was signed; who has streams keeps them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambient.xds.messages import DeltaRequest, NodeInfo, encode_request, ztunnel_node
from ambient.xds.wire import message
from tests.hostile.conftest import Note
from tests.support.arena import Arena
from tests.support.caller import DELTA, Caller, ask_for, caller, csr
from tests.support.mint import spiffe

pytestmark = pytest.mark.usefixtures("bystander", "unchanged")
ADDRESS = "type.googleapis.com/istio.workload.Address"
WEB = spiffe("web")
_URI, _DNS = x509.UniformResourceIdentifier, x509.DNSName
_UNAUTHENTICATED, _INVALID, _DENIED = "UNAUTHENTICATED", "INVALID_ARGUMENT", "PERMISSION_DENIED"


@pytest.fixture(scope="module")
def control(place: Arena) -> Iterator[Caller]:
    with caller(place.lab) as made:
        yield made


def request(pem: str, seconds: int = 3600, **metadata: str) -> bytes:
    wire = message("istio.v1.auth.IstioCertificateRequest")(csr=pem, validity_duration=seconds)
    for name, value in metadata.items():
        wire.metadata.fields[name].string_value = value
    return bytes(wire.SerializeToString())


def subscription(node: NodeInfo | None = None, type_url: str = ADDRESS, **fields: Any) -> bytes:
    return encode_request(DeltaRequest(type_url=type_url, node=node or ztunnel_node("n1"), **fields))


def answer(call: Callable[[], object]) -> tuple[str, str]:
    """Status and words of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, error.details()


def test_who_keeps_the_rules_is_served_so_that_the_refusals_mean_something(control: Caller) -> None:
    assert len(control.sign(request(ask_for(WEB))).cert_chain) == 2
    assert control.discover(subscription()).resources


def _stranger() -> str:
    form = serialization.PrivateFormat.PKCS8
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _unsigned(control: Caller) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(control.claims())}."


def _by_public_key(control: Caller) -> str:
    """HMAC with the public key as the secret: the old trick."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    body = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{part(json.dumps(control.claims()).encode())}"
    secret = (control.folder / "token-public.pem").read_bytes()
    return f"{body}.{part(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def _altered(control: Caller) -> str:
    head, body, signature = control.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "node": "n2"}).encode()).decode().rstrip("=")
    return f"{head}.{forged}.{signature}"


def _claims(**changes: object) -> Callable[[Caller], str]:
    return lambda control: control.token(**changes)


TOKENS: Mapping[str, tuple[Callable[[Caller], str], str]] = MappingProxyType(
    {
        "of garbage": (lambda _: "garbage", "not a token of the expected form"),
        "of three dots": (lambda _: "a.b.c", "not a token of the expected form"),
        "that is signed by a stranger": (lambda c: c.token(key=_stranger()), "not signed by a key we trust"),
        "that is not signed": (_unsigned, "not a token of the expected form"),
        "that is signed with the public key": (_by_public_key, "not a token of the expected form"),
        "that was altered": (_altered, "not signed by a key we trust"),
        "for another audience": (_claims(aud="kubernetes"), "made for another audience"),
        "of another issuer": (_claims(iss="somebody"), "made by another issuer"),
        "that is expired": (_claims(exp=int(time.time()) - 1), "expired"),
        "from the future": (_claims(iat=int(time.time()) + 3600), "issued in the future"),
        "without an end": (_claims(exp=None), "claim exp is missing"),
        "without an issuer": (_claims(iss=None), "claim iss is missing"),
        "without an audience": (_claims(aud=None), "claim aud is missing"),
        "without a subject": (_claims(sub=None), "claim sub is missing"),
        "without a beginning": (_claims(iat=None), "claim iat is missing"),
        "with an end in words": (_claims(exp="tomorrow"), ""),
        "of no service account": (_claims(sub="alice"), "its subject is no service account"),
        "of a subject with more parts": (
            _claims(sub="system:serviceaccount:a:b:c"), "its subject is no service account",
        ),
        "of no node": (_claims(node=None), "it is not bound to a node"),
        "of a node with a path": (_claims(node="../n1"), "it is not bound to a node"),
        "of a pod that is a number": (_claims(pod_uid=7), "its pod_uid is no text"),
    }
)  # fmt: skip


@pytest.mark.parametrize("service", ["certificates", "discovery"])
@pytest.mark.parametrize("name", TOKENS)
def test_nobody_is_served_with_a_token(control: Caller, note: Note, name: str, service: str) -> None:
    make, why = TOKENS[name]
    metadata = (("authorization", f"Bearer {make(control)}"),)
    if service == "certificates":
        code, told = answer(lambda: control.sign(request(ask_for(WEB)), metadata))
    else:
        code, told = answer(lambda: control.discover(subscription(), metadata=metadata))
    assert code == _UNAUTHENTICATED
    assert told.startswith("token")
    assert why in told
    if service == "certificates":
        note("token", why or "of the expected form", f"a token {name}", f"{code}: {told}")


OF_BATCH = "system:serviceaccount:shop:batch"


def test_who_is_no_client_gets_no_discovery(control: Caller, note: Note) -> None:
    code, told = answer(lambda: control.discover(subscription(), metadata=control.bearer(sub=OF_BATCH)))
    assert (code, "is no client of this control plane" in told) == (_UNAUTHENTICATED, True)
    note("token", "its account must be a client's", "the token of a pod", f"{code}: {told}")


def test_a_pod_gets_no_certificate_but_its_own(control: Caller, note: Note) -> None:
    code, told = answer(lambda: control.sign(request(ask_for(WEB)), control.bearer(sub=OF_BATCH)))
    assert (code, "may not ask for certificates of others" in told) == (_DENIED, True)
    note("certificate request", "only a ztunnel asks for others", "the token of another pod", f"{code}: {told}")


@pytest.mark.parametrize(
    ("name", "metadata", "why"),
    [
        ("no token", (), "no bearer token"),
        ("two tokens", (("authorization", "Bearer a"), ("authorization", "Bearer b")), "more than one authorization"),
        ("another scheme", (("authorization", "Basic YTpi"),), "not a bearer token"),
        ("nothing after Bearer", (("authorization", "Bearer "),), "not a bearer token"),
    ],
)
def test_the_header_must_hold_one_bearer_token(control: Caller, note: Note, name: str, metadata: Any, why: str) -> None:
    code, told = answer(lambda: control.discover(subscription(), metadata=metadata))
    assert (code, why in told) == (_UNAUTHENTICATED, True), told
    note("token", why, name, f"{code}: {told}")


def _oversigned() -> str:
    """A request whose signature is of another key."""
    one = x509.load_pem_x509_csr(ask_for(WEB).encode()).public_bytes(serialization.Encoding.DER)
    return (
        "-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(one[:-4] + bytes(4)).decode()
        + ("-----END CERTIFICATE REQUEST-----\n")
    )


_CA = x509.BasicConstraints(ca=True, path_length=None)
_PASSWORD = x509.ObjectIdentifier("1.2.840.113549.1.9.7")
CSRS: Mapping[str, tuple[Callable[[], bytes], str, str]] = MappingProxyType(
    {
        "no request in it": (lambda: request(""), _INVALID, "not exactly one PEM block"),
        "words in it": (lambda: request("please"), _INVALID, "not exactly one PEM block"),
        "two requests in it": (lambda: request(ask_for(WEB) * 2), _INVALID, "not exactly one PEM block"),
        "a request that is cut short": (
            lambda: request("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"),
            *(_INVALID, "certificate request"),
        ),
        "a request of 20 KB": (lambda: request(ask_for(WEB) + "#" * 20_000), _INVALID, "at most 16384"),
        "an RSA key": (
            lambda: request(csr(_URI(WEB), key=rsa.generate_private_key(65537, 2048))), _INVALID, "must be ECDSA",
        ),
        "a key of secp256k1": (
            lambda: request(csr(_URI(WEB), key=ec.generate_private_key(ec.SECP256K1()))), _INVALID, "must be ECDSA on",
        ),
        "a broken signature": (lambda: request(_oversigned()), _INVALID, ""),
        "a password in it": (
            lambda: request(csr(_URI(WEB), attributes=[(_PASSWORD, b"x")])), _INVALID, "attributes besides extensions",
        ),
        "a wish to be an authority": (
            lambda: request(csr(_URI(WEB), extensions=[(_CA, True)])), _INVALID, "asks for extension 2.5.29.19",
        ),
        "no name": (lambda: request(csr()), _INVALID, "0 alternative names instead of one"),
        "two identities": (
            lambda: request(csr(_URI(WEB), _URI(spiffe("far")))), _INVALID, "2 alternative names instead of one",
        ),
        "an identity and a DNS name": (lambda: request(csr(_URI(WEB), _DNS("web"))), _INVALID, "2 alternative names"),
        "a DNS name": (lambda: request(csr(_DNS("web.shop"))), _INVALID, "its alternative name is not a URI"),
        "an address for a name": (
            lambda: request(csr(x509.IPAddress(ip_address("10.0.0.1")))), _INVALID, "name is not a URI",
        ),
        "a name of another scheme": (
            lambda: request(ask_for("https://cluster.local/ns/shop/sa/web")), _INVALID, "must start with spiffe://",
        ),
        "a name with a longer path": (lambda: request(ask_for(WEB + "/x")), _INVALID, "expected <trust domain>/ns/"),
        "a name with NUL": (lambda: request(ask_for(WEB + "\0x")), _INVALID, "odd characters"),
        "a name of another trust domain": (
            lambda: request(ask_for("spiffe://evil.example/ns/shop/sa/web")), _DENIED, "speaks for trust domain",
        ),
        "the identity of a pod on the other node": (
            lambda: request(ask_for(spiffe("far"))), _DENIED, "no pod of this account runs on node n1",
        ),
        "an identity that no pod has": (
            lambda: request(ask_for(spiffe("nobody"))), _DENIED, "no pod of this account runs on node n1",
        ),
        "the control plane's own identity": (
            lambda: request(ask_for(spiffe("istiod", "istio-system"))), _DENIED, "no pod of this account runs on",
        ),
        "another identity beside the request": (
            lambda: request(ask_for(WEB), ImpersonatedIdentity=spiffe("batch")), _INVALID, "its CSR is for",
        ),
        "no identity where one is named": (
            lambda: request(ask_for(WEB), ImpersonatedIdentity="web"), _INVALID, "not a SPIFFE identity",
        ),
        "another signer": (
            lambda: request(ask_for(WEB), CertSigner="root"), _INVALID, "there are no external signers here",
        ),
        "other bytes": (lambda: b"\xff\xff\xff", _INVALID, "bytes are not that message"),
        "a message of 100 KB": (lambda: request("x" * 100_000), _INVALID, "at most 65536"),
    }
)  # fmt: skip


@pytest.mark.parametrize("name", CSRS)
def test_no_certificate_is_signed_for_a_call_with(control: Caller, note: Note, name: str) -> None:
    make, status, why = CSRS[name]
    code, told = answer(lambda: control.sign(make()))
    assert code == status
    assert why in told
    note("certificate request", why or "its signature must be of its key", name, f"{code}: {told}")


def test_an_agent_gets_no_certificates_at_all(control: Caller, note: Note) -> None:
    code, told = answer(lambda: control.sign(request(ask_for(WEB)), control.bearer(account="agent")))
    assert (code, "may not ask for certificates of others" in told) == (_DENIED, True)
    note("certificate request", "only a ztunnel asks for its pods", "an agent's token", f"{code}: {told}")


@pytest.mark.parametrize("seconds", [-1, 0, 1, 2**40, -(2**60)])
def test_a_wish_for_an_odd_lifetime_is_clamped(control: Caller, seconds: int) -> None:
    leaf = x509.load_pem_x509_certificate(control.sign(request(ask_for(WEB), seconds)).cert_chain[0].encode())
    left = leaf.not_valid_after_utc.timestamp() - time.time()
    assert 5 < left <= 90 * 86400


SUBSCRIPTIONS: Mapping[str, tuple[Callable[[], bytes], str, str]] = MappingProxyType(
    {
        "other bytes": (lambda: b"\xff\xff", "", "bytes are not that message"),
        "no type": (lambda: subscription(type_url=""), "", "this server has no such type"),
        "a type we do not serve": (
            lambda: subscription(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"), "", "no such type",
        ),
        "a type of 10 KB": (lambda: subscription(type_url="x" * 10_000), "", "this server has no such type"),
        "another node than its token's": (
            lambda: subscription(ztunnel_node("n2")), _DENIED, "the token is for node n1",
        ),
        "200,001 names": (
            lambda: subscription(subscribe=tuple(map(str, range(200_001)))), "", "more than 200000 names",
        ),
    }
)  # fmt: skip


@pytest.mark.parametrize("name", SUBSCRIPTIONS)
def test_no_stream_goes_on_with(control: Caller, note: Note, name: str) -> None:
    make, status, why = SUBSCRIPTIONS[name]
    body = make()
    code, told = answer(lambda: control.discover(body))
    assert why in told
    assert code == status or (not status and code in (_INVALID, _DENIED, "INTERNAL", "UNAVAILABLE", "UNIMPLEMENTED"))
    note("discovery request", why, name, f"{code}: {told[:200]}")


@pytest.mark.parametrize(
    "method",
    [
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        "/istio.v1.auth.IstioCertificateService/RevokeEverything",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_a_method_that_is_not_there_is_not_there(control: Caller, note: Note, method: str) -> None:
    code, told = answer(lambda: control.discover(subscription(), method=method))
    assert code == "UNIMPLEMENTED"
    note("discovery request", "a method that is not there", method, f"{code}: {told}")


def test_a_client_has_no_more_streams_than_it_needs(control: Caller, note: Note) -> None:
    """The lab's own ztunnel is the same client, so fewer than eight are left; it keeps the one it has."""
    streams: list[Any] = []
    done = threading.Event()

    def endless() -> Iterator[bytes]:
        yield subscription()
        done.wait(15)

    try:
        while len(streams) < 8:
            streams.append(control.channel.stream_stream(DELTA)(endless(), metadata=control.bearer(), timeout=30))
            try:
                next(streams[-1])
            except grpc.RpcError:
                break
        code, told = answer(lambda: control.discover(subscription()))
        assert (code, "open" in told) == ("RESOURCE_EXHAUSTED", True)
        note("discovery request", "at most 8 streams of a client", "a ninth stream", f"{code}: {told}")
    finally:
        done.set()
        for call in streams:
            call.cancel()


def test_headers_without_end_are_refused_before_they_are_read(control: Caller, note: Note) -> None:
    metadata = (("authorization", "Bearer " + "x" * 20_000),)
    code, told = answer(lambda: control.sign(request(ask_for(WEB)), metadata))
    assert code == "RESOURCE_EXHAUSTED"
    note("token", "headers of at most 16 KB", "a token of 20 KB", f"{code}: {told}")


def test_answers_to_nothing_end_nobodys_stream(control: Caller) -> None:
    lies = [encode_request(DeltaRequest(type_url=ADDRESS, nonce="never sent", error="no")) for _ in range(50)]
    assert control.discover(subscription(), *lies).resources
