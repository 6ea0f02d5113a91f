"""Issued certificates: what is in them, how long they live, and what they never get."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ambient.ca.csr import parse_csr
from ambient.ca.issue import DEFAULT_TTL, LONGEST_TTL, SHORTEST_TTL, issue, issue_server
from ambient.ca.roots import Authority, load_authority, make_root
from ambient.errors import Unavailable
from tests.support.control import make_csr

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"


def authority(lifetime: timedelta = timedelta(days=3650)) -> Authority:
    certificate, key = make_root(NOW, lifetime=lifetime)
    return load_authority({"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}, NOW)


def leaf_of(chain: tuple[str, ...]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain[0].encode())


def test_a_leaf_carries_its_identity_and_nothing_that_could_sign() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    root = authority()
    issued = issue(root, parse_csr(make_csr(IDENTITY, key=key)), NOW, None)
    leaf = leaf_of(issued.chain)
    leaf.verify_directly_issued_by(root.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(IDENTITY)]
    assert leaf.subject.rdns == []
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert leaf.public_key() == key.public_key()
    assert leaf.serial_number == issued.serial


def test_the_chain_ends_with_all_roots() -> None:
    root = authority()
    issued = issue(root, parse_csr(make_csr(IDENTITY)), NOW, None)
    assert len(issued.chain) == 2
    assert issued.chain[-1] == root.roots


@pytest.mark.parametrize(
    ("wanted", "lifetime"),
    [
        (None, DEFAULT_TTL),
        (timedelta(0), DEFAULT_TTL),
        (timedelta(seconds=-5), DEFAULT_TTL),
        (timedelta(hours=1), timedelta(hours=1)),
        (timedelta(seconds=1), SHORTEST_TTL),
        (timedelta(days=4000), LONGEST_TTL),
    ],
)
def test_the_lifetime_is_what_was_asked_within_limits(wanted: timedelta | None, lifetime: timedelta) -> None:
    issued = issue(authority(), parse_csr(make_csr(IDENTITY)), NOW, wanted)
    leaf = leaf_of(issued.chain)
    assert leaf.not_valid_after_utc == issued.not_after == NOW + lifetime
    assert NOW - timedelta(minutes=5) < leaf.not_valid_before_utc < NOW


def test_a_leaf_never_outlives_its_signer_and_never_begins_before_it() -> None:
    root = authority(timedelta(hours=2))
    leaf = leaf_of(issue(root, parse_csr(make_csr(IDENTITY)), NOW + timedelta(hours=1), None).chain)
    assert leaf.not_valid_after_utc == root.not_after
    early = leaf_of(issue(root, parse_csr(make_csr(IDENTITY)), NOW, None).chain)
    assert early.not_valid_before_utc >= root.certificate.not_valid_before_utc


def test_a_signer_at_its_end_issues_nothing() -> None:
    with pytest.raises(Unavailable, match="the authority itself ends"):
        issue(authority(timedelta(hours=2)), parse_csr(make_csr(IDENTITY)), NOW + timedelta(hours=2), None)


def test_serials_differ() -> None:
    root, request = authority(), parse_csr(make_csr(IDENTITY))
    assert len({issue(root, request, NOW, None).serial for _ in range(20)}) == 20


def test_a_server_certificate_has_names_and_addresses_and_is_no_client() -> None:
    issued, key = issue_server(
        authority(), ["istiod.istio-system.svc"], [ip_address("10.0.0.1")], NOW, timedelta(hours=24)
    )
    leaf = leaf_of(issued.chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["istiod.istio-system.svc"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.1")]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == []
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert key.startswith("-----BEGIN PRIVATE KEY-----")
