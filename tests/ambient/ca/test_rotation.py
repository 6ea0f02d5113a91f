"""A change of the root, step by step: when it begins, what is trusted and who signs, and what is no state of ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from ambient.ca.csr import parse_csr
from ambient.ca.issue import issue
from ambient.ca.roots import load_authority, make_root
from ambient.ca.rotation import Pace, Step, advance, describe
from ambient.errors import InvalidInput
from tests.support.control import make_csr

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LIFE = timedelta(days=100)
PACE = Pace(timedelta(hours=2), timedelta(days=3), 0.2)
Files = Mapping[str, bytes]


def fresh() -> Files:
    certificate, key = make_root(NOW, lifetime=LIFE)
    return {"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}


def step(files: Files, now: datetime, request: str = "") -> Step | None:
    return advance(files, request, now, PACE, organization="cluster.local", lifetime=LIFE)


def forced(files: Files, now: datetime, request: str = "") -> Files:
    found = step(files, now, request)
    assert found is not None
    return found.files


def signs(files: Files, now: datetime = NOW) -> tuple[bytes, list[bytes]]:
    """Fingerprints: of the root that a new leaf leads to, and of all that are trusted."""
    authority = load_authority(files, now)
    leaf = x509.load_pem_x509_certificate(
        issue(authority, parse_csr(make_csr("spiffe://cluster.local/ns/a/sa/b")), now, None).chain[0].encode()
    )
    roots = x509.load_pem_x509_certificates(authority.roots.encode())
    leaf.verify_directly_issued_by(authority.certificate)
    assert authority.certificate in roots
    return authority.certificate.serial_number.to_bytes(20), [one.serial_number.to_bytes(20) for one in roots]


def test_every_leaf_that_was_ever_signed_is_trusted_by_everybody_at_every_step() -> None:
    start = fresh()
    old, _ = signs(start)
    announced = forced(start, NOW, "begin@1")
    assert signs(announced)[0] == old
    assert len(signs(announced)[1]) == 2
    later = NOW + PACE.announce
    signing = forced(announced, later)
    new, trusted = signs(signing, later)
    assert new != old
    assert trusted == [new, old]
    assert set(signs(announced)[1]) == set(trusted), "nobody has to learn of another root when the new one signs"
    done = forced(signing, later + PACE.retire)
    assert signs(done, later) == (new, [new])


def test_each_step_waits_its_time() -> None:
    moment = timedelta(seconds=1)
    start = fresh()
    assert step(start, NOW) is None
    announced = forced(start, NOW, "begin@1")
    assert step(announced, NOW + PACE.announce - moment) is None
    signing = forced(announced, NOW + PACE.announce)
    assert step(signing, NOW + PACE.announce + PACE.retire - moment) is None
    assert step(signing, NOW + PACE.announce + PACE.retire) is not None


@pytest.mark.parametrize(("part", "begins"), [(0.78, False), (0.81, True)])
def test_it_begins_by_itself_when_a_fifth_of_the_life_is_left(part: float, begins: bool) -> None:
    files = fresh()
    root = x509.load_pem_x509_certificate(files["root-cert.pem"])
    life = root.not_valid_after_utc - root.not_valid_before_utc
    assert (step(files, root.not_valid_before_utc + life * part) is not None) is begins


def test_a_request_is_acted_upon_once_and_only_where_it_fits() -> None:
    start = fresh()
    assert step(start, NOW, "next@1") is None, "there is nothing to hurry"
    assert step(start, NOW, "anything@1") is None
    announced = forced(start, NOW, "begin@1")
    assert step(announced, NOW, "begin@1") is None
    assert step(announced, NOW, "begin@2") is None, "one change at a time"
    signing = forced(announced, NOW, "next@3")
    assert step(signing, NOW, "next@3") is None
    done = forced(signing, NOW, "next@4")
    assert step(done, NOW, "next@4") is None
    assert step(done, NOW, "begin@5") is not None


def test_a_plan_can_be_told_to_people() -> None:
    start = fresh()
    announced = forced(start, NOW, "begin@1")
    signing = forced(announced, NOW, "next@1")
    assert describe(start, PACE) == "no change of the root is under way"
    assert "signs from 2026-05-04T14:00:00" in describe(announced, PACE)
    assert "trusted until 2026-05-07T12:00:00" in describe(signing, PACE)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rotation.json", b"rubbish", "not what was written"),
        ("rotation.json", b'{"stage": "announced"}', "not what was written"),
        ("rotation.json", b'{"stage": "other", "since": "", "handled": ""}', "not what was written"),
        ("rotation.json", b'{"stage": "signing", "since": "2026-05-04T14:00:00", "handled": ""}', "not what was"),
        ("rotation.json", b'{"stage": "announced", "since": "2026-01-01T00:00:00+00:00", "handled": ""}', "is missing"),
        ("root-cert.pem", b"rubbish", "has no certificates"),
        ("root-cert.pem", make_root(NOW)[0].encode(), "no certificate in it belongs to root-key.pem"),
        ("root-key.pem", b"rubbish", "not an unencrypted private key"),
    ],
)
def test_what_is_not_ours_is_refused_and_nothing_changes(name: str, content: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        step({**fresh(), name: content}, NOW, "begin@1")
