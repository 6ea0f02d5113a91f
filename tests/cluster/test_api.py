"""How we read and write a real API server. Needs a cluster, not the mesh in it."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import ApiInvalid, Conflict, NotThere
from ambient.kube.api.lease import LEASES, Election, Seat
from ambient.kube.api.listwatch import Step
from ambient.kube.api.source import ApiSource
from ambient.kube.objects import Condition, Pod, Records, resources
from ambient.kube.resource import Resource
from ambient.kube.source import MESH_KINDS
from tests.cluster.conftest import CHART, FOREIGN
from tests.cluster.lab import programs
from tests.cluster.lab.plan import Plan
from tests.support import waiting as looked
from tests.support.kube import Kube, policy
from tests.support.waiting import eventually

SPACE = f"api-{uuid.uuid4().hex[:8]}"
"""A namespace that is being deleted takes nothing: each run has its own."""
CONFIG_MAPS = Resource("v1", "configmaps")
PATIENCE_S = 60


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Kube]:
    """The cluster's API server, with the kinds that we read and a namespace of our own."""
    if FOREIGN:
        kubectl = shutil.which("kubectl")
        assert kubectl is not None, "kubectl is not installed"
        kube = Kube(Path(kubectl), Path(FOREIGN), "")
    else:
        plan: Plan = request.getfixturevalue("lab")
        kube = Kube(programs.BIN / "kubectl", plan.kubeconfig, "")
    kube.run("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "files" / "crds"))
    with kube.namespace(SPACE, mesh=False):
        looked.until(lambda: kube.all("serviceaccounts", SPACE), "for the account that every pod has")
        yield kube


def pod(name: str, **labels: str) -> dict[str, Any]:
    """One that never runs: no node is found for it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "labels": labels},
        "spec": {
            "nodeSelector": {"ambient.mesh/nowhere": "x"},
            "containers": [{"name": "c", "image": "none.invalid/x"}],
        },
    }


Scenario = Callable[[ApiSource, AsyncIterator[Records]], Awaitable[None]]


def reading(config: Path, scenario: Scenario, **options: Any) -> None:
    async def run() -> None:
        client = ApiClient.open({"KUBECONFIG": str(config)})
        source = ApiSource(client, **{"kinds": MESH_KINDS, **options})
        task = asyncio.create_task(source.run())
        changes = source.changes()
        try:
            await scenario(source, changes)
        finally:
            await changes.aclose()  # type: ignore[attr-defined]
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())


async def until(changes: AsyncIterator[Records], done: Callable[[Records], object]) -> Records:
    async with asyncio.timeout(PATIENCE_S):
        async for records in changes:
            if done(records):
                return records
    raise AssertionError("the source ended")


def test_everything_there_is_becomes_a_record_and_nothing_is_refused(server: Kube) -> None:
    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        records = await until(changes, lambda _: True)
        assert not records.refused
        pods = {f"Pod/{one['metadata']['namespace']}/{one['metadata']['name']}" for one in server.all("pods")}
        assert pods <= {*records.by_key, *(key for key in pods if key not in records.by_key and _gone(server, key))}
        assert all(follower.core.synced for follower in source.followers.values())
        assert {follower.core._step for follower in source.followers.values()} <= {Step.WATCH, Step.FIND}

    reading(server.kubeconfig, scenario)


def _gone(server: Kube, key: str) -> bool:
    _, namespace, name = key.split("/")
    return name not in {one["metadata"]["name"] for one in server.all("pods", namespace)}


def test_what_is_applied_relabelled_and_deleted_arrives(server: Kube) -> None:
    key = f"Pod/{SPACE}/flows"

    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await until(changes, lambda _: True)
        await asyncio.to_thread(server.apply, pod("flows", app="one"))
        records = await until(changes, lambda r: key in r.by_key)
        assert records.changed is not None
        assert key in records.changed
        await asyncio.to_thread(server.run, "-n", SPACE, "label", "pod", "flows", "app=two", "--overwrite")
        await until(changes, lambda r: (p := r.find(Pod, SPACE, "flows")) and p.labels["app"] == "two")
        await asyncio.to_thread(server.delete, "pod", "flows", SPACE)
        await until(changes, lambda r: key not in r.by_key)

    reading(server.kubeconfig, scenario)


def test_a_version_that_the_server_has_forgotten_leads_to_a_new_list_and_nothing_is_lost(server: Kube) -> None:
    server.apply(pod("stays"), pod("goes"))
    keys = {f"Pod/{SPACE}/stays", f"Pod/{SPACE}/goes"}

    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await until(changes, lambda r: keys <= r.by_key.keys())
        follower = source.followers["Pod"]
        # As if we had been away for as long as the server remembers, and missed a deletion.
        follower.core._version = "1"
        gone = await asyncio.to_thread(server.delete, "pod", "goes", SPACE)
        assert gone is None
        await source.client.close()
        records = await until(changes, lambda r: f"Pod/{SPACE}/goes" not in r.by_key)
        assert f"Pod/{SPACE}/stays" in records.by_key
        assert len(records.by_key) > 2

    reading(server.kubeconfig, scenario)


def test_without_streaming_lists_the_same_is_read_in_pages(server: Kube) -> None:
    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        for follower in source.followers.values():
            follower.core._streaming = False
            follower.core._begin_list()
        records = await until(changes, lambda _: True)
        assert "Namespace/_/kube-system" in records.by_key
        await asyncio.to_thread(server.apply, pod("paged"))
        await until(changes, lambda r: f"Pod/{SPACE}/paged" in r.by_key)

    reading(server.kubeconfig, scenario)


def test_a_token_that_may_read_nothing_is_told_which_kinds(server: Kube, tmp_path: Path) -> None:
    server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": SPACE}})
    token = server.run("-n", SPACE, "create", "token", "nobody").strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    mine = tmp_path / "kubeconfig"
    mine.write_text(yaml.safe_dump(config))

    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await eventually(lambda: all(f.core.forbidden for f in source.followers.values()))
        told = source.waiting()
        for kind in ("Pod", "AuthorizationPolicy"):
            assert f"{kind} (" in told
        assert 'cannot list resource "pods"' in told or 'cannot watch resource "pods"' in told

    reading(mine, scenario)


def test_conditions_are_written_beside_those_of_others(server: Kube) -> None:
    server.apply(policy("AuthorizationPolicy", SPACE, "said", {"action": "DENY"}))
    theirs = {
        "type": "SomebodyElse", "status": "True", "reason": "r", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    patch = json.dumps({"status": {"conditions": [theirs]}})
    server.run("-n", SPACE, "patch", "authorizationpolicy", "said", "--subresource=status", "--type=merge", "-p", patch)
    key = f"AuthorizationPolicy/{SPACE}/said"

    def conditions() -> dict[str, Any]:
        found = server.get("authorizationpolicy", "said", SPACE)["status"]["conditions"]
        return {one["type"]: one for one in found}

    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await until(changes, lambda r: key in r.by_key)
        sink = source.status("test")
        sink.conditions(key, [Condition("ZtunnelAccepted", "True", "Accepted", "attached to ztunnel")])
        await eventually(lambda: sink.written == 1)
        told = await asyncio.to_thread(conditions)
        assert told["SomebodyElse"] == theirs
        assert told["ZtunnelAccepted"]["observedGeneration"] == 1
        sink.annotate(key, {"ambient.mesh/test": "yes"})
        await until(changes, lambda r: r.by_key[key].annotations.get("ambient.mesh/test") == "yes")
        sink.forget(key)
        await until(changes, lambda r: "ambient.mesh/test" not in r.by_key[key].annotations)
        await eventually(lambda: not sink.waiting)
        assert set(await asyncio.to_thread(conditions)) == {"SomebodyElse"}

    reading(server.kubeconfig, scenario)


def test_a_lease_goes_from_hand_to_hand(server: Kube) -> None:
    async def scenario() -> None:
        async with (
            ApiClient.open({"KUBECONFIG": str(server.kubeconfig)}) as first,
            ApiClient.open({"KUBECONFIG": str(server.kubeconfig)}) as second,
        ):
            one = Election(first, Seat(namespace=SPACE, name="seat", identity="one"), lambda: None)
            two = Election(second, Seat(namespace=SPACE, name="seat", identity="two"), lambda: None)
            task = asyncio.create_task(one.run())
            await eventually(lambda: one.held)
            await two.round()
            assert (two.held, two.holder) == (False, "one")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await two.round()
            assert two.held
            lease = await second.get(LEASES, "seat", SPACE)
            assert lease["spec"]["leaseTransitions"] == 1

    asyncio.run(scenario())


def test_a_change_of_what_somebody_else_changed_is_refused(server: Kube) -> None:
    async def scenario() -> None:
        async with ApiClient.open({"KUBECONFIG": str(server.kubeconfig)}) as api:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
            made = await api.create(CONFIG_MAPS, body, SPACE)
            await api.patch(CONFIG_MAPS, "c", {"data": {"a": "2"}}, SPACE)
            with pytest.raises(Conflict):
                await api.replace(CONFIG_MAPS, "c", made, SPACE)
            with pytest.raises(ApiInvalid, match="uid"):
                await api.patch(CONFIG_MAPS, "c", {"metadata": {"uid": "another"}, "data": {"a": "3"}}, SPACE)
            with pytest.raises(Conflict):
                await api.delete(CONFIG_MAPS, "c", SPACE, uid="another")
            await api.delete(CONFIG_MAPS, "c", SPACE)
            with pytest.raises(NotThere):
                await api.get(CONFIG_MAPS, "c", SPACE)

    asyncio.run(scenario())


def test_every_kind_that_we_read_has_the_plural_that_the_server_gives_it(server: Kube) -> None:
    async def scenario() -> None:
        async with ApiClient.open({"KUBECONFIG": str(server.kubeconfig)}) as api:
            for kind in MESH_KINDS:
                place = resources(kind)[0]
                with suppress(NotThere):
                    listed = (await api.call("GET", place.discovery))["resources"]
                    served = {one["name"]: one for one in listed}
                    assert (served[place.plural]["kind"], served[place.plural]["namespaced"]) == (
                        kind,
                        place.namespaced,
                    )

    asyncio.run(scenario())
