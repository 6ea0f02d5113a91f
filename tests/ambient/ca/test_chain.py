"""Certificates that somebody else signed: believed only where they are what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.chain import read_chain
from ambient.errors import InvalidInput
from tests.ambient.ca.test_roots import root, signed
from tests.support.signer import Signer

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/web")]
TOP = root()
SIGNER = Signer(signed("intermediate", TOP), NOW)
ROOTS = TOP[0].decode()


def leaf(change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda b: b, **given: object) -> bytes:
    return SIGNER.leaf(given.get("key", KEY.public_key()), given.get("names", NAMES), change=change)  # type: ignore[arg-type]


@pytest.mark.parametrize("rest", [SIGNER.pem, SIGNER.pem + TOP[0]], ids=["without the root", "with the root"])
def test_a_chain_that_leads_to_a_root_is_taken_without_the_root(rest: bytes) -> None:
    found = read_chain(leaf() + rest, ROOTS, KEY.public_key(), NAMES, NOW)
    assert len(found.chain) == 2
    assert found.chain[1].encode() == SIGNER.pem
    assert found.not_after == NOW + timedelta(hours=1)


def authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)


OTHER = ec.generate_private_key(ec.SECP256R1()).public_key()
FOREIGN = [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/db")]


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"rubbish", "unreadable PEM"),
        (leaf(key=OTHER) + SIGNER.pem, "another key"),
        (leaf(names=FOREIGN) + SIGNER.pem, "it names spiffe://cluster.local/ns/shop/sa/db"),
        (leaf(names=[*NAMES, *FOREIGN]) + SIGNER.pem, "it names"),
        (leaf(names=[]) + SIGNER.pem, "it names nobody"),
        (leaf(authority) + SIGNER.pem, "of an authority"),
        (leaf(), "leads to no root"),
        (leaf() + signed("another", TOP)[0], "not in order"),
    ],
)
def test_anything_else_is_refused_with_its_reason(pem: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_chain(pem, ROOTS, KEY.public_key(), NAMES, NOW)


@pytest.mark.parametrize("moment", [NOW - timedelta(days=1), NOW + timedelta(hours=2)])
def test_one_that_is_not_valid_now_is_refused(moment: datetime) -> None:
    with pytest.raises(InvalidInput, match="it is valid from"):
        read_chain(leaf() + SIGNER.pem, ROOTS, KEY.public_key(), NAMES, moment)


def test_a_root_that_we_do_not_trust_proves_nothing() -> None:
    with pytest.raises(InvalidInput, match="leads to no root"):
        read_chain(leaf() + SIGNER.pem, root()[0].decode(), KEY.public_key(), NAMES, NOW)


def test_a_key_that_was_not_asked_about_is_another_one() -> None:
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(KEY, hashes.SHA256())
    assert read_chain(leaf() + SIGNER.pem, ROOTS, csr.public_key(), NAMES, NOW).serial > 0
