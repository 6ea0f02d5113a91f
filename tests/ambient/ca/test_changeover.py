"""One authority takes the place of another: in steps where somebody would fail, at once where nobody does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from ambient.ca.changeover import Changeover, merge_roots
from ambient.ca.roots import Authority, load_authority, make_root
from ambient.ca.rotation import Pace
from tests.ambient.ca.test_roots import signed

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PACE = Pace(timedelta(hours=24), timedelta(days=90))
Pair = tuple[bytes, bytes]


def root(lifetime: timedelta = timedelta(days=1000)) -> Pair:
    certificate, key = make_root(NOW, lifetime=lifetime)
    return certificate.encode(), key.encode()


def plugged(signer: Pair, *trusted: Pair) -> Authority:
    roots = b"".join(one[0] for one in trusted)
    return load_authority({"ca-cert.pem": signer[0], "ca-key.pem": signer[1], "root-cert.pem": roots}, NOW)


A, B = root(), root()
ONE, OTHER = plugged(A, A), plugged(B, B)


def trusted(authority: Authority) -> set[str]:
    return {f"{one.serial_number:x}" for one in x509.load_pem_x509_certificates(authority.roots.encode())}


def test_a_stranger_takes_over_when_everybody_knows_him() -> None:
    change = Changeover(ONE).replaced(OTHER, NOW, PACE)
    both = trusted(ONE) | trusted(OTHER)
    before, between, after = NOW, NOW + PACE.announce, NOW + PACE.announce + PACE.retire
    assert (change.effective(before).certificate, trusted(change.effective(before))) == (ONE.certificate, both)
    assert (change.effective(between).certificate, trusted(change.effective(between))) == (OTHER.certificate, both)
    assert change.effective(after) == OTHER


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ONE, ONE),
        (ONE, plugged(A, A, B)),
        (plugged(A, A, B), plugged(B, B, A)),
        (plugged(B, B, A), OTHER),
    ],
)
def test_steps_that_people_take_by_the_book_are_taken_at_once(before: Authority, after: Authority) -> None:
    change = Changeover(before).replaced(after, NOW, PACE)
    assert change == Changeover(after)
    assert change.effective(NOW) == after


def test_another_intermediate_of_the_same_root_signs_at_once() -> None:
    one, other = signed("one", A), signed("other", A)
    after = plugged(other, A)
    assert Changeover(plugged(one, A)).replaced(after, NOW, PACE).effective(NOW) == after


def test_a_step_that_skips_the_time_with_both_is_taken_slowly() -> None:
    change = Changeover(ONE).replaced(plugged(B, B, A), NOW, PACE)
    assert change.effective(NOW).certificate == ONE.certificate


def test_an_authority_that_ends_before_its_time_is_over_hands_over_at_once() -> None:
    short = root(timedelta(hours=12))
    change = Changeover(plugged(short, short)).replaced(OTHER, NOW, PACE)
    assert change.effective(NOW).certificate == OTHER.certificate
    assert len(trusted(change.effective(NOW))) == 2
    assert len(trusted(change.effective(NOW + timedelta(hours=13)))) == 1


def test_a_second_replacement_starts_from_what_is_in_force() -> None:
    third = root()
    change = Changeover(ONE).replaced(OTHER, NOW, PACE).replaced(plugged(third, third), NOW, PACE)
    assert change.effective(NOW).certificate == ONE.certificate
    assert len(trusted(change.effective(NOW))) == 3


def test_what_was_trusted_before_a_restart_is_trusted_until_its_time() -> None:
    change = Changeover(OTHER).inherited(ONE.roots, NOW + timedelta(days=1))
    assert change.effective(NOW).certificate == OTHER.certificate
    assert trusted(change.effective(NOW)) == trusted(ONE) | trusted(OTHER)
    assert change.effective(NOW + timedelta(days=1)) == OTHER


def test_roots_are_merged_in_order_each_once_without_those_that_have_ended() -> None:
    ended = make_root(NOW - timedelta(days=9), lifetime=timedelta(days=1))[0]
    a, b = A[0].decode(), B[0].decode()
    assert merge_roots((a, "", b + a, ended), NOW) == a + b
