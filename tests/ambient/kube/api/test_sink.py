"""What is written to objects of others: only ours, only what is new, only by the one that may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from ambient.kube.api.client import ApiClient
from ambient.kube.api.sink import ApiSink, merged_conditions
from ambient.kube.networking import TypedAddress
from ambient.kube.objects import Condition, Record, parse_object, resources
from ambient.kube.status_values import ListenerStatus
from tests.support.kube_api import Answer, FakeApi
from tests.support.waiting import eventually

KEY = "AuthorizationPolicy/shop/deny"
PATH = "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/deny"
ACCEPTED = Condition("ZtunnelAccepted", "True", "Accepted", "attached to ztunnel")
REFUSED = Condition("ZtunnelAccepted", "False", "UnsupportedValue", "no")


def policy(**more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "deny", "namespace": "shop", "generation": 3, "uid": "u1"},
        "spec": {},
        **more,
    }


class Bench:
    """A sink that sees the server's objects at once."""

    def __init__(self, api: FakeApi, client: ApiClient) -> None:
        self.api = api
        self.may = True
        self.sink = ApiSink(client, self.look, lambda kind: resources(kind)[0], lambda: self.may, rate=10_000)

    def look(self, key: str) -> Record | None:
        kind, namespace, name = key.split("/")
        content = self.api.stored(kind, name, namespace)
        return parse_object(content, "x", observed=True) if content is not None else None

    @property
    def said(self) -> list[dict[str, Any]]:
        content = self.api.stored("AuthorizationPolicy", "deny", "shop") or {}
        return list(content.get("status", {}).get("conditions", []))

    @property
    def writes(self) -> int:
        return sum(method == "PATCH" for method, _, _ in self.api.requests)


def writing(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=5) as client:
            bench = Bench(api, client)
            task = asyncio.create_task(bench.sink.run())
            try:
                await scenario(bench)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(run())


async def idle(bench: Bench) -> None:
    before = -1
    while bench.sink.waiting or before != len(bench.api.requests):
        before = len(bench.api.requests)
        for _ in range(50):
            await asyncio.sleep(0)


def test_a_condition_is_written_with_the_generation_it_speaks_of_and_others_stay() -> None:
    async def scenario(bench: Bench) -> None:
        theirs = {"type": "Reconciled", "status": "True", "reason": "r", "message": "", "lastTransitionTime": "t"}
        bench.api.put(policy(status={"conditions": [theirs], "other": 1}))
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: len(bench.said) == 2)
        assert bench.said[0] == theirs
        assert bench.said[1].items() >= {
            "type": "ZtunnelAccepted", "status": "True", "reason": "Accepted", "observedGeneration": 3,
        }.items()  # fmt: skip
        stored = bench.api.stored("AuthorizationPolicy", "deny", "shop")
        assert stored is not None
        assert stored["status"]["other"] == 1

    writing(scenario)


def test_what_was_said_of_an_earlier_generation_is_said_of_the_new_one() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: bench.said)
        stored = bench.api.stored("AuthorizationPolicy", "deny", "shop") or {}
        bench.api.put({**stored, "metadata": {**stored["metadata"], "generation": 4}})
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: bench.said[0]["observedGeneration"] == 4)
        before = bench.writes
        bench.sink.conditions(KEY, [ACCEPTED])
        await idle(bench)
        assert bench.writes == before

    writing(scenario)


def test_so_is_what_is_said_of_listeners_and_a_gateways_addresses_take_the_place_of_others() -> None:
    listener = ListenerStatus("http", ("HTTPRoute",), 1, (Condition("Accepted", "True", "Accepted", ""),))

    def gateway(generation: int) -> dict[str, Any]:
        spec = {"gatewayClassName": "ambient", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
        metadata = {"name": "front", "namespace": "shop", "generation": generation, "uid": "u1"}
        return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec}

    async def scenario(bench: Bench) -> None:
        def status() -> dict[str, Any]:
            return dict((bench.api.stored("Gateway", "front", "shop") or {}).get("status", {}))

        def observed() -> int:
            return (
                int(status()["listeners"][0]["conditions"][0]["observedGeneration"]) if "listeners" in status() else 0
            )

        for generation in (1, 2):
            bench.api.put({**gateway(generation), "status": status()})
            record = bench.look("Gateway/shop/front")
            assert record is not None
            bench.sink.gateway_listeners(record, [listener])
            await eventually(lambda wanted=generation: observed() == wanted)  # type: ignore[misc]
        for value in ("10.0.0.1", "192.0.2.1"):
            bench.sink.gateway_addresses(record, [TypedAddress("IPAddress", value)])
            await eventually(lambda wanted=value: status().get("addresses") == [{"type": "IPAddress", "value": wanted}])  # type: ignore[misc]

    writing(scenario)


