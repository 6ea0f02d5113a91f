"""Revocation lists out of a file: read, believed with the right signature only, followed, never undone by accident."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ambient.errors import InvalidInput
from tests.support.authority import Authority
from tests.support.director_world import World, scenario
from tests.support.waiting import eventually
from ztunnel.director.crl import Keys, Lists, RevocationLists, read_lists
from ztunnel.ipc import messages as ipc
from ztunnel.tls.revocation import revocation_key

OURS = Authority()


def listed(*serials: int, authority: Authority = OURS, named: Authority | None = None, until_s: float = 3600) -> bytes:
    """A list of the authority as PEM; `named`: whose name it bears."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name((named or authority).root.subject)
        .last_update(now - timedelta(days=2))
        .next_update(now + timedelta(seconds=until_s))
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(days=1))
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def keys(*serials: int, authority: Authority = OURS) -> Keys:
    return tuple(revocation_key(serial, authority.root.subject.public_bytes()) for serial in serials)


def test_every_list_of_a_file_counts() -> None:
    other = Authority("another root")
    pem = b"# comment\n" + listed(1, 2) + listed(3, authority=other)
    found = read_lists(pem, [OURS.root, other.root], time.time())
    assert found == Lists((*keys(1, 2), *keys(3, authority=other)), checked=True)
    assert read_lists(listed(), [OURS.root], time.time()) == Lists((), checked=True)


def test_a_list_that_is_past_its_time_or_of_somebody_unknown_still_counts() -> None:
    assert read_lists(listed(1, until_s=-60), [OURS.root], time.time()) == Lists(keys(1), checked=True)
    assert read_lists(listed(1), [], time.time()) == Lists(keys(1), checked=False)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "no list"),
        (b"what", "no list"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "list 1"),
        (listed(1) + b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "list 2"),
        (listed(1, authority=Authority("mallory"), named=OURS), "not signed by the authority"),
    ],
)
def test_a_file_with_one_bad_list_is_refused_whole(pem: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        read_lists(pem, [OURS.root], time.time())


def test_a_file_is_followed_and_no_accident_undoes_a_revocation(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "ca-crl.pem"
        heard: list[Keys | None] = []
        lists = RevocationLists(str(path), lambda: [OURS.root], heard.append, look_s=0.001)
        lists.load()
        assert lists.keys == ()
        running = asyncio.create_task(lists.run())
        await eventually(lambda: path.write_bytes(listed(1)) and heard == [keys(1)])
        for accident in (b"half a", listed(9, authority=Authority("mallory"), named=OURS)):
            path.write_bytes(accident)
            lists.load()
        path.unlink()
        lists.load()
        assert lists.keys == keys(1)
        assert heard == [keys(1)]
        path.write_bytes(listed(1, 2))
        await eventually(lambda: heard == [keys(1), keys(1, 2)])
        path.write_bytes(listed())
        await eventually(lambda: heard[-1] == ())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


class Folder:
    """A file of lists, the authorities that are known, and what was heard."""

    def __init__(self, folder: Path) -> None:
        self.path, self.kept = folder / "ca-crl.pem", folder / "state.pem"
        self.known: list[x509.Certificate] = []
        self.heard: list[Keys | None] = []

    def started(self) -> RevocationLists:
        lists = RevocationLists(str(self.path), lambda: self.known, self.heard.append, kept=self.kept)
        lists.load()
        return lists


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


FORGED = listed(9, authority=Authority("mallory"), named=OURS)


@pytest.mark.parametrize("bad", [b"half a", FORGED])
def test_a_file_that_is_unusable_at_the_start_counts_as_the_last_good_one_or_nobody_is_believed(
    folder: Folder, bad: bytes
) -> None:
    folder.known = [OURS.root]
    folder.path.write_bytes(bad)
    lists = folder.started()
    assert (lists.keys, folder.heard) == (None, [None])
    folder.path.write_bytes(listed(1))
    lists.load()
    assert folder.heard == [None, keys(1)]
    folder.path.write_bytes(bad)
    assert folder.started().keys == keys(1)


def test_a_file_that_is_not_there_revokes_nothing_until_there_was_one(folder: Folder) -> None:
    folder.known = [OURS.root]
    assert folder.started().keys == ()
    folder.path.write_bytes(listed(1))
    folder.started()
    folder.path.unlink()
    assert folder.started().keys == keys(1)


def test_a_list_that_came_before_its_issuer_is_checked_as_soon_as_that_is_known(folder: Folder) -> None:
    folder.path.write_bytes(listed(1))
    lists = folder.started()
    assert lists.keys == keys(1)
    assert not folder.kept.exists()
    folder.known = [OURS.root]
    lists.authorities_changed()
    assert folder.heard == [keys(1)]
    assert folder.kept.read_bytes() == folder.path.read_bytes()


def test_a_forged_list_that_came_before_its_issuer_does_not_stay_in_force(folder: Folder) -> None:
    folder.path.write_bytes(FORGED)
    lists = folder.started()
    assert lists.keys == keys(9)
    folder.known = [OURS.root]
    lists.authorities_changed()
    assert lists.keys is None


def test_after_a_forged_list_the_last_good_one_counts(folder: Folder) -> None:
    folder.known = [OURS.root]
    folder.path.write_bytes(listed(1))
    folder.started()
    folder.known = []
    folder.path.write_bytes(FORGED)
    lists = folder.started()
    folder.known = [OURS.root]
    lists.authorities_changed()
    assert lists.keys == keys(1)


def test_an_authority_that_is_known_later_than_another_is_asked_too(folder: Folder) -> None:
    async def scenario() -> None:
        other = Authority("another root")
        folder.known = [other.root]
        folder.path.write_bytes(FORGED)
        lists = folder.started()
        running = asyncio.create_task(lists.run())
        folder.known = [other.root, OURS.root]
        lists.authorities_changed()
        await eventually(lambda: lists.keys is None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


@scenario
async def test_workers_hear_that_nobody_knows_what_is_revoked(world: World) -> None:
    path = Path(world.config.run_dir).parent / "crl.pem"
    world.config = replace(world.config, crl_path=str(path))
    path.write_bytes(b"rubbish")
    async with world.director() as director:
        assert director.revoked is not None
        director.revoked.load()
        assert (await world.worker().hears(ipc.Revocations)).unknown


@scenario
async def test_workers_hear_what_is_revoked_when_they_come_and_when_it_changes(world: World) -> None:
    path = Path(world.config.run_dir).parent / "crl.pem"
    world.config = replace(world.config, crl_path=str(path))
    path.write_bytes(listed(7))
    async with world.director() as director:
        assert director.revoked is not None
        director.revoked.load()
        worker = world.worker()
        assert (await worker.hears(ipc.Revocations)).keys == keys(7)
        path.write_bytes(listed(7, 8))
        director.revoked.load()
        assert (await worker.hears(ipc.Revocations, 2)).keys == keys(7, 8)
