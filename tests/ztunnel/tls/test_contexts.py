"""The wallet: who has credentials, who waits, and what a renewal changes."""

from __future__ import annotations

import contextlib
import os
import ssl

import pytest

from ambient.errors import InvalidInput, Unavailable
from tests.support.tunnel_certs import Authority
from ztunnel.tls.contexts import Credentials, Wallet

ALICE = "spiffe://cluster.local/ns/a/sa/alice"
_SUPPORTED_VERSIONS = 43
_COMPRESS_CERTIFICATE = 27
"""RFC 8879, section 3."""


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def put(wallet: Wallet, not_after: float = 2_000.0) -> None:
    authority = Authority()
    fd = authority.descriptor([ALICE])
    try:
        wallet.put(ALICE, fd, authority.roots, not_after)
    finally:
        os.close(fd)


def test_who_waits_is_told_when_credentials_come() -> None:
    wallet, got = Wallet(Clock()), list[Credentials | Unavailable]()
    wallet.wait(ALICE, got.append)
    assert not got
    put(wallet)
    wallet.wait(ALICE, got.append)
    assert [isinstance(one, Credentials) for one in got] == [True, True]
    assert wallet.identities == (ALICE,)


def test_who_stopped_waiting_is_not_told() -> None:
    wallet, got = Wallet(Clock()), list[Credentials | Unavailable]()
    wallet.wait(ALICE, got.append)
    wallet.leave(ALICE, got.append)
    put(wallet)
    assert not got


def test_a_failure_is_told_to_who_waits_and_forgotten_with_the_next_success() -> None:
    wallet, got = Wallet(Clock()), list[Credentials | Unavailable]()
    wallet.wait(ALICE, got.append)
    wallet.fail(ALICE, "not entitled")
    wallet.wait(ALICE, got.append)
    assert [str(one) for one in got] == [f"certificate: {ALICE}: not entitled"] * 2
    put(wallet)
    assert wallet.get(ALICE) is not None


def test_a_renewal_gives_a_new_serial_and_a_broken_one_changes_nothing() -> None:
    wallet = Wallet(Clock())
    put(wallet)
    first = wallet.get(ALICE)
    put(wallet)
    second = wallet.get(ALICE)
    assert first is not None
    assert second is not None
    assert second.serial > first.serial
    fd = os.memfd_create("broken")
    os.write(fd, b"not PEM")
    with pytest.raises(InvalidInput):
        wallet.put(ALICE, fd, Authority().roots, 2_000.0)
    os.close(fd)
    assert wallet.get(ALICE) is second


def test_expired_credentials_are_not_used() -> None:
    clock, got = Clock(), list[Credentials | Unavailable]()
    wallet = Wallet(clock)
    put(wallet, 1_500.0)
    assert wallet.get(ALICE) is not None
    clock.now = 1_500.0
    assert wallet.get(ALICE) is None
    wallet.wait(ALICE, got.append)
    assert "expired" in str(got[0])


def test_dropped_credentials_are_gone() -> None:
    wallet = Wallet(Clock())
    put(wallet)
    wallet.drop(ALICE)
    assert wallet.get(ALICE) is None
    assert wallet.identities == ()


def test_nobody_is_told_that_certificates_may_come_compressed() -> None:
    wallet = Wallet(Clock())
    put(wallet)
    credentials = wallet.get(ALICE)
    assert credentials is not None
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        credentials.client.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    offered = extensions(hello.read())
    assert _SUPPORTED_VERSIONS in offered
    assert _COMPRESS_CERTIFICATE not in offered


def extensions(hello: bytes) -> set[int]:
    """Types of the extensions of a ClientHello in one record (RFC 8446, section 4.1.2)."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    found, at = set(), at + 2
    while at < len(hello):
        found.add(int.from_bytes(hello[at : at + 2], "big"))
        at += 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
    return found
