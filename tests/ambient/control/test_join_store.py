"""Both stores keep the same promises: a change rests on what was read, a delete on who it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ambient.control.join_store import ApiStore, EntryStore, FolderStore, open_store
from ambient.errors import Refused, Unavailable
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import Answer, FakeApi, status_body

VERSION = "networking.istio.io/v1"
ENTRY = {
    "apiVersion": VERSION,
    "kind": "WorkloadEntry",
    "metadata": {"name": "e", "namespace": "shop", "annotations": {"a": "1", "b": "2"}},
    "spec": {"address": "192.0.2.7"},
}


def _with_each(tmp_path: Path, scenario: Callable[[EntryStore], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(FolderStore(tmp_path))
        async with FakeApi() as api, ApiClient(api.access()) as client:
            await scenario(ApiStore(client))

    asyncio.run(run())


async def _entry(store: EntryStore) -> dict[str, Any]:
    found = await store.read("WorkloadEntry", "shop", "e")
    assert found is not None
    return found


def test_an_entry_is_made_read_changed_and_deleted(tmp_path: Path) -> None:
    async def scenario(store: EntryStore) -> None:
        assert await store.read("WorkloadEntry", "shop", "e") is None
        await store.create(ENTRY)
        await store.annotate(await _entry(store), {"a": None, "c": "3"})
        assert (await _entry(store))["metadata"]["annotations"] == {"b": "2", "c": "3"}
        await store.delete(await _entry(store))
        assert await store.read("WorkloadEntry", "shop", "e") is None

    _with_each(tmp_path, scenario)


def test_a_change_of_what_was_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    async def scenario(store: EntryStore) -> None:
        await store.create(ENTRY)
        before = await _entry(store)
        await store.annotate(before, {"a": "x"})
        with pytest.raises(Refused, match="changed meanwhile"):
            await store.annotate(before, {"a": "y"})
        assert (await _entry(store))["metadata"]["annotations"]["a"] == "x"

    _with_each(tmp_path, scenario)


def test_a_second_one_of_that_name_is_refused(tmp_path: Path) -> None:
    async def scenario(store: EntryStore) -> None:
        await store.create(ENTRY)
        with pytest.raises(Refused):
            await store.create(ENTRY)

    _with_each(tmp_path, scenario)


def test_a_delete_is_for_the_one_that_was_read_not_for_its_successor(tmp_path: Path) -> None:
    async def scenario(store: EntryStore) -> None:
        await store.create(ENTRY)
        before = await _entry(store)
        await store.delete(before)
        await store.create(ENTRY)
        await store.delete(before)
        await store.delete(await _entry(store))
        await store.delete(before)

    _with_each(tmp_path, scenario)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, status_body(401, "Unauthorized", "Unauthorized")),
        Answer(403, status_body(403, "Forbidden", "no such right")),
        Answer(404, b"404 page not found"),
        Answer(422, status_body(422, "Invalid", "a webhook of somebody's")),
        Answer(503, status_body(503, "ServiceUnavailable", "later")),
    ],
    ids=lambda answer: str(answer.status),
)
def test_what_the_api_server_denies_us_is_no_refusal_of_who_asks_us(answer: Answer) -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access()) as client:
            store = ApiStore(client)
            await store.create(ENTRY)
            found = await _entry(store)
            attempts: list[Callable[[], Awaitable[object]]] = [lambda: store.read("WorkloadEntry", "shop", "e")]
            if answer.status != 404:
                attempts += [lambda: store.annotate(found, {"a": "2"}), lambda: store.delete(found)]
            for attempt in attempts:
                api.say(f"/apis/{VERSION}/namespaces/shop/workloadentries/e", answer)
                with pytest.raises(Unavailable):
                    await attempt()
            assert (await _entry(store))["metadata"]["annotations"] == {"a": "1", "b": "2"}

    asyncio.run(run())


def test_the_setting_of_objects_says_which_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path, {}), FolderStore)


def test_a_store_that_is_closed_leaves_no_connection(tmp_path: Path) -> None:
    async def run() -> None:
        await FolderStore(tmp_path).close()
        async with FakeApi() as api:
            client = ApiClient(api.access())
            store = ApiStore(client)
            assert await store.read("WorkloadEntry", "shop", "e") is None
            assert client._session is not None
            await store.close()
            assert client._session is None

    asyncio.run(run())
