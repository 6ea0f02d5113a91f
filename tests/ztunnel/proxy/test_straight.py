"""Connecting to the application as the client, and what happens when a port is taken."""

from __future__ import annotations

import asyncio
import errno
import socket

from ambient.model.address import Endpoint, parse_endpoint
from tests.support.tunnel import application, echo, run, until, world
from ztunnel.proxy import straight
from ztunnel.proxy.straight import AppDial, socket_for


def test_the_target_sees_the_client_where_the_kernel_lets_us_and_never_itself() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            target = parse_endpoint("127.0.0.12:80")
            for speak_for, expected in (
                (None, "0.0.0.0"),
                (target, "0.0.0.0"),
                (parse_endpoint("[::1]:5"), "0.0.0.0"),
            ):
                with socket_for(pod, target, speak_for) as sock:
                    assert sock.getsockname()[0] == expected
            with socket_for(pod, target, parse_endpoint("127.0.0.77:5")) as sock:
                preserved = sock.getsockname()[0] == "127.0.0.77"
                assert preserved or here.counter("source_address_not_preserved") == 1

    run(scenario)


def test_a_taken_port_is_tried_again_and_at_last_our_own_address_is_used() -> None:
    tries: list[Endpoint | None] = []

    class Taken(socket.socket):
        def connect_ex(self, address: object) -> int:
            return errno.EADDRNOTAVAIL

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            done: list[tuple[socket.socket | None, OSError | None]] = []

            class Sockets:
                def tcp(self, version: int) -> socket.socket:
                    tries.append(dial._speak_for)
                    kind = socket.socket if dial._speak_for is None else Taken
                    return kind(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

            real, pod.sockets = pod.sockets, Sockets()
            client = parse_endpoint("127.0.0.1:5")
            dial = AppDial(pod, Endpoint(parse_endpoint("127.0.0.12:1").ip, port), client, lambda *o: done.append(o))
            dial.begin()
            await until(lambda: bool(done))
            pod.sockets = real
            sock, error = done[0]
            assert error is None
            assert sock is not None
            assert tries == [client] * straight._BIND_TRIES + [None]
            assert here.counter("source_port_collisions") == straight._BIND_TRIES
            sock.close()
            await asyncio.sleep(0)

    run(scenario)
