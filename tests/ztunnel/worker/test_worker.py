"""The life of a worker: pods come and go, directors come and go, and connections go on."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import h2.settings
import pytest

from ambient.model.traffic import TRAFFIC
from tests.support.h2_peer import Peer
from tests.support.tunnel import Director, application, conversation, echo, pair, run, talk, until, world
from tests.support.tunnel_frames import cut
from ztunnel.hbone import frames
from ztunnel.ipc import messages as m


def test_a_connection_goes_out_through_a_tunnel_and_comes_in_at_the_application() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound, b"through the mesh") == b"through the mesh"
            await until(lambda: here.log().count("connection complete") == 2)
            access = "".join(line for line in here.log().splitlines() if "\taccess\t" in line)
        assert access.count('src.identity="spiffe://cluster.local/ns/test/sa/client"') == 4

    run(scenario)


def test_both_sides_count_the_same_bytes_under_both_principals() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            for _ in range(3):
                await talk(client.outbound, b"12345")
            await until(lambda: here.log().count("connection complete") == 6)
            here.director.send(m.ReportAsk(ask=7))
            await until(lambda: bool(here.director.of(m.Report)))
            rows = {}
            for report in here.director.of(m.Counters):
                for series in report.series:
                    named = dict(zip(TRAFFIC, series.labels, strict=True))
                    rows[named["reporter"], named["response_flags"]] = (named, series)
            for reporter in ("source", "destination"):
                named, series = rows[reporter, "-"]
                assert (series.opened, series.closed, series.failed) == (3, 3, 0)
                assert (series.received, series.sent) == (15, 15)
                assert named["source_principal"] == client.identity
                assert named["destination_principal"] == server.identity

    run(scenario)


def test_a_worker_goes_on_without_its_director_and_finds_the_next_one() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            here.director.close()
            await until(lambda: not here.workers[0]._link.up)
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"
            assert await talk(client.outbound) == b"hello"
            here.director = Director(here.folder / "director.sock")
            await until(lambda: bool(here.director.of(m.Hello)))
            (hello,) = here.director.of(m.Hello)
            assert set(hello.pods) == {client.uid, server.uid}
            assert set(hello.identities) == {client.identity, server.identity}
            here.director.send(m.AskListeners(uid=client.uid))
            await until(lambda: bool(here.director.of(m.PodListeners)))
            (given,) = here.director.fds
            taken = socket.socket(fileno=os.dup(given[1]))
            assert taken.getsockname() == client.outbound
            taken.close()
            await until(lambda: any(c.series for c in here.director.of(m.Counters)))
            writer.close()

    run(scenario)


def test_listeners_of_a_pod_that_is_not_served_are_answered_empty() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.director.send(m.AskListeners(uid="nobody"))
            await until(lambda: here.director.of(m.PodListeners) == [m.PodListeners(uid="nobody")])
            assert not here.director.fds

    run(scenario)


def test_a_pod_that_goes_at_once_takes_its_connections_with_it() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            here.director.send(m.PodDown(uid=client.uid))
            await until(lambda: here.director.of(m.PodGone) == [m.PodGone(uid=client.uid)])
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: "connection closed due to connection drain" in here.log())
            await until(lambda: here.workers[0].recorder.open_count == 0)
            writer.close()

    run(scenario)


def test_the_same_pod_again_keeps_its_connections_and_another_namespace_does_not() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            ready = len(here.director.of(m.PodReady))
            here.send_up(client)
            await until(lambda: len(here.director.of(m.PodReady)) == ready + 1)
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"
            here.workers[0]._pods[client.uid].netns_inode = 1
            here.send_up(client)
            await until(lambda: len(here.director.of(m.PodReady)) == ready + 2)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert await talk(client.outbound) == b"hello"
            writer.close()

    run(scenario)


def test_a_drained_worker_finishes_what_is_open_and_then_ends() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            here.director.send(m.Drain(deadline_s=20))
            await until(lambda: here.workers[0].plane.draining)
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"
            assert not here.finished
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await until(lambda: here.finished == [0])
            await until(lambda: bool(here.director.of(m.Drained)))

    run(scenario)


def test_what_waits_to_be_accepted_is_left_to_the_ztunnel_that_takes_over() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            listening = here.workers[0]._pods[client.uid].listening_fds[1]
            with socket.socket(fileno=os.dup(listening)) as shared:
                here.director.send(m.Drain(deadline_s=20, handed_over=True))
                await until(lambda: here.finished == [0])
                reader, writer = await asyncio.open_connection(*client.outbound)
                taken, _ = shared.accept()
                taken.close()
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_a_drained_worker_does_not_close_on_a_peer_that_has_not_read_its_goaway() -> None:
    async def scenario() -> None:
        async with world(workers=2) as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            await until(lambda: all(server.uid in one._pods for one in here.workers))
            assert await talk(client.outbound) == b"hello"
            inbound = next(one for one in here.workers if one._pods[server.uid].pod.tunnels)
            tunnel = next(iter(inbound._pods[server.uid].pod.tunnels))
            assert not inbound._pods[server.uid].pod.connections
            inbound._drain(m.Drain(deadline_s=20))
            assert not here.finished
            await until(lambda: len(here.finished) == 1)
            assert tunnel.core.going_away

    run(scenario)


@pytest.mark.parametrize("kernel", [False, True])
def test_a_drained_worker_sends_what_connections_that_have_ended_left_behind(kernel: bool) -> None:
    """In the tunnel's backlog, or, where it has room, in the kernel's: both ends closed, and the peer reads late."""
    size = 900_000

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(bytes(size))
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", late) as port:
            server = await here.pod("server", "127.0.0.12")
            peer = Peer(here, server)
            await peer.connect()
            peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 4 << 20})
            peer.h2.increment_flow_control_window(4 << 20)
            assert (await peer.ask(f"127.0.0.12:{port}"))[0] == 200
            (tunnel,) = here.workers[0]._pods[server.uid].pod.tunnels
            tunnel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20 if kernel else 1 << 16)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            peer.h2.end_stream(1)
            peer.writer.write(peer.h2.data_to_send())
            await until(lambda: not tunnel.core.streams)
            assert kernel or tunnel.backlog_size
            assert tunnel.unsent()
            here.director.send(m.Drain(deadline_s=20))
            await until(lambda: tunnel.core.going_away)
            since = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > since + 0.2)  # it is looked at every 0.05 s
            assert not here.finished
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            said, end = b"", frames.HEADER.pack(0, 0, frames.DATA, frames.END_STREAM, 1)
            while end not in said:
                said += (part := await peer.reader.read(1 << 16))
                assert part
            assert sum(len(data) for kind, _, _, data in cut(said) if kind == frames.DATA) == size
            await until(lambda: here.finished == [0])
            peer.close()

    run(scenario)


def test_a_long_drain_is_looked_at_no_more_often_than_a_short_one() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            _, writer = await conversation(client.outbound)
            worker = here.workers[0]
            worker._drain(m.Drain(deadline_s=20))
            checks = []
            for _ in range(5):
                checks.append(worker._drain_check)
                worker._check_drained()  # as every tick does
            assert all(one is not None and one.cancelled() for one in checks)
            assert worker._drain_check is not None
            assert not worker._drain_check.cancelled()
            writer.transport.abort()
            await until(lambda: here.finished == [0])

    run(scenario)


def test_a_drain_has_a_deadline() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            here.director.send(m.Drain(deadline_s=0.2))
            await until(lambda: here.finished == [0])
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(scenario)


def test_when_one_of_two_workers_goes_the_other_takes_every_new_connection() -> None:
    async def scenario() -> None:
        async with world(workers=2) as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            for _ in range(5):
                assert await talk(client.outbound) == b"hello"
            here.workers.pop().close()
            for _ in range(5):
                assert await talk(client.outbound) == b"hello"

    run(scenario)


def test_a_crash_in_one_connections_handler_ends_that_connection_only() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            quiet_reader, quiet_writer = await conversation(client.outbound)
            doomed_reader, doomed_writer = await conversation(client.outbound)
            pod = here.workers[0]._pods[client.uid].pod
            doomed = list(pod.outbound)[-1]
            doomed._end.tunnel = None
            here.crashes = 1
            doomed_writer.write(b"2")
            await until(lambda: here.counter("worker_handler_crashes") >= 1)
            with pytest.raises(ConnectionResetError):
                await doomed_reader.read()
            quiet_writer.write(b"3")
            assert await quiet_reader.readexactly(1) == b"3"
            assert await talk(client.outbound) == b"hello"
            quiet_writer.close()
            doomed_writer.close()

    run(scenario)


def test_messages_that_make_no_sense_are_refused_and_counted() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.director.send(m.Certificate(identity="spiffe://a/ns/b/sa/c", roots="", not_after_unix=1.0))
            here.director.send(m.Hello(pid=1, slot=1))
            await until(lambda: here.counter("director_messages_refused") == 2)
            up = m.PodUp(uid="u", name="n", namespace="x", service_account="y", identity="odd", policy=m.PodPolicy())
            here.director.send(up)
            here.director.send(replace(up, identity="spiffe://a/ns/b/sa/c"))
            await until(lambda: len(here.director.of(m.PodReady)) == 2)
            assert all(ready.error for ready in here.director.of(m.PodReady))

    run(scenario)


@pytest.mark.parametrize("offered", [False, True], ids=["told", "offered once more"])
def test_with_a_policy_that_cannot_be_used_the_one_before_it_is_void_too(offered: bool) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            here.crashes = 1
            server.policy = replace(server.policy, addresses=("no address",))
            if offered:
                here.send_up(server)
            else:
                here.update(server)
            await until(lambda: any("policy update failed" in one.error for one in here.director.of(m.PodReady)))
            assert server.uid not in here.workers[0]._pods
            assert await talk(client.outbound) == b""

    run(scenario)


def test_a_tunnel_that_waits_for_a_certificate_ends_with_its_pod() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12", certificate=False)
            reader, writer = await asyncio.open_connection(*server.hbone)
            plane = here.workers[0].plane
            await until(lambda: bool(plane.wallet._waiting))
            here.director.send(m.PodDown(uid=server.uid))
            await until(lambda: not here.workers[0]._pods)
            here.certificate(server.identity)
            await until(lambda: bool(plane.wallet.identities))
            begun = len(plane.tunnels)
            for tunnel in list(plane.tunnels):
                tunnel.fail(None)
            assert await reader.read() == b""
            writer.close()
            assert not begun, "nobody is there to be reached"

    run(scenario)


def test_the_dump_lists_open_connections_with_both_ends() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            _, writer = await conversation(client.outbound)
            here.director.send(m.ReportAsk(ask=1))
            await until(lambda: bool(here.director.of(m.Report)))
            report = here.director.of(m.Report)[0]
            (out,), (inside,) = report.connections[client.uid], report.connections[server.uid]
            assert (out.direction, out.protocol) == ("outbound", "HBONE")
            assert out.actual_dst == f"127.0.0.12:{server.hbone[1]}"
            assert (inside.actual_dst, inside.peer) == (f"127.0.0.12:{port}", client.identity)
            writer.close()

    run(scenario)
