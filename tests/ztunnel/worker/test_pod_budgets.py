"""A worker that holds pods to their budgets, over real sockets: who is refused, who not, and that it is given back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from ambient.model.outcome import Passthrough
from tests.support.h2_peer import Peer
from tests.support.tunnel import World, application, conversation, echo, pair, run, talk, until, world
from ztunnel.budgets import KINDS, Budgets
from ztunnel.ipc import messages as m
from ztunnel.proxy.budget import HANDSHAKES, OPEN, TUNNELS, WAITING


async def held_to(here: World, budgets: Budgets) -> None:
    here.director.send(m.Settings(node="n1", trust_domain="cluster.local", cluster_id="Kubernetes", budgets=budgets))
    await until(lambda: all(one.plane.settings.budgets == budgets for one in here.workers))


def test_one_connection_too_many_is_refused_at_once_and_the_next_one_taken_when_one_has_ended() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await held_to(here, Budgets(open_connections=2))
            client, _ = await pair(here, port)
            opened = [await conversation(client.outbound) for _ in range(2)]
            assert await talk(client.outbound) == b""
            opened[0][1].write_eof()
            assert await opened[0][0].read() == b""
            opened[0][1].close()
            share = here.workers[0]._pods[client.uid].pod.share
            await until(lambda: share.total(OPEN) == 1)
            assert await talk(client.outbound) == b"hello"
            assert "budget open_connections reached" in here.log()
            assert 'pod="test/client"' in here.log()
            opened[1][1].close()

    run(scenario)


def test_tunnels_in_which_nothing_is_open_are_bounded_too() -> None:
    async def scenario() -> None:
        async with world() as here:
            await held_to(here, Budgets(open_connections=2))
            server = await here.pod("server", "127.0.0.12")
            share = here.workers[0]._pods[server.uid].pod.share
            peers = [Peer(here, server) for _ in range(3)]
            await peers[0].connect()
            await peers[1].connect()
            await until(lambda: share.total(TUNNELS) == 2)
            with pytest.raises(ConnectionError):
                await peers[2].connect()
            assert "budget open_connections reached: 2 tunnels" in here.log()
            peers[0].close()
            await until(lambda: share.total(TUNNELS) == 1)
            await peers[2].connect()
            assert (await peers[2].ask("127.0.0.12:1"))[0] == 503
            peers[1].close()
            peers[2].close()
            await until(lambda: share.total(TUNNELS) == 0)

    run(scenario)


def test_whoever_reads_nothing_keeps_others_out_for_seconds_only() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1 << 18))
                await writer.drain()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.99", endless) as port:
            await held_to(here, Budgets(waiting=1 << 19))
            client = await here.pod("client", "127.0.0.11")
            here.capture(client.outbound, "127.0.0.99", port)
            here.director.plans["127.0.0.99", port] = Passthrough("not in the mesh")
            plane, share = here.workers[0].plane, here.workers[0]._pods[client.uid].pod.share
            idle = [socket.create_connection(client.outbound) for _ in range(4)]
            await until(lambda: share.crowded())
            reader, writer = await asyncio.open_connection(*client.outbound)
            await until(lambda: "budget waiting_octets reached" in here.log())
            assert here.counter("stuck_connections_ended") == 0
            clock = plane.clock
            plane.clock = lambda: clock() + 11
            assert await reader.read(1) == b"\0"
            ended = here.counter("stuck_connections_ended")
            assert 0 < ended < 5
            writer.transport.abort()
            await until(lambda: here.log().count("connection complete") >= ended)
            for one in idle:
                one.close()

    run(scenario)


def test_a_pod_that_is_full_refuses_streams_until_one_has_ended() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await held_to(here, Budgets(open_connections=1))
            client, server = await pair(here, port)
            full = here.workers[0]._pods[server.uid].pod.share
            full.add(OPEN, 1)
            assert await talk(client.outbound) == b""
            await until(lambda: "the pod has as many open connections as it may" in here.log())
            full.add(OPEN, -1)
            assert await talk(client.outbound) == b"hello"

    run(scenario)


def test_workers_of_a_node_count_a_pod_together() -> None:
    async def scenario() -> None:
        async with world(workers=2) as here, application("127.0.0.12", echo) as port:
            await held_to(here, Budgets(open_connections=3))
            columns = 2
            memory = os.memfd_create("ledger", os.MFD_CLOEXEC)
            os.ftruncate(memory, 8 * KINDS * columns)
            for column, channel in enumerate(here.director.channels):
                channel.send(m.PodLedger(columns=columns, column=column), (memory,))
            client, _ = await pair(here, port)
            here.director.send(m.PodRow(uid=client.uid, row=0))
            shares = [one._pods[client.uid].pod.share for one in here.workers]
            await until(lambda: all(share.row == 0 and share.columns == columns for share in shares))
            os.close(memory)
            shares[0].add(OPEN, 2)
            assert [share.total(OPEN) for share in shares] == [2, 2]
            shares[1].add(OPEN, 1)
            assert await talk(client.outbound) == b""
            shares[0].add(OPEN, -2)
            shares[1].add(OPEN, -1)
            assert await talk(client.outbound) == b"hello"

    run(scenario)


def test_handshakes_that_go_nowhere_hold_back_more_of_them_and_not_the_pods_own_connections() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await held_to(here, Budgets(handshakes=2))
            client, server = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            share = here.workers[0]._pods[server.uid].pod.share
            silent = [socket.create_connection(server.hbone) for _ in range(4)]
            await until(lambda: share.total(HANDSHAKES) == 2)
            await until(lambda: "budget handshakes reached" in here.log())
            assert share.total(HANDSHAKES) == 2
            assert await talk(client.outbound) == b"hello"
            for one in silent:
                one.close()
            await until(lambda: share.total(HANDSHAKES) == 0)

    run(scenario)


def test_tunnels_that_wait_for_the_pods_certificate_count_as_handshakes() -> None:
    async def scenario() -> None:
        async with world() as here:
            await held_to(here, Budgets(handshakes=2))
            pod = await here.pod("late", "127.0.0.12", certificate=False)
            share = here.workers[0]._pods[pod.uid].pod.share
            waiting = [socket.create_connection(pod.hbone) for _ in range(4)]
            await until(lambda: "budget handshakes reached" in here.log())
            assert share.total(HANDSHAKES) == 2
            for one in waiting:
                one.close()
            here.certificate(pod.identity)
            await until(lambda: share.total(HANDSHAKES) == 0)

    run(scenario)


def test_handshakes_that_stall_give_way_to_honest_ones() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await held_to(here, Budgets(handshakes=2))
            client, server = await pair(here, port)
            silent = [socket.create_connection(server.hbone) for _ in range(4)]
            await until(lambda: here.log().count("stalled, and others wait") >= 2)
            assert await talk(client.outbound) == b"hello"
            for one in silent:
                one.close()

    run(scenario)


def test_a_crowd_of_one_address_makes_way_for_itself_and_not_a_quiet_peer_that_began_before_it() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await held_to(here, Budgets(handshakes=16))
            client, server = await pair(here, port)
            with socket.create_connection(server.hbone, source_address=("127.0.0.77", 0)) as quiet:
                share = here.workers[0]._pods[server.uid].pod.share
                await until(lambda: share.total(HANDSHAKES) == 1)
                crowd = [socket.create_connection(server.hbone, source_address=("127.0.0.78", 0)) for _ in range(40)]
                await until(lambda: here.log().count("stalled, and others wait") >= 25)
                assert share.total(HANDSHAKES) <= 16
                assert "127.0.0.77" not in here.log()
                assert await talk(client.outbound) == b"hello"
                quiet.setblocking(False)
                with pytest.raises(BlockingIOError):
                    quiet.recv(1)
                for one in crowd:
                    one.close()

    run(scenario)


def test_data_that_waits_for_the_answer_counts_as_what_the_pod_holds() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            here.update(pod, known=False)
            share = here.workers[0]._pods[pod.uid].pod.share
            await until(lambda: not here.workers[0]._pods[pod.uid].pod.policy.known)
            peer = Peer(here, pod)
            await peer.connect()
            for number in (1, 3):
                peer.h2.send_headers(number, [(":method", "CONNECT"), (":authority", f"127.0.0.12:{port}")])
                peer.h2.send_data(number, bytes(10_000))
            peer.writer.write(peer.h2.data_to_send())
            await until(lambda: share.total(WAITING) == 20_000)
            peer.h2.reset_stream(3)
            peer.writer.write(peer.h2.data_to_send())
            await until(lambda: share.total(WAITING) == 10_000)
            here.update(pod, known=True)
            await until(lambda: share.total(WAITING) == 0)
            peer.close()

    run(scenario)
