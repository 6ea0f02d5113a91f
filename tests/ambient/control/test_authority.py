"""The authority in force: made when there is none, changes taken up, damage never, new roots in steps."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from ambient.ca.roots import make_root
from ambient.ca.rotation import Pace
from ambient.control.authority import SigningAuthority
from ambient.control.ca_store import FolderStore, PluggedStore, SecretStore
from ambient.errors import InvalidInput, Unavailable
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import FakeApi

START = datetime.now(UTC)
PACE = Pace(timedelta(hours=24), timedelta(days=90))


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def opened(path: Path, *, create: bool = True, clock: Clock | None = None, staged: bool = False) -> SigningAuthority:
    made = SigningAuthority(
        FolderStore(path),
        trust_domain="cluster.local",
        create=create,
        pace=PACE,
        staged=staged,
        clock=clock or Clock(),
    )
    asyncio.run(made.load())
    return made


def follow(made: SigningAuthority) -> bool:
    return asyncio.run(made.follow())


def plug(path: Path, certificate: str, key: str) -> None:
    (path / "root-cert.pem").write_text(certificate)
    (path / "ca-cert.pem").write_text(certificate)
    (path / "ca-key.pem").write_text(key)


def roots_of(made: SigningAuthority) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(made.authority.roots.encode())


def test_an_empty_folder_gets_a_root_whose_key_only_its_owner_reads(tmp_path: Path) -> None:
    made = opened(tmp_path)
    assert stat.S_IMODE((tmp_path / "root-key.pem").stat().st_mode) == 0o600
    assert opened(tmp_path, create=False).authority.roots == made.authority.roots


def test_without_leave_no_root_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is missing"):
        opened(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_half_an_authority_is_not_filled_up(tmp_path: Path) -> None:
    (tmp_path / "root-cert.pem").write_text(make_root(START)[0])
    with pytest.raises(InvalidInput, match=r"root-key\.pem: is missing"):
        opened(tmp_path)


def test_before_it_is_loaded_nothing_is_signed(tmp_path: Path) -> None:
    made = SigningAuthority(FolderStore(tmp_path), trust_domain="x", create=True, pace=PACE)
    with pytest.raises(Unavailable, match="not loaded"):
        _ = made.authority


def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    assert not follow(opened(tmp_path))


def test_new_files_are_taken_up_once(tmp_path: Path) -> None:
    made = opened(tmp_path)
    certificate, key = make_root(START)
    (tmp_path / "root-cert.pem").write_text(certificate)
    (tmp_path / "root-key.pem").write_text(key)
    assert follow(made)
    assert made.authority.roots == certificate
    assert not follow(made)


def test_damage_leaves_the_old_authority_is_said_once_and_its_repair_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = opened(tmp_path)
    before = made.authority
    key = (tmp_path / "root-key.pem").read_text()
    (tmp_path / "root-key.pem").write_text("rubbish")
    assert not follow(made)
    assert not follow(made)
    assert caplog.text.count("cannot be used as it is kept") == 1
    assert made.authority == before
    (tmp_path / "root-key.pem").unlink()
    assert not follow(made)
    (tmp_path / "root-key.pem").write_text(key)
    assert not follow(made)
    assert made.authority.roots == before.roots


def test_touched_files_with_the_same_content_are_no_change(tmp_path: Path) -> None:
    made = opened(tmp_path)
    (tmp_path / "root-cert.pem").write_text((tmp_path / "root-cert.pem").read_text())
    assert not follow(made)


def test_a_root_near_its_end_is_changed_by_itself_through_a_time_with_both(tmp_path: Path) -> None:
    clock = Clock()
    made = opened(tmp_path, clock=clock)
    (old,) = roots_of(made)
    clock.now = START + timedelta(days=3650) * 0.79
    assert not follow(made)
    clock.now = START + timedelta(days=3650) * 0.801
    assert follow(made)
    assert (len(roots_of(made)), made.authority.certificate) == (2, old)
    clock.now += PACE.announce
    assert follow(made)
    assert old in roots_of(made)
    assert made.authority.certificate != old
    clock.now += PACE.retire
    assert follow(made)
    assert roots_of(made) == [made.authority.certificate]
    assert not follow(made)
    assert opened(tmp_path, clock=clock).authority.roots == made.authority.roots


def test_a_change_can_be_asked_for_and_hurried(tmp_path: Path) -> None:
    made = opened(tmp_path)
    (old,) = roots_of(made)
    for request, signs_old, trusted in (("begin@1", True, 2), ("next@2", False, 2), ("next@3", False, 1)):
        (tmp_path / "rotate").write_text(request)
        assert follow(made)
        assert not follow(made), "a request is acted upon once"
        assert (made.authority.certificate == old, len(roots_of(made))) == (signs_old, trusted)


def test_a_plugged_authority_is_never_changed_by_us(tmp_path: Path) -> None:
    clock = Clock()
    plug(tmp_path, *make_root(START, lifetime=timedelta(days=10)))
    made = opened(tmp_path, clock=clock)
    clock.now += timedelta(days=9)
    (tmp_path / "rotate").write_text("begin@1")
    assert not follow(made)
    assert len(roots_of(made)) == 1


def test_an_authority_that_is_replaced_at_once_is_taken_over_in_steps(tmp_path: Path) -> None:
    clock = Clock()
    plug(tmp_path, *make_root(START))
    made = opened(tmp_path, clock=clock, staged=True)
    (old,) = roots_of(made)
    plug(tmp_path, *make_root(START))
    assert follow(made)
    assert (made.authority.certificate, len(roots_of(made))) == (old, 2)
    clock.now += PACE.announce
    assert follow(made)
    new = made.authority.certificate
    assert new != old
    assert roots_of(made) == [new, old]
    assert made.retires == START + PACE.announce + PACE.retire
    clock.now += PACE.retire
    assert follow(made)
    assert roots_of(made) == [new]
    assert made.retires is None


def test_sabotage_without_steps_the_old_root_is_gone_at_once(tmp_path: Path) -> None:
    plug(tmp_path, *make_root(START))
    made = opened(tmp_path, staged=False)
    (old,) = roots_of(made)
    plug(tmp_path, *make_root(START))
    assert follow(made)
    assert old not in roots_of(made)


def test_after_a_restart_what_was_trusted_is_trusted_until_it_retires(tmp_path: Path) -> None:
    clock = Clock()
    old, _ = make_root(START)
    plug(tmp_path, *make_root(START))
    made = opened(tmp_path, clock=clock, staged=True)
    made.inherit(old, START + timedelta(days=1))
    assert len(roots_of(made)) == 2
    clock.now += timedelta(days=1)
    assert follow(made)
    assert len(roots_of(made)) == 1
    made.inherit(old, START)
    assert len(roots_of(made)) == 1


def test_old_roots_that_somebody_has_spoilt_keep_nobody_from_starting(tmp_path: Path) -> None:
    plug(tmp_path, *make_root(START))
    made = opened(tmp_path, clock=Clock(), staged=True)
    for spoilt in ("", "no PEM", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"):
        made.inherit(spoilt, START + timedelta(days=1))
        assert len(roots_of(made)) == 1


def test_replicas_share_one_root_in_a_secret_and_one_of_them_moves_it_on() -> None:
    async def scenario() -> None:
        clock = Clock()
        async with FakeApi() as server, ApiClient(server.access()) as api:

            def replica() -> SigningAuthority:
                store = SecretStore(api, "ambient-system", "ambient-ca")
                return SigningAuthority(store, trust_domain="cluster.local", create=True, pace=PACE, clock=clock)

            one, two = replica(), replica()
            await asyncio.gather(one.load(), two.load())
            assert one.authority.roots == two.authority.roots
            secret = server.stored("Secret", "ambient-ca", "ambient-system")
            assert secret is not None
            assert set(secret["data"]) == {"root-cert.pem", "root-key.pem"}
            asked = {**secret["metadata"], "annotations": {"ambient.mesh/rotate-root": "begin@x"}}
            server.put({**secret, "metadata": asked})
            await asyncio.gather(one.follow(), two.follow())
            await asyncio.gather(one.follow(), two.follow())
            assert len(roots_of(one)) == 2
            assert one.authority.roots == two.authority.roots
            for wait, trusted in ((PACE.announce, 2), (PACE.retire, 1)):
                clock.now += wait
                for _ in range(2):
                    await asyncio.gather(one.follow(), two.follow())
                assert one.authority.certificate == two.authority.certificate
                assert one.authority.roots == two.authority.roots
                assert len(roots_of(one)) == trusted
            secret = server.stored("Secret", "ambient-ca", "ambient-system")
            assert secret is not None
            assert set(secret["data"]) == {"root-cert.pem", "root-key.pem", "rotation.json"}

    asyncio.run(scenario())


def test_a_root_that_somebody_deletes_is_put_back() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            store = SecretStore(api, "ambient-system", "ambient-ca")
            made = SigningAuthority(store, trust_domain="cluster.local", create=True, pace=PACE)
            await made.load()
            before = made.authority.roots
            server.delete("Secret", "ambient-ca", "ambient-system")
            assert not await made.follow()
            again = SigningAuthority(store, trust_domain="cluster.local", create=True, pace=PACE)
            await again.load()
            assert again.authority.roots == before

    asyncio.run(scenario())


def test_what_somebody_plugged_in_and_took_away_is_not_put_anywhere(tmp_path: Path) -> None:
    plug(tmp_path, *make_root(START))
    made = opened(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    assert not follow(made)
    assert list(tmp_path.iterdir()) == []


def test_while_the_api_server_is_away_what_is_in_force_goes_on() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            store = SecretStore(api, "ambient-system", "ambient-ca")
            made = SigningAuthority(store, trust_domain="cluster.local", create=True, pace=PACE)
            await made.load()
            before = made.authority
            await server.go_away()
            assert not await made.follow()
            assert made.authority == before
            with pytest.raises(Unavailable):
                await SigningAuthority(store, trust_domain="cluster.local", create=True, pace=PACE).load()

    asyncio.run(scenario())


def test_a_mounted_authority_comes_before_our_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            store = PluggedStore(FolderStore(tmp_path), SecretStore(api, "ambient-system", "ambient-ca"))
            clock = Clock()
            made = SigningAuthority(
                store, trust_domain="cluster.local", create=True, pace=PACE, staged=True, clock=clock
            )
            await made.load()
            own = made.authority.certificate
            plug(tmp_path, *make_root(START))
            assert await made.follow()
            assert made.authority.certificate == own, "nobody trusts the new one yet"
            clock.now += PACE.announce
            assert await made.follow()
            assert made.authority.certificate != own

    asyncio.run(scenario())
