"""Plain text that comes to a pod: judged without an identity."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from tests.support.tunnel import application, conversation, echo, run, talk, until, world

STRICT = Authorization(
    name="istio_converted_static_strict",
    namespace="istio-system",
    scope=PolicyScope.WORKLOAD_SELECTOR,
    action=Action.DENY,
    rules=(((Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),)),),),),
)


def test_without_policy_plain_text_reaches_the_application_and_is_recorded_as_such() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            here.capture(server.plain, "127.0.0.12", port)
            assert await talk(server.plain) == b"hello"
            await until(lambda: "connection complete" in here.log())
            line = next(line for line in here.log().splitlines() if "connection complete" in line)
            assert "src.identity" not in line
            assert f"dst.addr=127.0.0.12:{port}" in line
            assert 'direction="inbound" bytes_sent=5 bytes_recv=5' in line

    run(scenario)


def test_strict_refuses_plain_text_by_name_and_cuts_what_is_open() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            here.capture(server.plain, "127.0.0.12", port)
            reader, writer = await conversation(server.plain)
            here.update(server, policies=(STRICT,))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert await talk(server.plain) == b""
            await until(lambda: "explicitly denied by: istio-system/istio_converted_static_strict" in here.log())
            writer.close()

    run(scenario)


def test_behind_a_waypoint_plain_text_is_refused_and_what_is_open_is_cut() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            here.capture(server.plain, "127.0.0.12", port)
            reader, writer = await conversation(server.plain)
            here.update(server, waypoint_principals=("spiffe://cluster.local/ns/test/sa/waypoint",))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert await talk(server.plain) == b""
            await until(lambda: 'reason="not-its-waypoint"' in here.log())
            # The sabotage: without the promise the same client comes in.
            here.update(server, waypoint_principals=())
            await until(lambda: not here.workers[0]._pods[server.uid].pod.policy.waypoint_principals)
            assert await talk(server.plain) == b"hello"
            writer.close()

    run(scenario)


def test_the_address_of_the_peer_counts() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            here.capture(server.plain, "127.0.0.12", port)
            rule = (((Match(source_ips=(ip_network("127.0.0.1/32"),)),),),)
            only = Authorization(
                name="only", namespace="test", scope=PolicyScope.NAMESPACE, action=Action.ALLOW, rules=rule
            )
            here.update(server, policies=(only,))
            assert await talk(server.plain) == b"hello"
            assert await talk(server.plain, source="127.0.0.55") == b""

    run(scenario)


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_our_own_ports_are_refused(port: int) -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            here.capture(server.plain, "127.0.0.12", port)
            assert await talk(server.plain) == b""
            await until(lambda: 'reason="illegal-port"' in here.log())

    run(scenario)


def test_an_unknown_workload_makes_it_wait() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            here.capture(server.plain, "127.0.0.12", port)
            here.update(server, known=False)
            waiting = asyncio.create_task(talk(server.plain))
            await until(lambda: len(here.workers[0]._pods[server.uid].pod._known_waiters) == 1)
            here.update(server, known=True, policies=(STRICT,))
            assert await waiting == b""

    run(scenario)
