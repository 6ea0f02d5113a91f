"""What a Gateway stands for: made, repaired, left alone where it is somebody else's, written by the leader only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ambient.control.upkeep import TAKE_OVER, Upkeep, rest_after
from ambient.kube.api.client import ApiClient
from ambient.kube.networking import Gateway
from ambient.kube.objects import Condition, Records
from ambient.waypoint.deploy import CLASS, GATEWAY_NAME, NAME, service, service_account
from ambient.waypoint.deployment import Dressing, deployment
from tests.ambient.waypoint.test_deployment import PLACE
from tests.support.builders import records
from tests.support.kube_api import Answer, FakeApi, Object, status_body
from tests.support.waiting import eventually
from tests.support.waypoint_records import gateway

KEY = "Gateway/shop/waypoint"
KINDS = ("ServiceAccount", "Service", "Deployment")
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments/waypoint"


class World:
    def __init__(self, server: FakeApi, api: ApiClient, rest_s: float = 0.01) -> None:
        self.server = server
        self.leads = True
        self.image = "i:1"
        self.said: list[Condition | None] = []
        self.one = Upkeep(api, self.wanted, lambda: self.leads, self.say, pause_s=0.0, again_s=0.01, rest_s=rest_s)

    def wanted(self, _: Records, found: Gateway) -> Sequence[Object]:
        if found.class_name != CLASS:
            return ()
        place = PLACE.__class__(command=("a",), environment={}, token="/t", root="/r", image=self.image)
        return [service_account(found), service(found), deployment(found, place, Dressing(resources={}))]

    def say(self, key: str) -> None:
        self.said.append(self.one.trouble(key))

    def there(self, kind: str = "Deployment") -> Object | None:
        return self.server.stored(kind, "waypoint", "shop")

    def uses(self) -> str:
        found = self.there()
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"]) if found is not None else ""

    def complete(self) -> bool:
        return all(self.there(kind) for kind in KINDS)


@asynccontextmanager
async def world(
    *before: Object, objects: Records | None = None, leads: bool = True, rest_s: float = 0.01
) -> AsyncIterator[World]:
    async with FakeApi() as server, ApiClient(server.access()) as api:
        for one in before:
            server.put(one)
        here = World(server, api, rest_s)
        here.leads = leads
        here.one.hear(objects if objects is not None else records(gateway()))
        running = asyncio.create_task(here.one.run())
        yield here
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def edited(here: World, image: str) -> None:
    content = here.there()
    assert content is not None
    (container,) = content["spec"]["template"]["spec"]["containers"]
    changed: Any = {**content, "spec": {**content["spec"], "template": {**content["spec"]["template"]}}}
    changed["spec"]["template"]["spec"] = {
        **content["spec"]["template"]["spec"],
        "containers": [{**container, "image": image}],
    }
    here.server.put(changed)


def test_everything_is_made_and_belongs_to_the_gateway() -> None:
    async def scenario() -> None:
        found = gateway()
        found["metadata"]["uid"] = "u-7"
        async with world(objects=records(found)) as here:
            await eventually(here.complete)
            for kind in KINDS:
                (owner,) = (here.there(kind) or {})["metadata"]["ownerReferences"]
                assert (owner["kind"], owner["uid"]) == ("Gateway", "u-7")
            applied = [query for method, _, query in here.server.requests if method == "PATCH"]
            assert {one["fieldManager"] for one in applied} == {"ambient-gateways"}
            assert here.one.trouble(KEY) is None

    asyncio.run(scenario())


def test_what_is_edited_or_deleted_is_made_again() -> None:
    async def scenario() -> None:
        async with world() as here:
            await eventually(here.complete)
            for kind in KINDS:
                here.server.delete(kind, "waypoint", "shop")
                await eventually(here.complete)
            edited(here, "mallory:1")
            await eventually(lambda: here.uses() == "i:1")

    asyncio.run(scenario())


def test_a_status_is_nobodys_edit() -> None:
    async def scenario() -> None:
        async with world() as here:
            await eventually(here.complete)
            writes = len(here.server.asked("PATCH", DEPLOYMENTS))
            failing = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
            here.server.put({**(here.there() or {}), "status": {"conditions": [failing]}})
            await eventually(lambda: here.said and here.said[-1] is not None)
            trouble = here.one.trouble(KEY)
            assert trouble is not None
            assert (trouble.type, trouble.status, trouble.reason) == ("Programmed", "False", "NoResources")
            assert "exceeded quota" in trouble.message
            assert len(here.server.asked("PATCH", DEPLOYMENTS)) == writes

    asyncio.run(scenario())


def test_another_version_of_ours_rolls_out_and_only_the_leader_writes() -> None:
    async def scenario() -> None:
        async with world(leads=False) as here:
            await eventually(lambda: here.server.watchers)
            here.one.hear(records(gateway("second"), gateway()))
            assert [method for method, _, _ in here.server.requests if method != "GET"] == []
            here.leads = True
            await eventually(here.complete)
            here.image = "i:2"
            here.one.hear(records(gateway()))
            await eventually(lambda: here.uses() == "i:2")

    asyncio.run(scenario())


def test_nothing_is_made_for_a_gateway_that_is_going_or_gone() -> None:
    async def scenario() -> None:
        async with world() as here:
            await eventually(here.complete)
            here.one.hear(records())
            for kind in KINDS:
                here.server.delete(kind, "waypoint", "shop")
            here.one.hear(records(gateway("second")))
            await eventually(lambda: here.server.stored("Deployment", "second", "shop"))
            assert [here.there(kind) for kind in KINDS] == [None, None, None]
            assert not here.one.keeps(KEY)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_what_is_somebody_elses_is_left_alone_and_told(kind: str) -> None:
    version = "v1" if kind == "Service" else "apps/v1"
    theirs = {"apiVersion": version, "kind": kind, "metadata": {"name": "waypoint", "namespace": "shop"}}

    async def scenario() -> None:
        async with world({**theirs, "spec": {"x": "theirs"}}) as here:
            await eventually(lambda: here.said)
            trouble = here.one.trouble(KEY)
            assert trouble is not None
            assert trouble.reason == "Invalid"
            assert "was not made for this Gateway" in trouble.message
            assert (here.there(kind) or {})["spec"] == {"x": "theirs"}
            here.server.delete(kind, "waypoint", "shop")
            await eventually(here.complete)
            await eventually(lambda: here.one.trouble(KEY) is None)

    asyncio.run(scenario())


def annotated(name: str, key: str, value: str) -> Object:
    made = gateway(name)
    return {**made, "metadata": {**made["metadata"], "annotations": {key: value}}}


def another_meshes(replicas: int) -> Object:
    """What another mesh, with the same names and labels, has made for the Gateway."""
    (one,) = records(gateway()).of(Gateway)
    before = deployment(one, PLACE, Dressing(resources={}))
    before["metadata"]["managedFields"] = [{"manager": "pilot-discovery", "operation": "Apply"}]
    before["spec"]["replicas"] = replicas
    before["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs:1"
    return before


def test_what_another_mesh_made_for_it_is_taken_over_where_the_gateway_says_so() -> None:
    async def scenario() -> None:
        for said in ("", "false"):
            asking = annotated("waypoint", TAKE_OVER, said)
            async with world(another_meshes(3), objects=records(asking)) as here:
                await eventually(lambda: here.said)
                trouble = here.one.trouble(KEY)
                assert trouble is not None
                assert "was not made for this Gateway" in trouble.message
                assert here.uses() == "theirs:1"
                here.one.hear(records(annotated("waypoint", TAKE_OVER, "true")))
                await eventually(here.complete)
                await eventually(lambda: here.uses() == "i:1")
                assert (here.there() or {})["spec"]["replicas"] == 3

    asyncio.run(scenario())


def test_of_two_gateways_that_ask_for_one_name_the_second_overwrites_nothing() -> None:
    async def scenario() -> None:
        async with world() as here:
            await eventually(here.complete)
            here.one.hear(records(gateway(), annotated("second", NAME, "waypoint")))
            await eventually(lambda: here.one.trouble("Gateway/shop/second"))
            for kind in KINDS:
                assert (here.there(kind) or {})["metadata"]["labels"][GATEWAY_NAME] == "waypoint"

    asyncio.run(scenario())


def test_whoever_changes_it_again_and_again_is_answered_ever_more_slowly() -> None:
    assert [rest_after(count) for count in (2, 3, 4, 10, 11, 5000)] == [1, 2, 4, 256, 300, 300]
    second = gateway("second")

    async def scenario() -> None:
        async with world(objects=records(gateway(), second), rest_s=300.0) as here:
            await eventually(here.complete)
            for _ in range(2):
                edited(here, "mallory:1")
                await eventually(lambda: here.uses() == "i:1")
            edited(here, "mallory:1")
            # What comes after it in the same watch is seen to, so that has been heard.
            await eventually(lambda: here.server.stored("Deployment", "second", "shop"))
            here.server.delete("Deployment", "second", "shop")
            await eventually(lambda: here.server.stored("Deployment", "second", "shop"))
            assert here.uses() == "mallory:1"
            here.image = "i:2"
            here.one.hear(records(gateway(), second))
            await eventually(lambda: here.uses() == "i:2")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [(403, "Forbidden", "NoResources"), (422, "Invalid", "Invalid"), (503, "ServiceUnavailable", "Pending")],
)
def test_what_the_server_says_is_told_and_tried_again(status: int, reason: str, told: str) -> None:
    async def scenario() -> None:
        answers = [Answer(status, status_body(status, reason, "because"))] * 2
        async with FakeApi() as server, ApiClient(server.access()) as api:
            here = World(server, api)
            server.say(DEPLOYMENTS, Answer(404, status_body(404, "NotFound", "no")), answers[0])
            here.one.hear(records(gateway()))
            running = asyncio.create_task(here.one.run())
            await eventually(lambda: here.said)
            assert here.said[0] is not None
            assert (here.said[0].reason, "because" in here.said[0].message) == (told, True)
            await eventually(lambda: here.complete() and here.one.trouble(KEY) is None)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
