"""Certificates as people write them: what is in them alone is handed on, and whatever is wrong is theirs to hear of."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ambient.control import pem
from tests.support.tunnel_certs import Authority

CA = Authority("partners").mint
LEAF = CA.leaf("spiffe://partner.example.com/egress", usages=("client",))
JUNK_KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
JUNK_LIST = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
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
    chain, key = pem.pair(f"words\n{LEAF.chain}{JUNK_KEY}", f"{LEAF.key}\n{JUNK_KEY}")
    assert (chain, key) == pem.pair(LEAF.chain, LEAF.key) == (LEAF.chain, LEAF.key)


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
        pem.pair(chain, LEAF.key)
