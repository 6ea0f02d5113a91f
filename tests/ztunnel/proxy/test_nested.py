"""A tunnel inside the tunnel of another network's gateway, which carries it and can read nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from ambient.model.outcome import Forward
from tests.support.tunnel import TestPod, World, application, conversation, echo, run, talk, until, world
from ztunnel.ipc import messages as m
from ztunnel.proxy import nested
from ztunnel.proxy.nested import NestedTunnel
from ztunnel.proxy.pool import ClientTunnel
from ztunnel.tls.revocation import certificate_key

NAME = "server.test.svc.cluster.local"


@dataclass
class Elsewhere:
    """A client, the gateway of another network, and a server there that the client cannot reach in any other way."""

    here: World
    client: TestPod
    gateway: TestPod
    server: TestPod
    carried: bytearray = field(default_factory=bytearray)
    """What the gateway saw of both directions."""
    broken: bool = False
    """The gateway changes an octet of what it carries."""
    carriers: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def nested(self) -> list[NestedTunnel]:
        return [one for one in self.here.workers[0].plane.tunnels if isinstance(one, NestedTunnel)]

    @property
    def outer(self) -> list[ClientTunnel]:
        found = [one for one in self.here.workers[0].plane.tunnels if isinstance(one, ClientTunnel)]
        return [one for one in found if one.pooled]

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The gateway's work: octets to the server's tunnel port and back."""
        task = asyncio.current_task()
        assert task is not None
        self.carriers.add(task)
        task.add_done_callback(self.carriers.discard)
        inner, outer = await asyncio.open_connection(*self.server.hbone)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    self.carried += data
                    # Past the handshakes, whichever key exchange they use.
                    if self.broken and len(self.carried) > 8_000:
                        data = bytes((data[0] ^ 1,)) + data[1:-1] + bytes((data[-1] ^ 1,))
                    sink.write(data)
                    await sink.drain()
                sink.write_eof()

        try:
            await asyncio.gather(pump(reader, outer), pump(inner, writer))
        finally:
            outer.transport.abort()
            writer.transport.abort()

    def send_through(self, **changes: object) -> None:
        """The route of the client; `changes` are of its hop."""
        self.here.route(self.client, self.gateway, 0, authority=f"{NAME}:80", inner=(self.server.identity,))
        plan = self.here.director.plans[self.client.outbound]
        assert isinstance(plan, Forward)
        hops = (replace(plan.hops[0], **changes),)  # type: ignore[arg-type]
        self.here.director.plans[self.client.outbound] = replace(plan, hops=hops)


@asynccontextmanager
async def elsewhere(app: int) -> AsyncIterator[Elsewhere]:
    async with world() as here:
        client = await here.pod("client", "127.0.0.11")
        gateway = await here.pod("gateway", "127.0.0.14")
        server = await here.pod("server", "127.0.0.12")
        place = Elsewhere(here, client, gateway, server)
        async with application("127.0.0.14", place.carry) as carrier:
            here.update(gateway, service_ports=((NAME, 80, carrier),))
            here.update(server, service_ports=((NAME, 80, app),))
            settings = m.Settings(
                node="n1", trust_domain="cluster.local", cluster_id="Kubernetes", log_level="debug", network="west"
            )
            here.director.send(settings)
            await until(lambda: here.workers[0].plane.settings.network == "west")
            place.send_through()
            try:
                yield place
            finally:
                for task in list(place.carriers):
                    task.cancel()
                await until(lambda: not place.carriers)


def test_octets_go_both_ways_and_the_gateway_reads_none_of_them() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            said = bytes(range(256)) * 8_192
            assert await talk(place.client.outbound, said) == said
            assert len(place.carried) > 2 * len(said)
            assert said[:1_000] not in place.carried
            assert NAME.encode() not in place.carried
            await until(lambda: not place.nested)
            await until(lambda: place.here.workers[0].recorder.open_count == 0)

    run(scenario)


def test_the_outer_tunnel_is_shared_and_the_inner_one_never() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            connections = [await asyncio.open_connection(*place.client.outbound) for _ in range(3)]
            for reader, writer in connections:
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            assert len(place.outer) == 1
            assert len(place.nested) == 3
            over = place.nested
            for _, writer in connections:
                writer.close()
            await until(lambda: not place.nested)
            # Not left to the cycle collector, with all the memory that OpenSSL has for it.
            assert not any(hasattr(one._session, "_object") for one in over)
            await until(lambda: not place.outer[0].core.streams)

    run(scenario)


