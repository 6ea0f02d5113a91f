"""Certificates as people write them: what is in them alone is handed on, and whatever is wrong is theirs to hear of."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ambient.control import pem
from ambient.waypoint.evidence import Evidence, secret
from ambient.waypoint.typed import typed
from tests.support.envoy_judge import judged
from tests.support.tunnel_certs import Authority

CA = Authority("partners").mint
LEAF = CA.leaf("spiffe://partner.example.com/egress", usages=("client",))
JUNK_KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
JUNK_LIST = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
TORN_LIST = "-----BEGIN X509 CRL-----\nAAAA\n"


def of_version_nine(text: str) -> str:
    """The first certificate with a version that there is none of."""
    der = x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
    assert der.count(bytes.fromhex("a003020102")) == 1
    body = base64.encodebytes(der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020109"))).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


NINE = of_version_nine(CA.roots)


def revoked() -> str:
    now, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateRevocationListBuilder().issuer_name(x509.Name([])).last_update(now)
    signed = made.next_update(now + timedelta(days=1)).sign(key, hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def test_what_stands_beside_certificates_is_not_handed_on() -> None:
    around = f"Subject: somebody\n{CA.roots}\n{JUNK_KEY}# the old one\n{CA.roots}"
    assert pem.authorities(around) == CA.roots * 2
    chain, key = pem.pair(f"words\n{LEAF.chain}{JUNK_KEY}", f"{LEAF.key}\n{JUNK_KEY}", serving=True)
    assert (chain, key) == pem.pair(LEAF.chain, LEAF.key, serving=True) == (LEAF.chain, LEAF.key)


def test_lists_of_what_is_revoked_stay() -> None:
    text = revoked()
    assert pem.authorities(f"{text}{CA.roots}") == CA.roots + text


@pytest.mark.parametrize(
    "text",
    ["", "x", JUNK_KEY, NINE, CA.roots + NINE, CA.roots + JUNK_LIST, CA.roots + TORN_LIST],
)
def test_whatever_the_parser_does_it_is_said_without_a_word_of_it(text: str) -> None:
    with pytest.raises(pem.Unusable, match=r"ca\.crt") as wrong:
        pem.authorities(text)
    assert "AAAA" not in str(wrong.value)


@pytest.mark.parametrize("chain", [of_version_nine(LEAF.chain), CA.roots, ""])
def test_a_certificate_that_is_not_of_the_key_is_none(chain: str) -> None:
    with pytest.raises(pem.Unusable, match=r"tls\.crt"):
        pem.pair(chain, LEAF.key, serving=False)


def usage(**said: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{**dict.fromkeys(USAGES, False), **said})


def rsa_key(exponent: int) -> rsa.RSAPrivateKey:
    made = rsa.generate_private_key(65537, 2048).private_numbers()
    p, q = made.p, made.q
    d = pow(exponent, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(exponent, p * q)
    parts = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *parts, public).private_key()


def no_rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Numbers that look like one: their modulus is its own, and nothing else fits."""
    p, q = (1 << bits // 2) - 1, (1 << bits // 2) - 3
    return rsa.RSAPrivateNumbers(p, q, 3, 3, 3, 3, rsa.RSAPublicNumbers(65537, p * q)).private_key(
        unsafe_skip_rsa_key_validation=True
    )


@pytest.mark.parametrize(("bits", "why"), [(2048, "is not the key of the first"), (20_000, "at most 8192 bits")])
def test_a_key_that_would_take_long_to_judge_is_judged_by_its_length_and_by_what_it_signs(bits: int, why: str) -> None:
    chain, key = certified(no_rsa_key(bits))
    with pytest.raises(pem.Unusable, match=why):
        pem.pair(chain, key, serving=True)


def certified(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *extensions: x509.ExtensionType, title: str = "site"
) -> tuple[str, str]:
    """A certificate of this key, and the key."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, title)] if title else [])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(CA.certificate.subject)
    made = made.public_key(key.public_key()).serial_number(7)
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    for one in extensions:
        made = made.add_extension(one, critical=True)
    signed = made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return signed.public_bytes(Encoding.PEM).decode(), written.decode()


def envoys(chain: str, key: str, folder: Path, *, serving: bool) -> str:
    """Why Envoy does not take them, "" when it does."""
    common = {"tls_certificates": [secret(Evidence("", chain, key))["tls_certificate"]]}
    socket = typed(
        "envoy.transport_sockets.tls",
        f"transport_sockets.tls.v3.{'Downstream' if serving else 'Upstream'}TlsContext",
        common_tls_context=common,
    )
    if serving:
        nothing = typed("envoy.filters.network.direct_response", "filters.network.direct_response.v3.Config")
        address = {"socket_address": {"address": "127.0.0.1", "port_value": 1}}
        chains = [{"filters": [nothing], "transport_socket": socket}]
        config = {"listeners": [{"name": "door", "address": address, "filter_chains": chains}]}
    else:
        config = {"clusters": [{"name": "server", "type": "STATIC", "transport_socket": socket}]}
    done = judged({"static_resources": config}, folder)
    return done.stderr if done.returncode else ""


def elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


OCSP, OCSP_2 = x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2
LARGEST, TOO_LARGE = 4294967311, 8589934609  # primes of 33 and 34 bits
UNREADABLE = x509.UnrecognizedExtension(x509.oid.ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"junk")


@pytest.mark.parametrize(
    ("make", "serving", "why"),
    [
        (lambda: certified(elliptic(), x509.TLSFeature([OCSP])), True, "must-staple"),
        (lambda: certified(elliptic(), usage(key_agreement=True)), True, "digitalSignature"),
        (lambda: certified(elliptic(), usage(key_agreement=True)), False, "digitalSignature"),
        (lambda: certified(elliptic(), title=""), True, "common name"),
        (lambda: certified(rsa_key(TOO_LARGE)), True, "exponent"),
        (lambda: certified(rsa_key(TOO_LARGE)), False, "exponent"),
    ],
    ids=["staple", "usage", "usage of a client", "no name", "exponent", "exponent of a client"],
)
def test_what_envoy_does_not_take_is_told_to_none(
    make: Callable[[], tuple[str, str]], serving: bool, why: str, tmp_path: Path
) -> None:
    chain, key = make()
    assert envoys(chain, key, tmp_path, serving=serving)
    with pytest.raises(pem.Unusable, match=why):
        pem.pair(chain, key, serving=serving)


@pytest.mark.parametrize(
    ("make", "serving"),
    [
        (lambda: certified(elliptic(), x509.TLSFeature([OCSP])), False),
        (lambda: certified(elliptic(), x509.TLSFeature([OCSP, OCSP_2])), True),
        (lambda: certified(elliptic(), usage(digital_signature=True), UNREADABLE), True),
        (lambda: certified(elliptic(), title=""), False),
        (lambda: certified(elliptic(), x509.SubjectAlternativeName([x509.DNSName("a.example.com")]), title=""), True),
        (lambda: certified(rsa_key(65537), usage(key_encipherment=True)), True),
        (lambda: certified(rsa_key(LARGEST)), True),
        (lambda: certified(rsa_key(LARGEST)), False),
    ],
    ids=[
        "staple of a client",
        "staple in two ways",
        "usage",
        "no name of a client",
        "alternative name",
        "usage of RSA",
        "exponent",
        "exponent of a client",
    ],
)
def test_what_envoy_just_takes_is_not_refused(
    make: Callable[[], tuple[str, str]], serving: bool, tmp_path: Path
) -> None:
    chain, key = make()
    assert envoys(chain, key, tmp_path, serving=serving) == ""
    assert pem.pair(chain, key, serving=serving)[0] == chain
