"""Revoked certificates are known by issuer and serial number, out of DER that nobody else has read."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ambient.errors import InvalidInput, ProtocolError, Refused
from tests.support.tunnel_certs import Authority
from ztunnel.telemetry.record import Flag
from ztunnel.tls.revocation import PeerRevoked, Revocations, certificate_key, revocation_key

AUTHORITY = Authority()
LEAF = x509.load_pem_x509_certificates(AUTHORITY.leaf(["spiffe://cluster.local/ns/a/sa/b"]))[0]
DER = LEAF.public_bytes(Encoding.DER)


def test_the_key_of_a_certificate_is_the_one_that_a_list_writes() -> None:
    serial, key = certificate_key(DER)
    assert int(serial, 16) == LEAF.serial_number
    assert key == revocation_key(LEAF.serial_number, LEAF.issuer.public_bytes())


@pytest.mark.parametrize("serial", [0, 1, 127, 128, 255, 2**64, 2**159 - 1])
def test_serial_numbers_of_any_length_are_told_apart(serial: int) -> None:
    assert revocation_key(serial, b"x") == revocation_key(serial, b"x")
    assert revocation_key(serial, b"x") != revocation_key(serial + 1, b"x")
    assert revocation_key(serial, b"x") != revocation_key(serial, b"y")


def test_one_revoked_certificate_anywhere_in_the_chain_is_enough() -> None:
    revocations = Revocations()
    root = x509.load_pem_x509_certificate(AUTHORITY.roots.encode()).public_bytes(Encoding.DER)
    revocations.replace([certificate_key(root)[1]])
    with pytest.raises(PeerRevoked) as refused:
        revocations.refuse_revoked(lambda: [DER, root])
    assert refused.value.failure.flag is Flag.CERT_REVOKED
    revocations.refuse_revoked(lambda: [DER])
    revocations.replace([certificate_key(DER)[1]])
    with pytest.raises(PeerRevoked, match=f"{LEAF.serial_number:x}"):
        revocations.refuse_revoked(lambda: [DER, root])


def test_while_nothing_is_revoked_the_chain_is_not_even_looked_at() -> None:
    def never() -> list[bytes]:
        raise AssertionError("looked")

    Revocations().refuse_revoked(never)


def test_while_what_is_revoked_is_unknown_nobody_is_believed() -> None:
    revocations = Revocations()
    revocations.replace([], unknown=True)
    with pytest.raises(Refused, match="may be revoked"):
        revocations.refuse_revoked(lambda: [DER])
    revocations.replace([])
    revocations.refuse_revoked(lambda: [DER])


def test_while_something_is_revoked_a_chain_that_cannot_be_read_is_refused() -> None:
    revocations = Revocations()
    revocations.replace([b"x"])
    with pytest.raises(ProtocolError):
        revocations.refuse_revoked(list)
    with pytest.raises(InvalidInput):
        revocations.refuse_revoked(lambda: [b"\x30\x03\x30\x01\x02"])


@given(st.integers(0, 120), st.binary(max_size=3))
def test_der_that_ends_early_or_is_changed_gives_a_key_or_is_refused(at: int, other: bytes) -> None:
    for data in (DER[:at], DER[:at] + other + DER[at + len(other) :]):
        with suppress(InvalidInput):
            assert len(certificate_key(data)[1]) >= 20
