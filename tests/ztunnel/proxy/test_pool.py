"""Connections to other proxies: shared, limited, renewed, and retried when one turns out dead."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.tunnel import World, application, conversation, echo, pair, run, talk, until, world
from ztunnel.ipc import messages as m
from ztunnel.proxy.inbound import InboundTunnel
from ztunnel.proxy.pool import SURPLUS_S, ClientTunnel
from ztunnel.telemetry.record import Failure, Flag
from ztunnel.tuning import Tuning
from ztunnel.worker.worker import Worker


def tunnels(worker: Worker) -> list[ClientTunnel]:
    return [one for one in worker.plane.tunnels if isinstance(one, ClientTunnel)]


def test_connections_to_one_peer_share_a_tunnel_and_other_peers_do_not() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port, application("127.0.0.13", echo) as other:
            client, server = await pair(here, port)
            second = await here.pod("second", "127.0.0.13")
            assert await asyncio.gather(*(talk(client.outbound) for _ in range(20))) == [b"hello"] * 20
            assert len(tunnels(here.workers[0])) == 1
            here.director.send(m.Forget(everything=True))
            here.route(client, second, other)
            assert await talk(client.outbound) == b"hello"
            assert len(tunnels(here.workers[0])) == 2
            here.director.send(m.Forget(everything=True))
            here.route(client, server, port, expected=(server.identity, second.identity))
            assert await talk(client.outbound) == b"hello"
            assert len(tunnels(here.workers[0])) == 3

    run(scenario)


def test_more_than_a_hundred_open_streams_make_a_second_tunnel() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            open_now = [await asyncio.open_connection(*client.outbound) for _ in range(150)]
            for _, writer in open_now:
                writer.write(b"x")
            for reader, _ in open_now:
                assert await reader.readexactly(1) == b"x"
            assert sorted(len(one.core.streams) for one in tunnels(here.workers[0])) == [50, 100]
            for _, writer in open_now:
                writer.close()
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario)


def test_a_tunnel_that_died_unnoticed_costs_no_connection() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            (inbound,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, InboundTunnel)]
            # The other side is gone, and we learn of it only when we use the tunnel.
            inbound.abort()
            here.workers[0].plane.tunnels.discard(inbound)
            inbound.pod.tunnels.discard(inbound)
            for one in tunnels(here.workers[0]):
                one.stop_reading()
                one.poller.leave(one.fd)
                one.poller.loop.call_later(0.05, one.start_reading)
            assert await talk(client.outbound) == b"hello"
            assert here.counter("hbone_retries") == 1

    run(scenario)


def test_a_peer_whose_proxy_comes_back_is_reached_before_the_kernel_asks_again() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            # The first SYN finds no listener and is dropped. Of that attempt nothing is ever heard again.
            here.unheard = 1
            assert await asyncio.gather(*(talk(client.outbound) for _ in range(5))) == [b"hello"] * 5
            assert here.unheard == 0
            assert len(tunnels(here.workers[0])) == 1

    run(scenario)


def test_a_tunnel_whose_other_end_fell_silent_is_left_for_a_fresh_one() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            (inbound,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, InboundTunnel)]
            # As after a crash of its node: no end, no reset, no answer.
            inbound.stop_reading()
            assert await talk(client.outbound) == b"hello"
            assert here.counter("hbone_silent_tunnels") == 1

    run(scenario)


def test_an_application_that_is_slow_to_accept_does_not_make_a_tunnel_suspect() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            here.update(server, known=False)
            waiting = asyncio.create_task(talk(client.outbound))
            pod = here.workers[0]._pods[server.uid].pod
            await until(lambda: len(pod._known_waiters) == 1)
            (tunnel,) = tunnels(here.workers[0])
            before = tunnel.reads
            await until(lambda: tunnel.reads > before)
            asyncio.get_running_loop().call_later(1.2, lambda: here.update(server, known=True))
            assert await waiting == b"hello"
            assert here.counter("hbone_silent_tunnels") == 0
            assert len(tunnels(here.workers[0])) == 1

    run(scenario)


def test_a_pod_that_goes_during_a_handshake_takes_its_half_made_tunnel_along() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", say_nothing) as port:
            client, _ = await pair(here, port, port=port)
            waiting = asyncio.create_task(talk(client.outbound))
            await until(lambda: bool(tunnels(here.workers[0])))
            (half,) = tunnels(here.workers[0])
            here.director.send(m.PodDown(uid=client.uid))
            assert await waiting == b""
            await until(lambda: half.closed and not half.reading)
            assert half not in here.workers[0].plane.tunnels

    run(scenario)


def test_who_waited_for_more_streams_when_the_certificate_ran_out_is_told() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            worker = here.workers[0]
            (tunnel,) = tunnels(worker)
            pool = worker._pods[client.uid].pod.pool
            (key,) = pool._ready
            tunnel.pooled = False
            worker.plane.wallet.drop(client.identity)
            told: list[Failure] = []

            class Waiting:
                closed = False

                def tunnel_ready(self, tunnel: ClientTunnel, *, reused: bool) -> None:
                    raise AssertionError

                def tunnel_failed(self, failure: Failure) -> None:
                    told.append(failure)

            pool.made(key, tunnel, [Waiting(), Waiting()])
            assert [failure.flag for failure in told] == [Flag.IDENTITY_ERROR] * 2

    run(scenario)


def test_a_tunnel_that_is_over_is_not_closed_before_all_has_left_it() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            (tunnel,) = tunnels(here.workers[0])
            tunnel.core.going_away = True
            tunnel._backlog.append(b"the rest of a stream that has ended")
            tunnel.tick(here.workers[0].plane.clock())
            assert not tunnel.pooled
            assert not tunnel.closed
            tunnel._backlog.clear()
            await until(lambda: tunnel.closed)

    run(scenario)


def test_a_renewed_certificate_makes_new_tunnels() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            (old,) = tunnels(here.workers[0])
            here.certificate(client.identity)
            assert await talk(client.outbound) == b"hello"
            assert len(tunnels(here.workers[0])) == 2
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"
            writer.close()
            await until(lambda: old.closed)

    run(scenario)


def test_an_idle_tunnel_is_closed_after_a_while() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            (tunnel,) = tunnels(here.workers[0])
            await until(lambda: not tunnel.core.streams)
            tunnel.last_used -= Tuning().pool_idle_s + 1
            await until(lambda: tunnel.closed)
            assert await talk(client.outbound) == b"hello"

    run(scenario)


def test_of_the_tunnels_that_a_crowd_needed_one_is_kept() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            crowd = [await asyncio.open_connection(*client.outbound) for _ in range(250)]
            for reader, writer in crowd:
                writer.write(b"x")
                assert await reader.read(1) == b"x"
            many = tunnels(here.workers[0])
            assert len(many) == 3
            for tunnel in many:
                tunnel.last_used -= SURPLUS_S + 1
            for _, writer in crowd:
                writer.close()
            await until(lambda: sum(not tunnel.closed for tunnel in many) == 1)
            assert await talk(client.outbound) == b"hello"
            assert sum(not tunnel.closed for tunnel in many) == 1
            assert len(tunnels(here.workers[0])) == 1

    run(scenario)


def test_no_certificate_means_no_connection_and_the_reason_is_logged() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client = await here.pod("client", "127.0.0.11", certificate=False)
            server = await here.pod("server", "127.0.0.12")
            here.route(client, server, port)
            here.director.send(m.CertificateFailed(identity=client.identity, why="not entitled"))
            assert await talk(client.outbound) == b""
            await until(lambda: "not entitled" in here.log())
            here.certificate(client.identity)
            await until(lambda: here.workers[0].plane.wallet.get(client.identity) is not None)
            assert await talk(client.outbound) == b"hello"

    run(scenario)


async def tuned(here: World, **changes: Any) -> None:
    settings = m.Settings(node="n1", trust_domain="cluster.local", cluster_id="c", tuning=Tuning(**changes))
    here.director.send(settings)
    await until(lambda: here.workers[0].plane.settings.tuning == settings.tuning)


def test_a_connection_carries_as_many_streams_as_it_was_tuned_to() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            await tuned(here, pool_streams=2)
            opened = []
            for _ in range(5):
                _, writer = await conversation(client.outbound)
                opened.append(writer)
            assert sorted(len(tunnel.core.streams) for tunnel in tunnels(here.workers[0])) == [1, 2, 2]
            for writer in opened:
                writer.close()

    run(scenario)


def test_an_unused_connection_is_kept_as_long_as_it_was_tuned_to() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            await tuned(here, pool_idle_s=0.001)
            await until(lambda: not tunnels(here.workers[0]))

    run(scenario)
