"""Where the authority is kept: one of two simultaneous changes wins, and a crash in the middle leaves what works."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ambient.ca.roots import load_authority, make_root
from ambient.ca.rotation import Pace, advance
from ambient.control.ca_store import FolderStore, Outrun, PluggedStore, SecretStore
from ambient.errors import Unavailable
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import Answer, FakeApi, status_body

NOW = datetime.now(UTC)
PACE = Pace(timedelta(hours=1), timedelta(hours=1))


def fresh() -> dict[str, bytes]:
    certificate, key = make_root(NOW)
    return {"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}


def advanced(files: Mapping[str, bytes], request: str) -> Mapping[str, bytes]:
    step = advance(files, request, NOW, PACE, organization="x", lifetime=timedelta(days=9))
    assert step is not None
    return step.files


def test_what_was_written_is_read_and_keys_are_the_owners_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert (store.read_now().files, store.read_now().version) == ({}, "")
    files = advanced(fresh(), "begin@1")
    store.write_now(files, "")
    assert store.read_now().files == files
    for name in ("root-key.pem", "next-key.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(files)


def test_files_that_are_no_longer_wanted_go(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write_now(advanced(fresh(), "begin@1"), "")
    store.write_now(advanced(store.read_now().files, "next@2"), store.read_now().version)
    assert not (tmp_path / "next-key.pem").exists()


def test_a_folder_that_was_changed_meanwhile_is_not_written(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write_now(fresh(), "")
    version = store.read_now().version
    (tmp_path / "rotate").write_text("begin@1")
    with pytest.raises(Outrun):
        store.write_now(fresh(), version)
    with pytest.raises(Outrun):
        store.write_now(fresh(), "")


@pytest.mark.parametrize("request_text", ["begin@1", "next@2", "next@3"])
def test_a_crash_after_any_file_leaves_an_authority_that_signs(tmp_path: Path, request_text: str) -> None:
    """The order of writing is part of the promise: it is cut off after each file."""
    files: Mapping[str, bytes] = fresh()
    for earlier in ("begin@1", "next@2", "next@3"):
        if earlier == request_text:
            break
        files = advanced(files, earlier)
    wanted = advanced(files, request_text)
    for cut in range(len(wanted) + 1):
        folder = tmp_path / f"{cut}"
        folder.mkdir()
        store = Crashing(folder, cut)
        FolderStore(folder).write_now(files, "")
        with pytest.raises(Crash):
            store.write_now(wanted, store.read_now().version)
        load_authority(store.read_now().files, NOW)


class Crash(Exception):
    """The process ended here."""


class Crashing(FolderStore):
    """Ends after so many files."""

    def __init__(self, folder: Path, left: int) -> None:
        super().__init__(folder)
        self._left = left

    def _replace(self, name: str, content: bytes) -> None:
        if not self._left:
            raise Crash
        self._left -= 1
        super()._replace(name, content)
        if not self._left:
            raise Crash


def test_a_secret_is_made_changed_and_lost_races_are_noticed() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            store = SecretStore(api, "ambient-system", "ambient-ca")
            assert (await store.read()).files == {}
            first = advanced(fresh(), "begin@1")
            await store.write(first, "")
            kept = await store.read()
            assert kept.files == first
            with pytest.raises(Outrun):
                await store.write(first, "")
            second = advanced(first, "next@2")
            await store.write(second, kept.version)
            assert (await store.read()).files == second
            with pytest.raises(Outrun):
                await store.write(first, kept.version)

    asyncio.run(scenario())


def test_a_secret_that_may_not_be_read_or_is_no_base64_is_unavailable() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            store = SecretStore(api, "ambient-system", "ambient-ca")
            path = "/api/v1/namespaces/ambient-system/secrets/ambient-ca"
            server.say(path, Answer(403, status_body(403, "Forbidden", "no")))
            with pytest.raises(Unavailable, match="no"):
                await store.read()
            metadata = {"name": "ambient-ca", "namespace": "ambient-system"}
            server.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"root-key.pem": "!"}})
            with pytest.raises(Unavailable, match=r"root-key\.pem is not base64"):
                await store.read()

    asyncio.run(scenario())


def test_what_is_plugged_in_comes_first_and_is_somebody_elses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            own = SecretStore(api, "ambient-system", "ambient-ca")
            store = PluggedStore(FolderStore(tmp_path), own)
            await store.write(fresh(), "")
            assert not (await store.read()).plugged
            FolderStore(tmp_path).write_now(fresh(), "")
            assert (await store.read()).plugged
            assert (await store.read()).files == FolderStore(tmp_path).read_now().files

    asyncio.run(scenario())
