"""One holder at a time, on machines whose clocks are their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ambient.kube.api.client import ApiClient
from ambient.kube.api.lease import Election, Seat
from tests.support.kube_api import Answer, FakeApi
from tests.support.waiting import eventually

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ambient-system/leases/ambient-control"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    def __init__(self, api: FakeApi, name: str, clock: Clock) -> None:
        self.client = ApiClient(api.access(), timeout_s=2)
        self.told: list[bool] = []
        seat = Seat(namespace="ambient-system", name="ambient-control", identity=name)
        self.election: Election = Election(self.client, seat, lambda: self.told.append(self.election.held), clock=clock)

    @property
    def held(self) -> bool:
        return self.election.held


def electing(scenario: Callable[[FakeApi, Replica, Replica, Clock], Awaitable[None]]) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            clock = Clock()
            one, two = Replica(api, "one", clock), Replica(api, "two", clock)
            try:
                await scenario(api, one, two, clock)
            finally:
                await one.client.close()
                await two.client.close()

    asyncio.run(run())


def test_the_first_one_has_it_and_keeps_it_while_it_renews() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        for _ in range(20):
            await one.election.round()
            await two.election.round()
            assert (one.held, two.held) == (True, False)
            clock.now += 2
        assert two.election.holder == "one"
        lease = api.stored("Lease", "ambient-control", "ambient-system")
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 0
        assert (one.told, two.told) == ([True], [])

    electing(scenario)


def test_a_holder_that_is_silent_stops_before_another_begins() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        await one.election.round()
        await two.election.round()
        both = 0
        while not two.held:
            clock.now += 0.5
            await two.election.round()
            both += one.held and two.held
        assert both == 0
        assert clock.now - 1000 > 15
        lease = api.stored("Lease", "ambient-control", "ambient-system")
        assert lease is not None
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)
        await one.election.round()
        assert not one.held
        assert one.told == [True, False]

    electing(scenario)


def test_a_holder_that_cannot_reach_the_server_stops_by_its_own_clock() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        await one.election.round()
        api.say(LEASE, *[Answer(500)] * 10)
        clock.now += 9
        await one.election.round()
        assert one.held
        clock.now += 2
        assert not one.held
        await one.election.round()
        assert one.told == [True, False]

    electing(scenario)


def test_who_finds_that_somebody_else_wrote_stops_at_once() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        await one.election.round()
        api.say(LEASE, Answer(409))
        await one.election.round()
        assert not one.held
        await one.election.round()
        assert one.held

    electing(scenario)


def test_a_lease_that_was_taken_by_force_is_lost_at_the_next_look() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        await one.election.round()
        lease = api.stored("Lease", "ambient-control", "ambient-system")
        assert lease is not None
        lease["spec"]["holderIdentity"] = "two"
        api.put(lease)
        await one.election.round()
        assert not one.held

    electing(scenario)


def test_of_two_that_take_it_at_the_same_time_one_has_it() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        await asyncio.gather(one.election.round(), two.election.round())
        assert one.held != two.held

    electing(scenario)


def test_who_ends_hands_it_over_at_once() -> None:
    async def scenario(api: FakeApi, one: Replica, two: Replica, clock: Clock) -> None:
        task = asyncio.create_task(one.election.run())
        await eventually(lambda: one.held)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not one.held
        await two.election.round()
        assert two.held

    electing(scenario)
