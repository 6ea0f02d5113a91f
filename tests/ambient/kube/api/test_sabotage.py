"""Each promise about the API server, with the part that keeps it broken on purpose: the check must notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from ambient.kube.api import source as sources
from ambient.kube.api.client import ApiClient
from ambient.kube.api.lease import Election, Seat
from ambient.kube.api.listwatch import Change, ListWatch, Pace, Step
from ambient.kube.api.sink import ApiSink
from ambient.kube.api.source import ApiSource
from ambient.kube.objects import Condition, Record, Records, parse_object, resources
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

PACE = Pace(first_s=0.005, longest_s=0.02, absent_s=0.01, short_s=0)
POLICIES = "/apis/security.istio.io/v1/authorizationpolicies"
DENY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "deny", "namespace": "shop", "uid": "u"},
    "spec": {"action": "DENY", "rules": [{}]},
}
KEY = "AuthorizationPolicy/shop/deny"
Scenario = Callable[[FakeApi, ApiSource, AsyncIterator[Records]], Awaitable[bool]]


def breaks(scenario: Scenario, sabotage: Callable[[ApiSource], None] | None) -> bool:
    """Whether the promise is seen broken: with the sabotage it has to be."""

    async def run() -> bool:
        async with FakeApi() as api:
            kinds = ("Pod", "AuthorizationPolicy")
            source = ApiSource(ApiClient(api.access(), timeout_s=5), kinds=kinds, pace=PACE)
            if sabotage is not None:
                sabotage(source)
            task = asyncio.create_task(source.run())
            changes = source.changes()
            try:
                return await scenario(api, source, changes)
            finally:
                await changes.aclose()  # type: ignore[attr-defined]
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    return asyncio.run(run())


class ForgetsAtRelist(ListWatch):
    """Begins a new list with nothing known, as one would who replaces everything at its end."""

    def _expired(self) -> None:
        self.lost = list(self._known)
        self._known.clear()
        super()._expired()

    def event(self, data: Any) -> list[Change]:
        lost, self.lost = getattr(self, "lost", []), []
        return [Change(key, None) for key in lost] + super().event(data)


class TakesHalfForWhole(ListWatch):
    """Takes the end of a list for its completion."""

    def ended(self, lasted_s: float) -> None:
        if self._step is Step.STREAM:
            self.lost = self._complete("1000")

    def event(self, data: Any) -> list[Change]:
        lost, self.lost = getattr(self, "lost", []), []
        return lost + super().event(data)


class BelievesAnything(ListWatch):
    """Takes events in whatever order they come."""

    def event(self, data: Any) -> list[Change]:
        self._version = "0" if self._step is Step.WATCH else self._version
        return super().event(data)


class GivesUpKinds(ListWatch):
    """Goes on without the kinds that it may not read."""

    def failed(self, error: Any) -> None:
        super().failed(error)
        self.synced = self.synced or self.forbidden


def cores(kind: type[ListWatch]) -> Callable[[ApiSource], None]:
    def sabotage(source: ApiSource) -> None:
        for name, follower in source.followers.items():
            follower.core = kind(name, resources(name), pace=PACE, random=lambda: 0.5)

    return sabotage


async def loses_a_policy_at_a_compaction(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> bool:
    api.put(DENY)
    await anext(changes)
    seen = set()
    take = source._take

    def watch(change: Change) -> None:
        take(change)
        seen.add(KEY in source._records)

    for follower in source.followers.values():
        follower._deliver = watch
    api.compact()
    api.send(b'{"type": "ERROR", "object": ' + status_body(410, "Expired", "old") + b"}\n", "AuthorizationPolicy")
    await eventually(lambda: source.followers["AuthorizationPolicy"].core.relists)
    return False in seen


async def loses_a_policy_with_half_a_list(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> bool:
    api.put(DENY)
    await anext(changes)
    api.say(POLICIES, Answer(410), Answer(200, b""))
    api.end_watches()
    follower = source.followers["AuthorizationPolicy"]
    await eventually(lambda: len(api.asked("GET", POLICIES)) >= 4 and len(api.watchers) == 2)
    events = follower.events
    api.bookmark("AuthorizationPolicy", 1001)
    await eventually(lambda: follower.events > events)
    return KEY not in source._records


async def takes_back_what_was_changed_last(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> bool:
    old = api.put(DENY)
    await anext(changes)
    api.put({**DENY, "spec": {"action": "DENY"}})
    await anext(changes)
    late = b'{"type": "DELETED", "object": ' + json.dumps(old).encode() + b"}\n"
    api.send(late, "AuthorizationPolicy")
    core = source.followers["AuthorizationPolicy"]
    events = core.events
    api.bookmark("AuthorizationPolicy")
    await eventually(lambda: core.events > events)
    return KEY not in source._records


async def serves_without_its_policies(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> bool:
    api.say(POLICIES, *[Answer(403)] * 10_000)
    api.put(DENY)
    first = asyncio.ensure_future(anext(changes))
    await eventually(lambda: len(api.asked("GET", POLICIES)) > 5)
    served = first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    return served


@pytest.mark.parametrize(
    ("scenario", "saboteur"),
    [
        (loses_a_policy_at_a_compaction, ForgetsAtRelist),
        (loses_a_policy_with_half_a_list, TakesHalfForWhole),
        (takes_back_what_was_changed_last, BelievesAnything),
        (serves_without_its_policies, GivesUpKinds),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
def test_no_policy_is_lost_unless_the_core_is_careless(
    scenario: Scenario, saboteur: type[ListWatch], broken: bool
) -> None:
    assert breaks(scenario, cores(saboteur) if broken else None) is broken


@pytest.mark.parametrize("broken", [False, True])
def test_the_last_good_version_stays_unless_what_is_unknown_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    def lax(raw: Any, where: str, *, observed: bool = False) -> Record:
        spec = {**raw["spec"], "rules": [{}]} if "rules" in raw["spec"] else raw["spec"]
        return parse_object({**raw, "spec": spec}, where, observed=observed)

    if broken:
        monkeypatch.setattr(sources, "parse_object", lax)

    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> bool:
        api.put(DENY)
        await anext(changes)
        api.put({**DENY, "metadata": {**DENY["metadata"], "generation": 2}, "spec": {"rules": [{"unless": []}]}})  # type: ignore[dict-item]
        records = await anext(changes)
        return not records.refused

    assert breaks(scenario, None) is broken


@pytest.mark.parametrize("broken", [False, True])
def test_nobody_writes_without_the_lease_unless_nobody_looks(broken: bool) -> None:
    async def run() -> bool:
        now = 0.0
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=2) as client:
            api.put(DENY)
            seat = Seat(namespace="ambient-system", name="x", identity="one")
            election = Election(client, seat, lambda: None, clock=lambda: now)
            await election.round()
            sink = ApiSink(
                client,
                lambda key: parse_object(api.stored("AuthorizationPolicy", "deny", "shop"), "x", observed=True),
                lambda kind: resources(kind)[0],
                (lambda: True) if broken else (lambda: election.held),
            )
            # The server does not answer us any more, for longer than we may believe in our lease.
            now += seat.deadline_s + 1
            sink.conditions(KEY, [Condition("ZtunnelAccepted", "True", "Accepted")])
            task = asyncio.create_task(sink.run())
            for _ in range(300):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return any(method == "PATCH" for method, _, _ in api.requests)

    assert asyncio.run(run()) is broken