def test_an_application_that_ends_one_half_still_hears_the_other() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = await reader.read()
        writer.write(b"%d" % len(got))
        writer.close()

    async def scenario() -> None:
        async with application("127.0.0.12", count) as port, elsewhere(port) as place:
            assert await talk(place.client.outbound, bytes(100_000)) == b"100000"

    run(scenario)


def test_telemetry_names_the_far_end_by_its_certificate_and_its_own_word_and_the_client_by_its_baggage() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            assert await talk(place.client.outbound) == b"hello"
            await until(lambda: place.here.log().count("connection complete") == 3)
            lines = [line for line in place.here.log().splitlines() if "connection complete" in line]
            (out,) = [line for line in lines if 'direction="outbound"' in line]
            assert f'dst.identity="{place.server.identity}"' in out
            assert f"dst.hbone_addr={NAME}:80" in out
            (at_server,) = [line for line in lines if f'dst.identity="{place.server.identity}"' in line and line != out]
            assert f'src.identity="{place.client.identity}"' in at_server

    run(scenario)


@pytest.mark.parametrize("who", ["nobody", "the gateway itself", "another pod"])
def test_a_far_end_that_is_not_of_the_service_is_not_believed(who: str) -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            name = {"nobody": "x", "the gateway itself": "gateway", "another pod": "client"}[who]
            place.send_through(inner=(f"spiffe://cluster.local/ns/test/sa/{name}",))
            assert await talk(place.client.outbound) == b""
            await until(lambda: "inside the gateway's tunnel" in place.here.log())
            assert b"hello" not in place.carried
            await until(lambda: not place.nested)

    run(scenario)


def test_a_gateway_that_is_not_the_one_expected_hears_nothing() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            place.send_through(expected=("spiffe://cluster.local/ns/test/sa/other",))
            assert await talk(place.client.outbound) == b""
            assert not place.carried

    run(scenario)


def test_policy_at_the_far_end_judges_the_client_and_not_the_gateway() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            place.here.update(place.server, waypoint_principals=(place.gateway.identity,))
            assert await talk(place.client.outbound) == b""
            place.here.update(place.server, waypoint_principals=(place.client.identity,))
            assert await talk(place.client.outbound) == b"hello"

    run(scenario)


def test_sabotage_a_gateway_that_changes_one_octet_is_found_out() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            place.broken = True
            said = bytes(100_000)
            assert await talk(place.client.outbound, said) != said
            await until(lambda: place.here.counter("tls_errors") >= 1)
            await until(lambda: not place.nested)

    run(scenario)


def test_a_gateway_that_goes_takes_the_inner_tunnels_along() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            reader, writer = await conversation(place.client.outbound)
            place.outer[0].drop()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: not place.nested)
            writer.close()

    run(scenario)


def test_a_far_end_that_is_silent_during_the_handshake_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "HANDSHAKE_TIMEOUT_S", 0.0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def scenario() -> None:
        async with application("127.0.0.14", silent) as carrier, elsewhere(1) as place:
            place.here.update(place.gateway, service_ports=((NAME, 80, carrier),))
            assert await talk(place.client.outbound) == b""
            await until(lambda: "timed out" in place.here.log())

    run(scenario)


def test_a_reader_that_stalls_at_the_far_end_stops_the_application_here() -> None:
    """Back-pressure goes through both tunnels: what is under way is bounded by the two windows and the marks."""

    async def scenario() -> None:
        go = asyncio.Event()

        async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go.wait()
            while await reader.read(1 << 20):
                pass
            writer.close()

        async with application("127.0.0.12", stalled) as port, elsewhere(port) as place:
            reader, writer = await asyncio.open_connection(*place.client.outbound)
            sent = 0
            writer.transport.set_write_buffer_limits(high=1)
            with contextlib.suppress(TimeoutError):
                while sent < 256 << 20:
                    writer.write(bytes(1 << 20))
                    sent += 1 << 20
                    async with asyncio.timeout(1):
                        await writer.drain()
            assert sent < 64 << 20
            go.set()
            async with asyncio.timeout(10):
                await writer.drain()
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_a_far_end_that_is_revoked_is_ended_and_refused_though_the_gateway_is_not() -> None:
    async def scenario() -> None:
        async with application("127.0.0.12", echo) as port, elsewhere(port) as place:
            reader, writer = await conversation(place.client.outbound)
            (inner,) = place.nested
            far_end = certificate_key(inner._session.chain()[0])[1]
            place.here.director.send(m.Revocations(keys=(far_end,)))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            with contextlib.suppress(ConnectionError):
                assert await talk(place.client.outbound) == b""
            await until(lambda: place.here.counter('istio_crl_policy_rejections{reporter="source"}') == 2)
            assert all(not one.closed for one in place.outer)

    run(scenario)