def test_what_is_said_already_is_not_written_again() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        for _ in range(3):
            bench.sink.conditions(KEY, [ACCEPTED])
            await eventually(lambda: bench.said)
            await idle(bench)
        bench.sink.resume()
        await idle(bench)
        assert bench.writes == 1

    writing(scenario)


def test_of_many_words_in_the_queue_the_last_is_written() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        for _ in range(50):
            bench.sink.conditions(KEY, [ACCEPTED])
            bench.sink.conditions(KEY, [REFUSED])
        assert bench.sink.waiting == 1
        await eventually(lambda: bench.said)
        await idle(bench)
        assert [entry["status"] for entry in bench.said] == ["False"]
        assert bench.writes == 1

    writing(scenario)


def test_who_does_not_hold_the_lease_writes_nothing_until_it_does() -> None:
    async def scenario(bench: Bench) -> None:
        bench.may = False
        bench.api.put(policy())
        bench.sink.conditions(KEY, [ACCEPTED])
        bench.sink.annotate(KEY, {"ambient.mesh/x": "1"})
        for _ in range(100):
            await asyncio.sleep(0)
        assert bench.api.requests == []
        bench.may = True
        bench.sink.resume()
        await eventually(lambda: bench.said)

    writing(scenario)


def test_the_lease_that_is_lost_between_two_attempts_ends_them() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.sink._allowed = lambda: len(bench.api.requests) < 2
        bench.api.say(PATH, *[Answer(429)] * 20)
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: len(bench.api.requests) == 2 and bench.sink.waiting)
        for _ in range(200):
            await asyncio.sleep(0)
        assert bench.said == []
        assert len(bench.api.requests) == 2

    writing(scenario)


def test_a_conflict_is_read_again_and_what_the_other_wrote_stays() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.api.say(f"{PATH}/status", Answer(409), Answer(409))
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: bench.said)
        assert bench.sink.failed == 0

    writing(scenario)


@pytest.mark.parametrize("answer", [Answer(503), Answer(429), Answer(500)])
def test_a_server_that_cannot_answer_now_is_asked_again(answer: Answer) -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.api.say(PATH, answer)
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: bench.said)

    writing(scenario)


@pytest.mark.parametrize("answer", [Answer(403), Answer(422)])
def test_what_the_server_refuses_does_not_hold_up_the_rest(answer: Answer) -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.api.say(PATH, answer)
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: bench.sink.failed == 1)
        bench.sink.conditions(KEY, [REFUSED])
        await eventually(lambda: bench.said)

    writing(scenario)


def test_an_object_that_cannot_be_written_holds_up_no_other() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        other = policy()
        other["metadata"] |= {"name": "other", "uid": "u2"}
        bench.api.put(other)
        bench.api.say(PATH, *[Answer(500)] * 10_000)
        bench.sink.conditions(KEY, [ACCEPTED])
        bench.sink.conditions("AuthorizationPolicy/shop/other", [ACCEPTED])
        await eventually(lambda: (bench.api.stored("AuthorizationPolicy", "other", "shop") or {}).get("status"))
        await eventually(lambda: bench.sink.failed == 1)
        bench.api._answers.clear()
        await eventually(lambda: bench.said)

    writing(scenario)


def test_annotations_are_set_and_taken_away() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())

        def annotations() -> dict[str, str]:
            stored = bench.api.stored("AuthorizationPolicy", "deny", "shop") or {}
            return dict(stored["metadata"].get("annotations", {}))

        bench.sink.annotate(KEY, {"ambient.mesh/x": "1", "ambient.mesh/y": "2"})
        await eventually(lambda: len(annotations()) == 2)
        bench.sink.annotate(KEY, {"ambient.mesh/x": None})
        await eventually(lambda: annotations() == {"ambient.mesh/y": "2"})
        bench.sink.forget(KEY)
        await eventually(lambda: annotations() == {})

    writing(scenario)


