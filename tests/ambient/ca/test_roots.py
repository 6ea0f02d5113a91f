"""The authority: what a CA folder must hold, which layouts work, and that nothing half right is used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ambient.ca.csr import parse_csr
from ambient.ca.issue import issue
from ambient.ca.roots import load_authority, make_root
from ambient.errors import InvalidInput
from tests.support.control import make_csr, pem_of

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"


def root(lifetime: timedelta = timedelta(days=100), now: datetime = NOW) -> tuple[bytes, bytes]:
    certificate, key = make_root(now, lifetime=lifetime)
    return certificate.encode(), key.encode()


def signed(subject: str, parent: tuple[bytes, bytes], *, ca: bool = True, now: datetime = NOW) -> tuple[bytes, bytes]:
    """A certificate below a parent."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(parent[0])
    issuer_key = serialization.load_pem_private_key(parent[1], None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=50))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), pem_of(key).encode()


def test_a_root_that_was_made_signs() -> None:
    certificate, key = root()
    authority = load_authority({"root-cert.pem": certificate, "root-key.pem": key}, NOW)
    assert authority.chain == ()
    assert authority.roots.encode() == certificate
    own = x509.load_pem_x509_certificate(certificate)
    own.verify_directly_issued_by(own)
    assert own.extensions.get_extension_for_class(x509.BasicConstraints).critical


def test_in_rotation_the_root_of_the_key_signs_and_all_roots_are_given_out() -> None:
    old, new = root(), root()
    for bundle in (new[0] + old[0], old[0] + new[0]):
        authority = load_authority({"root-cert.pem": bundle, "root-key.pem": new[1]}, NOW)
        assert authority.roots.encode() == bundle
        leaf = issue(authority, parse_csr(make_csr(IDENTITY)), NOW, None).chain[0]
        x509.load_pem_x509_certificate(leaf.encode()).verify_directly_issued_by(x509.load_pem_x509_certificate(new[0]))


def test_an_intermediate_signs_and_the_chain_leads_to_the_root() -> None:
    top = root()
    middle = signed("middle", top)
    low = signed("low", middle)
    files = {
        "ca-cert.pem": low[0],
        "ca-key.pem": low[1],
        "cert-chain.pem": low[0] + middle[0] + top[0],
        "root-cert.pem": top[0],
    }
    authority = load_authority(files, NOW)
    chain = issue(authority, parse_csr(make_csr(IDENTITY)), NOW, None).chain
    certificates = [x509.load_pem_x509_certificate(part.encode()) for part in chain]
    assert len(certificates) == 4
    for child, parent in pairwise(certificates):
        child.verify_directly_issued_by(parent)
    assert chain[-1].encode() == top[0]


def broken(name: str) -> dict[str, bytes]:
    certificate, key = root()
    other, other_key = root()
    good = {"root-cert.pem": certificate, "root-key.pem": key}
    low, low_key = signed("low", (certificate, key))
    weak = pem_of(ec.generate_private_key(ec.SECP224R1())).encode()
    small = rsa.generate_private_key(65537, 1024)
    form = serialization.PrivateFormat.PKCS8
    small_pem = small.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"x")
    )
    return {
        "root-key.pem: is missing": {"root-cert.pem": certificate},
        "root-cert.pem: is missing": {"root-key.pem": key},
        "root-key.pem: is not an unencrypted": {**good, "root-key.pem": b"rubbish"},
        "root-key.pem: is not an unencrypted ": {**good, "root-key.pem": locked},
        "root-key.pem: must be ECDSA": {**good, "root-key.pem": weak},
        "root-key.pem: must be ECDSA ": {**good, "root-key.pem": small_pem},
        "no certificate in it belongs": {**good, "root-key.pem": other_key},
        "root-cert.pem: ": {**good, "root-cert.pem": b"rubbish"},
        "is not a CA certificate": dict(
            zip(("root-cert.pem", "root-key.pem"), signed("leaf", (certificate, key), ca=False), strict=True)
        ),
        "root-cert.pem: 'O=cluster.local' ended": dict(
            zip(("root-cert.pem", "root-key.pem"), root(timedelta(days=1), NOW - timedelta(days=2)), strict=True)
        ),
        "does not lead to a root": {"ca-cert.pem": low, "ca-key.pem": low_key, "root-cert.pem": other},
        "is not in order": {
            "ca-cert.pem": low,
            "ca-key.pem": low_key,
            "cert-chain.pem": other,
            "root-cert.pem": certificate,
        },
    }[name]


