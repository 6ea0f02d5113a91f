"""The roots in every namespace: made, repaired, left alone where somebody else's, written by the leader only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from ambient.control.root_bundles import RootBundles
from ambient.control.root_plan import LABEL, OWNER, Wanted
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

NAME = "istio-ca-root-cert"


class World:
    def __init__(self, server: FakeApi, api: ApiClient, **options: Any) -> None:
        self.server = server
        self.wanted = Wanted("ROOTS")
        self.leading = True
        self.bundles = RootBundles(api, NAME, lambda: self.wanted, lambda: self.leading, **options)

    def there(self, namespace: str) -> dict[str, Any] | None:
        return self.server.stored("ConfigMap", NAME, namespace)

    def data(self, namespace: str) -> object:
        found = self.there(namespace)
        return found["data"] if found is not None else None

    def change(self, namespace: str, **changes: Any) -> None:
        self.server.put({**(self.there(namespace) or {}), **changes})


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    async with FakeApi() as server, ApiClient(server.access()) as api:
        here = World(server, api, **{"pause_s": 0.0, "again_s": 0.01, **options})
        running = asyncio.create_task(here.bundles.run())
        yield here
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def foreign(namespace: str) -> dict[str, Any]:
    metadata = {"name": NAME, "namespace": namespace, "labels": {"istio.io/config": "true"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"root-cert.pem": "THEIRS"}}


def test_every_namespace_gets_it_but_those_of_the_system() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.bundles.namespaces({"a", "b", "kube-system", "kube-public", "kube-node-lease"})
            await eventually(lambda: here.data("a") == here.data("b") == {"root-cert.pem": "ROOTS"})
            assert here.there("kube-system") is None
            await eventually(lambda: here.bundles.missing == 0)
            here.bundles.namespaces({"a", "b", "new"})
            await eventually(lambda: here.data("new") == {"root-cert.pem": "ROOTS"})
            assert here.bundles.writes == 3

    asyncio.run(scenario())


def test_what_is_edited_or_deleted_is_repaired() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.bundles.namespaces({"a"})
            await eventually(lambda: here.there("a"))
            here.change("a", data={"root-cert.pem": "MALLORY", "more": "x"})
            await eventually(lambda: here.data("a") == {"root-cert.pem": "ROOTS"})
            here.server.delete("ConfigMap", NAME, "a")
            await eventually(lambda: here.data("a") == {"root-cert.pem": "ROOTS"})

    asyncio.run(scenario())


def test_other_roots_reach_every_namespace() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.bundles.namespaces({"a", "b"})
            await eventually(lambda: here.there("b"))
            here.wanted = Wanted("BOTH", "2026-05-04T12:00:00+00:00")
            here.bundles.look()
            await eventually(lambda: here.data("a") == here.data("b") == {"root-cert.pem": "BOTH"})
            found = await here.bundles.inherited("a")
            assert found == ("BOTH", datetime(2026, 5, 4, 12, tzinfo=UTC))
            assert await here.bundles.inherited("nowhere") is None

    asyncio.run(scenario())


def test_somebody_elses_is_left_alone_until_it_is_gone() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.server.put(foreign("a"))
            await eventually(lambda: here.bundles._there)
            here.bundles.namespaces({"a", "b"})
            await eventually(lambda: here.there("b"))
            assert here.data("a") == {"root-cert.pem": "THEIRS"}
            assert (here.bundles.foreign, here.bundles.missing) == (1, 0)
            here.server.delete("ConfigMap", NAME, "a")
            await eventually(lambda: here.data("a") == {"root-cert.pem": "ROOTS"})
            assert here.bundles.foreign == 0

    asyncio.run(scenario())


def test_one_that_another_control_plane_takes_over_is_given_up() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.bundles.namespaces({"a"})
            await eventually(lambda: here.there("a"))
            found = here.there("a")
            assert found is not None
            fields = [{"manager": "pilot-discovery", "fieldsV1": {"f:data": {}}}]
            here.change("a", metadata={**found["metadata"], "managedFields": fields}, data={"root-cert.pem": "THEIRS"})
            await eventually(lambda: here.bundles.foreign == 1)
            here.bundles.look()
            here.bundles.namespaces({"a", "b"})
            await eventually(lambda: here.there("b"))
            assert here.data("a") == {"root-cert.pem": "THEIRS"}

    asyncio.run(scenario())


def test_only_the_leader_writes() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.leading = False
            here.bundles.namespaces({"a"})
            await eventually(lambda: here.bundles._follower.core.synced)
            await asyncio.sleep(0)
            assert here.bundles.missing == 1
            assert here.bundles.writes == 0
            here.leading = True
            here.bundles.look()
            await eventually(lambda: here.there("a"))
            found = here.there("a")
            assert found is not None
            assert found["metadata"]["labels"] == {LABEL: OWNER}

    asyncio.run(scenario())


def test_a_namespace_that_cannot_be_written_is_tried_again_and_keeps_nobody_waiting() -> None:
    async def scenario() -> None:
        async with world() as here:
            refused = Answer(403, status_body(403, "Forbidden", "is being terminated"))
            here.server.say("/api/v1/namespaces/a/configmaps", refused, refused)
            here.bundles.namespaces({"a", "b"})
            await eventually(lambda: here.there("b"))
            await eventually(lambda: here.bundles.look() or here.there("a"))

    asyncio.run(scenario())


def test_writes_are_spread_over_time() -> None:
    async def scenario() -> None:
        async with world(pause_s=0.02) as here:
            started = asyncio.get_running_loop().time()
            here.bundles.namespaces({f"n{number}" for number in range(10)})
            await eventually(lambda: here.bundles.missing == 0)
            assert asyncio.get_running_loop().time() - started > 9 * 0.02

    asyncio.run(scenario())


def test_a_new_namespace_does_not_wait_for_a_thousand_others() -> None:
    async def scenario() -> None:
        async with world(pause_s=0.01) as here:
            many = {f"n{number}" for number in range(200)}
            here.bundles.namespaces(many)
            await eventually(lambda: here.bundles.writes > 5)
            here.bundles.namespaces(many | {"new"})
            await eventually(lambda: here.there("new"))
            assert here.bundles.missing > 150

    asyncio.run(scenario())


def test_our_own_namespace_comes_first_because_a_restart_reads_it() -> None:
    async def scenario() -> None:
        async with world(own="m", pause_s=0.01) as here:
            here.bundles.namespaces({"a", "m", "z"})
            await eventually(lambda: here.bundles.writes)
            assert here.there("m")

    asyncio.run(scenario())