def test_what_was_said_of_an_object_never_sticks_to_the_next_one_of_its_name() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.may = False
        bench.sink.conditions(KEY, [ACCEPTED])
        bench.sink.annotate(KEY, {"ambient.mesh/x": "1"})
        bench.api.delete("AuthorizationPolicy", "deny", "shop")
        following = policy()
        following["metadata"]["uid"] = "u2"
        bench.api.put(following)
        bench.may = True
        bench.sink.resume()
        await eventually(lambda: not bench.sink.waiting)
        await idle(bench)
        stored = bench.api.stored("AuthorizationPolicy", "deny", "shop")
        assert stored is not None
        assert "annotations" not in stored["metadata"]
        assert bench.said == []

    writing(scenario)


def test_an_object_that_is_gone_is_forgotten() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(policy())
        bench.sink.conditions(KEY, [ACCEPTED])
        await eventually(lambda: bench.said)
        bench.api.delete("AuthorizationPolicy", "deny", "shop")
        bench.sink.forget(KEY)
        await eventually(lambda: not bench.sink._words)
        assert bench.sink.failed == 0

    writing(scenario)


def test_conditions_that_we_never_wrote_are_not_taken_away() -> None:
    async def scenario(bench: Bench) -> None:
        theirs = {"type": "ZtunnelAccepted", "status": "True", "reason": "Accepted", "message": ""}
        bench.api.put(policy(status={"conditions": [theirs]}))
        bench.sink.forget(KEY)
        await idle(bench)
        assert bench.said == [theirs]
        assert bench.writes == 0

    writing(scenario)


def test_the_time_of_transition_stays_while_the_status_does() -> None:
    before = merged_conditions([], (ACCEPTED,), 1, "first")
    same = merged_conditions(before, (Condition("ZtunnelAccepted", "True", "Other", "new"),), 2, "later")
    assert (same[0]["lastTransitionTime"], same[0]["observedGeneration"]) == ("first", 2)
    assert merged_conditions(same, (REFUSED,), 2, "later")[0]["lastTransitionTime"] == "later"
    assert merged_conditions(same, (), 2, "later") == []


ENTRY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {"name": "api", "namespace": "shop", "uid": "u2"},
    "spec": {"hosts": ["a.example.com"], "resolution": "DNS", "ports": [{"number": 1, "name": "tcp"}]},
    "status": {"conditions": [{"type": "Theirs", "status": "True"}]},
}
GIVEN = [("a.example.com", "240.240.0.1"), ("a.example.com", "2001:2::1")]


def test_an_entry_is_given_its_addresses_once_and_keeps_what_else_its_status_says() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.put(ENTRY)

        def status() -> dict[str, Any]:
            return (bench.api.stored("ServiceEntry", "api", "shop") or {})["status"]

        record = bench.look("ServiceEntry/shop/api")
        assert record is not None
        bench.sink.addresses(record, GIVEN)
        await eventually(lambda: "addresses" in status())
        assert status()["addresses"] == [{"host": host, "value": value} for host, value in GIVEN]
        assert status()["conditions"] == [{"type": "Theirs", "status": "True"}]
        bench.sink.addresses(record, GIVEN)
        await eventually(lambda: not bench.sink.waiting)
        assert bench.writes == 1

    writing(scenario)


def test_a_route_is_told_as_to_its_parents_and_others_words_stay() -> None:
    theirs = {"parentRef": {"name": "ingress"}, "controllerName": "example.com/gateway", "conditions": []}
    service = {"group": "", "kind": "Service", "name": "web"}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "generation": 2, "uid": "u1"},
        "spec": {"parentRefs": [{"name": "ingress"}, service]},
        "status": {"parents": [theirs]},
    }
    accepted = Condition("Accepted", "True", "Accepted", "")

    async def scenario(bench: Bench) -> None:
        bench.api.put(route)

        def parents() -> list[dict[str, Any]]:
            stored = bench.api.stored("HTTPRoute", "web", "shop") or {}
            return list(stored["status"]["parents"])

        bench.sink.conditions("HTTPRoute/shop/web", [accepted])
        await eventually(lambda: len(parents()) == 2)
        kept, ours = parents()
        assert (kept, ours["parentRef"], ours["controllerName"]) == (theirs, service, "istio.io/mesh-controller")
        assert [(one["type"], one["observedGeneration"]) for one in ours["conditions"]] == [("Accepted", 2)]
        seen = bench.look("HTTPRoute/shop/web")
        assert seen is not None
        assert seen.conditions == (accepted,)

    writing(scenario)
