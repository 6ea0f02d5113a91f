"""Objects of an API server as records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from ambient.kube.api.client import ApiClient
from ambient.kube.api.listwatch import Pace
from ambient.kube.api.source import ApiSource
from ambient.kube.objects import Pod, Record, Records, parse_object
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

PACE = Pace(first_s=0.005, longest_s=0.02, absent_s=0.01, short_s=0)
KINDS = ("Namespace", "Pod", "AuthorizationPolicy")
POLICIES = "/apis/security.istio.io/v1/authorizationpolicies"


def pod(name: str, *, node: str = "n1", uid: str = "", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels, **({"uid": uid} if uid else {})},
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}]},
    }


def policy(name: str = "deny", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec or {"action": "DENY", "rules": [{}]},
    }


Scenario = Callable[[FakeApi, ApiSource, AsyncIterator[Records]], Awaitable[None]]


def reading(scenario: Scenario, api: FakeApi | None = None, **options: Any) -> None:
    async def run() -> None:
        async with api or FakeApi() as server:
            kinds = options.pop("kinds", KINDS)
            source = ApiSource(ApiClient(server.access(), timeout_s=5), kinds=kinds, pace=PACE, **options)
            task = asyncio.create_task(source.run())
            changes = source.changes()
            try:
                await scenario(server, source, changes)
            finally:
                await changes.aclose()  # type: ignore[attr-defined]
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(run())


async def after(changes: AsyncIterator[Records], done: Callable[[Records], object]) -> Records:
    async with asyncio.timeout(20):
        async for records in changes:
            if done(records):
                return records
    raise AssertionError("the source ended")


def test_nothing_is_shown_before_every_kind_is_known() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("a"))
        api.put(policy())
        first = asyncio.ensure_future(anext(changes))
        await eventually(lambda: len(api.asked("GET", POLICIES)) > 3)
        assert not first.done()
        assert "AuthorizationPolicy" in source.waiting()
        assert "is forbidden" in source.waiting()
        assert "Pod" not in source.waiting()
        api.say(POLICIES)
        api._answers.clear()
        records = await first
        assert set(records.by_key) == {"Pod/shop/a", "AuthorizationPolicy/shop/deny"}
        assert records.changed is None
        assert source.waiting() == ""

    api = FakeApi()
    api.say(POLICIES, *[Answer(403, status_body(403, "Forbidden", "policies is forbidden"))] * 1000)
    reading(scenario, api)


def test_each_change_names_what_changed_and_the_revision_grows() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("a"))
        first = await anext(changes)
        api.put(pod("b"))
        second = await anext(changes)
        assert second.changed == {"Pod/shop/b"}
        api.delete("Pod", "a", "shop")
        third = await anext(changes)
        assert third.changed == {"Pod/shop/a"}
        assert set(third.by_key) == {"Pod/shop/b"}
        assert first.revision < second.revision < third.revision
        assert set(first.by_key) == {"Pod/shop/a"}

    reading(scenario)


def test_what_is_refused_leaves_its_last_good_version_until_it_is_good_again_or_gone() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(policy())
        good = await anext(changes)
        api.put(policy(action="DENY", rulez=[]))
        records = await anext(changes)
        assert records.by_key == good.by_key
        refused = records.refused[0]
        assert (refused.key, refused.stands) == ("AuthorizationPolicy/shop/deny", True)
        assert refused.raw["spec"] == {"action": "DENY", "rulez": []}
        assert "rulez" in str(refused.error)
        api.put(policy())
        records = await anext(changes)
        assert records.refused == ()
        api.put(policy(action="DENY", rulez=[]))
        await anext(changes)
        api.delete("AuthorizationPolicy", "deny", "shop")
        records = await anext(changes)
        assert (records.refused, dict(records.by_key)) == ((), {})

    reading(scenario)


@pytest.mark.parametrize("error", [RecursionError("too deep"), ValueError("oh"), AssertionError()])
def test_an_object_that_breaks_its_parser_is_refused_and_nobody_else_suffers(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(content: Any, *args: Any, **options: Any) -> Record:
        if content["metadata"]["name"] == "evil":
            raise error
        return parse_object(content, *args, **options)

    monkeypatch.setattr("ambient.kube.api.source.parse_object", broken)

    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(policy("evil"))
        api.put(policy())
        records = await anext(changes)
        assert set(records.by_key) == {"AuthorizationPolicy/shop/deny"}
        assert [(one.key, one.stands) for one in records.refused] == [("AuthorizationPolicy/shop/evil", False)]
        assert type(error).__name__ in str(records.refused[0].error)
        api.put(pod("a"))
        assert "Pod/shop/a" in (await anext(changes)).by_key

    reading(scenario)


def test_the_good_version_of_an_object_is_not_that_of_the_next_one_of_its_name() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(policy())
        await anext(changes)
        broken = policy(action="DENY", rulez=[])
        broken["metadata"]["uid"] = "another"
        api.put(broken)
        records = await anext(changes)
        assert not records.by_key
        assert not records.refused[0].stands

    reading(scenario)


def test_what_changes_nothing_that_is_read_is_no_change() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("a"))
        await anext(changes)
        changed = pod("a")
        changed["spec"]["tolerations"] = [{}]
        api.put(changed)
        said = policy("b")
        api.put(said)
        assert (await anext(changes)).changed == {"AuthorizationPolicy/shop/b"}
        # What we ourselves write is known, and no news.
        said["status"] = {"conditions": [{"type": "ZtunnelAccepted", "status": "True"}]}
        api.put(said)
        api.put(pod("c"))
        assert (await after(changes, lambda r: "Pod/shop/c" in r.by_key)).changed == {"Pod/shop/c"}
        await eventually(lambda: (known := source._look("AuthorizationPolicy/shop/b")) and known.conditions)

    reading(scenario)


def test_a_server_that_is_gone_takes_nothing_with_it() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("a"))
        await anext(changes)
        port = await api.go_away()
        await eventually(lambda: source.followers["Pod"].core.trouble)
        assert source.waiting() == ""
        await api.listen(port)
        api.put(pod("b"))
        records = await anext(changes)
        assert set(records.by_key) == {"Pod/shop/a", "Pod/shop/b"}
        assert records.changed == {"Pod/shop/b"}

    reading(scenario)


def test_a_pod_with_a_field_nobody_has_heard_of_is_a_pod() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        strange = pod("a")
        strange["spec"]["quantum"] = {"entangled": True}
        strange["spec"]["containers"][0]["warp"] = 9
        strange["metadata"]["newField"] = 1
        api.put(strange)
        records = await anext(changes)
        assert records.find(Pod, "shop", "a") is not None
        assert not records.refused

    reading(scenario)


def test_a_policy_with_a_field_nobody_has_heard_of_is_refused() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(policy(action="DENY", rules=[{"unless": []}]))
        records = await anext(changes)
        assert not records.by_key
        assert "unless" in str(records.refused[0].error)

    reading(scenario)


def test_an_agent_asks_for_the_pods_of_its_node_and_for_namespaces() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        api.put(pod("mine"))
        api.put(pod("theirs", node="n2"))
        records = await anext(changes)
        assert set(records.by_key) == {"Namespace/_/shop", "Pod/shop/mine"}
        assert {path for _, path, _ in api.requests} == {"/api/v1/namespaces", "/api/v1/pods"}
        assert api.asked("GET", "/api/v1/pods")[0]["fieldSelector"] == "spec.nodeName=n1"

    reading(scenario, kinds=("Namespace", "Pod"), node="n1")


def test_trouble_is_said_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await anext(changes)
        port = await api.go_away()
        await eventually(lambda: source.followers["Pod"].core.failures > 5)
        await api.listen(port)
        await eventually(lambda: not any(f.core.trouble for f in source.followers.values()))

    with caplog.at_level(logging.INFO, logger="ambient.kube.api"):
        reading(scenario)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "what is known stays" in line]) == 1
    assert [line for line in lines if "everything with it" in line] == lines[-1:]


def test_a_connection_that_is_lost_and_found_again_at_once_is_not_worth_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await anext(changes)
        await eventually(lambda: len(api.watchers) == len(KINDS))
        api.break_watches()
        await eventually(lambda: all(f.opened > 1 for f in source.followers.values()))

    with caplog.at_level(logging.WARNING, logger="ambient.kube.api"):
        reading(scenario)
    assert caplog.records == []


def test_when_one_kind_is_read_again_the_others_do_not_wait_out_their_time() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        await anext(changes)
        await eventually(lambda: len(api.watchers) == len(KINDS))
        for follower in source.followers.values():
            follower.core._pace = Pace(first_s=100, longest_s=100)
        source.followers["Pod"].core._pace = PACE
        port = await api.go_away()
        await eventually(lambda: all(f.core.failures for f in source.followers.values()))
        await eventually(lambda: source.followers["Pod"].core.failures > 2)
        await api.listen(port)
        await eventually(lambda: not any(f.core.trouble for f in source.followers.values()))

    reading(scenario)
