"""A pod's own facts."""

from __future__ import annotations

from ambient.model.address import parse_endpoint
from tests.support.tunnel import run, until, world
from ztunnel.hbone.headers import read_stateless


def test_own_addresses_are_loopback_and_the_pods() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            here.update(here.pods["client"], addresses=("10.0.0.1", "fd00::1"))
            await until(lambda: pod.is_own(parse_endpoint("10.0.0.1:1")))
            assert pod.is_own(parse_endpoint("[fd00::1]:1"))
            assert pod.is_own(parse_endpoint("[::1]:1"))
            assert not pod.is_own(parse_endpoint("10.0.0.2:1"))
            # While discovery knows nothing of the pod its namespace still does.
            here.update(here.pods["client"], addresses=(), known=False)
            await until(lambda: not pod.policy.known)
            assert pod.is_own(parse_endpoint("0.0.0.0:15001"))

    run(scenario)


def test_the_constant_part_of_a_request_follows_the_pods_baggage() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            first = pod.request_prefix("10.0.0.1:80")
            assert pod.request_prefix("10.0.0.1:80") is first
            here.update(here.pods["client"], baggage="a=b")
            await until(lambda: pod.policy.baggage == "a=b")
            fields = read_stateless(pod.request_prefix("10.0.0.1:80"))
            assert fields == ((b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"), (b"baggage", b"a=b"))

    run(scenario)


def test_who_waits_for_a_pod_to_be_known_is_told_once() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            told: list[int] = []
            pod.when_known(lambda: told.append(1))
            assert told == [1]
            here.update(here.pods["client"], known=False)
            await until(lambda: not pod.policy.known)

            def never() -> None:
                told.append(9)

            pod.when_known(lambda: told.append(2))
            pod.when_known(never)
            pod.stop_waiting(never)
            here.update(here.pods["client"], known=True)
            await until(lambda: told == [1, 2])

    run(scenario)