@pytest.mark.parametrize(
    "reason",
    [
        "root-key.pem: is missing",
        "root-cert.pem: is missing",
        "root-key.pem: is not an unencrypted",
        "root-key.pem: is not an unencrypted ",
        "root-key.pem: must be ECDSA",
        "root-key.pem: must be ECDSA ",
        "no certificate in it belongs",
        "root-cert.pem: ",
        "is not a CA certificate",
        "root-cert.pem: 'O=cluster.local' ended",
        "does not lead to a root",
        "is not in order",
    ],
)
def test_a_folder_that_could_not_work_is_refused_by_file_and_reason(reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_authority(broken(reason), NOW)
    assert reason.rstrip() in str(caught.value)


def test_a_broken_key_is_not_quoted_in_the_error() -> None:
    certificate, key = root()
    damaged = key.replace(b"PRIVATE KEY-----\n", b"PRIVATE KEY-----\n!")
    with pytest.raises(InvalidInput) as caught:
        load_authority({"root-cert.pem": certificate, "root-key.pem": damaged}, NOW)
    assert key.splitlines()[1].decode()[:20] not in str(caught.value)


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def authority_below(
    parent: tuple[bytes, bytes],
    key: Key,
    *,
    depth: int | None,
    signs: bool = True,
) -> tuple[bytes, bytes]:
    """A CA certificate for `key` with pathLenConstraint `depth`, as openssl makes them for `cacerts`."""
    issuer = x509.load_pem_x509_certificate(parent[0])
    issuer_key = serialization.load_pem_private_key(parent[1], None)
    assert isinstance(issuer_key, Key)
    unused = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
    no = dict.fromkeys(unused.split(), False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Intermediate CA")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=50))
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=signs, crl_sign=True, **no), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), pem


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())], ids=["rsa", "p384"]
)
def test_a_cacerts_of_rsa_or_a_longer_curve_signs(key: Key) -> None:
    top = root()
    low = authority_below(top, key, depth=0)
    files = {"ca-cert.pem": low[0], "ca-key.pem": low[1], "cert-chain.pem": low[0] + top[0], "root-cert.pem": top[0]}
    chain = issue(load_authority(files, NOW), parse_csr(make_csr(IDENTITY)), NOW, None).chain
    assert len(chain) == 3
    leaf, signer = (x509.load_pem_x509_certificate(part.encode()) for part in chain[:2])
    leaf.verify_directly_issued_by(signer)


@pytest.mark.parametrize(("upper", "allowed"), [(None, True), (1, True), (0, False)])
def test_a_chain_longer_than_one_of_its_authorities_allows_is_refused(upper: int | None, allowed: bool) -> None:
    top = root()
    middle = authority_below(top, ec.generate_private_key(ec.SECP256R1()), depth=upper)
    low = authority_below(middle, ec.generate_private_key(ec.SECP256R1()), depth=0)
    files = {
        "ca-cert.pem": low[0],
        "ca-key.pem": low[1],
        "cert-chain.pem": low[0] + middle[0],
        "root-cert.pem": top[0],
    }
    if allowed:
        assert len(load_authority(files, NOW).chain) == 2
        return
    with pytest.raises(InvalidInput, match="allows 0 authorities below it, there are 1"):
        load_authority(files, NOW)


def test_an_authority_that_may_not_sign_certificates_is_refused() -> None:
    top = root()
    low = authority_below(top, ec.generate_private_key(ec.SECP256R1()), depth=0, signs=False)
    with pytest.raises(InvalidInput, match="may not sign certificates"):
        load_authority({"ca-cert.pem": low[0], "ca-key.pem": low[1], "root-cert.pem": top[0]}, NOW)


def test_no_certificate_lives_longer_than_any_of_its_chain() -> None:
    top = root()
    middle = signed("middle", top, now=NOW - timedelta(days=49))
    low = signed("low", middle)
    files = {"ca-cert.pem": low[0], "ca-key.pem": low[1], "cert-chain.pem": middle[0], "root-cert.pem": top[0]}
    issued = issue(load_authority(files, NOW), parse_csr(make_csr(IDENTITY)), NOW, timedelta(days=10))
    assert issued.not_after == NOW + timedelta(days=1)


def test_a_further_root_that_has_ended_is_left_out() -> None:
    certificate, key = root()
    ended, _ = root(timedelta(days=1), NOW - timedelta(days=3))
    authority = load_authority({"root-cert.pem": certificate + ended, "root-key.pem": key}, NOW)
    assert authority.roots.encode() == certificate
