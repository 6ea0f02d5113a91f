"""Where a pod's connections go, and how they fail."""

from __future__ import annotations

import asyncio

import pytest

from ambient.model.outcome import Forward, NoRoute, Passthrough, Refuse
from tests.support.tunnel import application, echo, pair, run, talk, until, world
from ztunnel.director.spans import parse_traceparent
from ztunnel.ipc import messages as m
from ztunnel.ipc.flows import unpack


def test_the_request_says_where_who_and_for_which_service() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            await until(lambda: here.log().count("connection complete") == 2)
            out = next(line for line in here.log().splitlines() if "complete" in line and '"outbound"' in line)
            for part in (
                "src.addr=127.0.0.1:",
                'src.workload="client-1"',
                f"dst.addr=127.0.0.12:{server.hbone[1]}",
                f"dst.hbone_addr=127.0.0.12:{port}",
                'dst.service="server.test.svc.cluster.local"',
                'dst.identity="spiffe://cluster.local/ns/test/sa/server"',
                "bytes_sent=5 bytes_recv=5",
            ):
                assert part in out

    run(scenario)


def test_both_ends_of_a_tunnel_tell_of_one_trace() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"

            def ended() -> dict[str, str]:
                told = [record for message in here.director.of(m.Flows) for record in unpack(message.packed)]
                return {record.direction: record.traceparent for record in told if record.event == "closed"}

            await until(lambda: len(ended()) == 2)
            assert ended()["outbound"] == ended()["inbound"]
            assert parse_traceparent(ended()["outbound"]) is not None

    run(scenario)


def test_a_destination_outside_the_mesh_is_reached_directly() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.99", echo) as port:
            client = await here.pod("client", "127.0.0.11")
            here.capture(client.outbound, "127.0.0.99", port)
            here.director.plans["127.0.0.99", port] = Passthrough("unknown destination")
            assert await talk(client.outbound) == b"hello"
            await until(lambda: f"dst.addr=127.0.0.99:{port}" in here.log())
            assert "src.identity" not in here.log()

    run(scenario)


@pytest.mark.parametrize(
    "plan", [Refuse(NoRoute.NOT_IN_REGISTRY, "strict"), Refuse(NoRoute.UNKNOWN_WAYPOINT), Forward(())]
)
def test_a_refused_destination_is_refused_with_the_reason_in_the_log(plan: Refuse | Forward) -> None:
    async def scenario() -> None:
        async with world() as here:
            client = await here.pod("client", "127.0.0.11")
            here.director.plans[client.outbound] = plan
            assert await talk(client.outbound) == b""
            await until(lambda: "connection complete" in here.log())
            reason = plan.reason if isinstance(plan, Refuse) else "no healthy upstream"
            assert f'error="{reason}' in here.log()
            counted = plan.reason if isinstance(plan, Refuse) else "no-healthy-upstream"
            assert here.counter(f'outbound_refused{{reason="{counted}"}}') == 1

    run(scenario)


@pytest.mark.parametrize("port", [15001, 15006, 15008])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.11", "10.1.2.3"])
def test_a_loop_into_our_own_ports_is_refused_before_anybody_is_asked(port: int, host: str) -> None:
    async def scenario() -> None:
        async with world() as here:
            client = await here.pod("client", "127.0.0.11")
            here.update(client, addresses=("127.0.0.11", "10.1.2.3"))
            here.capture(client.outbound, host, port)
            assert await talk(client.outbound) == b""
            await until(lambda: "loop to ztunnel" in here.log())
            assert not here.director.of(m.RouteAsk)

    run(scenario)


def test_a_plan_is_asked_once_and_again_after_it_was_forgotten() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            for _ in range(3):
                assert await talk(client.outbound) == b"hello"
            assert len(here.director.of(m.RouteAsk)) == 1
            ask = here.director.of(m.RouteAsk)[0]
            here.director.send(m.Forget(routes=((ask.uid, ask.ip, ask.port),)))
            here.director.plans[client.outbound] = Refuse(NoRoute.NOT_IN_REGISTRY)
            assert await talk(client.outbound) == b""
            assert len(here.director.of(m.RouteAsk)) == 2

    run(scenario)


def test_hops_are_drawn_by_weight() -> None:
    async def name(answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async def scenario() -> None:
        async with (
            world() as here,
            application("127.0.0.12", lambda _, w: name(b"a", w)) as first,
            application("127.0.0.12", lambda _, w: name(b"b", w)) as second,
        ):
            client, server = await pair(here, first, weight=3)
            (light,) = here.director.plans[client.outbound].hops  # type: ignore[union-attr]
            here.route(client, server, second, weight=1)
            (heavy,) = here.director.plans[client.outbound].hops  # type: ignore[union-attr]
            here.director.plans[client.outbound] = Forward((light, heavy))
            draws = iter([0.0, 0.5, 0.74, 0.76, 0.99])
            here.workers[0].plane.random = lambda: next(draws)
            assert [await talk(client.outbound, b"") for _ in range(5)] == [b"a", b"a", b"a", b"b", b"b"]

    run(scenario)


def test_a_peer_that_is_not_the_expected_one_gets_no_byte() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port, expected=("spiffe://cluster.local/ns/test/sa/somebody-else",))
            assert await talk(client.outbound) == b""
            await until(lambda: "connection complete" in here.log())
            assert "expected spiffe://cluster.local/ns/test/sa/somebody-else" in here.log()

    run(scenario)


def test_sabotage_with_the_check_of_the_peer_removed_the_byte_would_leave() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client = await here.pod("client", "127.0.0.11")
            server = await here.pod("server", "127.0.0.12")
            wrong = "spiffe://cluster.local/ns/test/sa/somebody-else"
            here.route(client, server, port, expected=(wrong, server.identity))
            assert await talk(client.outbound) == b"hello"

    run(scenario)


def test_a_tunnel_that_nobody_listens_for_is_a_failure_with_the_reason() -> None:
    async def scenario() -> None:
        async with world() as here:
            client, _ = await pair(here, 80, ip="127.0.0.77")
            assert await talk(client.outbound) == b""
            await until(lambda: "Connection refused" in here.log())

    run(scenario)


def test_without_a_director_known_destinations_work_and_others_wait_until_it_is_back() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            aside = here.director.path.rename(here.director.path.with_suffix(".aside"))
            for channel in here.director.channels:
                channel.close()
            await until(lambda: "director is gone" in here.log())
            assert await talk(client.outbound) == b"hello"
            here.capture(client.outbound, "10.9.9.9", 80)
            waiting = asyncio.ensure_future(talk(client.outbound))
            await until(lambda: any(served.pod.outbound for served in here.workers[0]._pods.values()))
            assert not waiting.done()
            aside.rename(here.director.path)
            assert await waiting == b""
            assert "not-in-registry" in here.log()

    run(scenario)


def test_an_application_that_refuses_is_reported_as_503() -> None:
    async def scenario() -> None:
        async with world() as here:
            client, _ = await pair(here, 1)
            assert await talk(client.outbound) == b""
            await until(lambda: here.log().count("connection complete") == 2)
            assert 'error="http status: 503 Service Unavailable"' in here.log()
            assert 'error="connect to 127.0.0.12:1: Connection refused"' in here.log()

    run(scenario)


def test_an_answer_other_than_200_ends_the_client_by_reset() -> None:
    async def scenario() -> None:
        async with world() as here:
            client, _ = await pair(here, 1)
            # Nothing is said: octets that nobody has read would make a reset of any end.
            reader, writer = await asyncio.open_connection(*client.outbound)
            try:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            finally:
                writer.close()

    run(scenario)
