"""Connecting to the application as the client, and what happens when a port is taken."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

import pytest

from ambient.model.address import Endpoint, parse_endpoint
from tests.support.tunnel import application, echo, run, until, world
from ztunnel.proxy import straight
from ztunnel.proxy.pod import Pod
from ztunnel.proxy.sockets import PodSockets
from ztunnel.proxy.straight import AppDial, socket_for
from ztunnel.proxy.tuples import Found


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
                with closing(socket_for(pod, target, speak_for)) as sock:
                    assert sock.getsockname()[0] == expected
            with closing(socket_for(pod, target, parse_endpoint("127.0.0.77:5"))) as sock:
                preserved = sock.getsockname()[0] == "127.0.0.77"
                assert preserved or here.counter("source_address_not_preserved") == 1

    run(scenario)


class StandIn:
    """In the place of a pod's sockets: keeps none ready, so there is nothing to give back."""

    def tick(self) -> None:
        return


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

            class Sockets(StandIn):
                def tcp(self, version: int) -> socket.socket:
                    tries.append(dial._speak_for)
                    kind = socket.socket if dial._speak_for is None else Taken
                    return kind(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

                def found(self, local: Endpoint, remote: Endpoint) -> Found:
                    return Found.NOTHING

            real, pod.sockets = pod.sockets, Sockets()
            client = parse_endpoint("127.0.0.1:5")
            dial = AppDial(pod, Endpoint(parse_endpoint("127.0.0.12:1").ip, port), client, lambda *o: done.append(o))
            dial.begin()
            await until(lambda: bool(done))
            pod.sockets = real
            sock, error = done[0]
            assert error is None
            assert sock is not None
            # Ports that others on this machine hold are passed over without being dialled from.
            assert tries.count(client) >= straight._BIND_TRIES
            assert tries[-1] is None
            assert tries.count(None) == 1
            assert here.counter("source_port_collisions") == straight._BIND_TRIES
            sock.close()
            await asyncio.sleep(0)

    run(scenario)


def test_what_was_cancelled_between_two_tries_is_not_tried_again() -> None:
    class Taken(socket.socket):
        def connect_ex(self, address: object) -> int:
            return errno.EADDRNOTAVAIL

    class Sockets:
        made = 0

        def tcp(self, version: int) -> socket.socket:
            Sockets.made += 1
            return Taken(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

        def found(self, local: Endpoint, remote: Endpoint) -> Found:
            return Found.NOTHING

    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            real, pod.sockets = pod.sockets, Sockets()
            done: list[object] = []
            dial = AppDial(
                pod, parse_endpoint("127.0.0.12:9"), parse_endpoint("127.0.0.1:5"), lambda *o: done.append(o)
            )
            dial.begin()
            for _ in range(1_000):
                if here.counter("source_port_collisions"):
                    break
                await asyncio.sleep(0)  # one turn, so that the next try has been put off but not made
            assert here.counter("source_port_collisions") == 1
            dial.cancel()
            made = Sockets.made
            for _ in range(5):
                await asyncio.sleep(0)
            pod.sockets = real
            assert (Sockets.made, done) == (made, [])

    run(scenario)


class Stubborn(socket.socket):
    def bind(self, address: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "not here")


class StubbornSockets(StandIn):
    def tcp(self, version: int) -> socket.socket:
        return Stubborn(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def found(self, local: Endpoint, remote: Endpoint) -> Found:
        return Found.NOTHING


@pytest.mark.parametrize(("wish", "refused", "counted"), [("", False, 1), ("false", False, 0), ("true", True, 0)])
def test_the_setting_says_what_becomes_of_a_client_whose_address_cannot_be_put_on(
    wish: str, refused: bool, counted: int
) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            pod.plane.settings = replace(pod.plane.settings, orig_src=wish)
            done: list[tuple[socket.socket | None, OSError | None]] = []
            real, pod.sockets = pod.sockets, StubbornSockets()
            target = Endpoint(parse_endpoint("127.0.0.12:1").ip, port)
            dial = AppDial(pod, target, parse_endpoint("127.0.0.77:5"), lambda *o: done.append(o))
            dial.begin()
            await until(lambda: bool(done))
            pod.sockets = real
            sock, error = done[0]
            assert (sock is None, error is not None) == (refused, refused)
            assert here.counter("source_address_not_preserved") == counted
            if sock is not None:
                sock.close()
            await asyncio.sleep(0)

    run(scenario)


def test_never_as_the_client_where_the_setting_says_so() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            pod.plane.settings = replace(pod.plane.settings, orig_src="false")
            with closing(socket_for(pod, parse_endpoint("127.0.0.12:80"), parse_endpoint("127.0.0.77:5"))) as sock:
                assert sock.getsockname()[0] == "0.0.0.0"

    run(scenario)


class Dealt(StandIn):
    """Sockets of a pod that speaks from `ports`; `real` asks the kernel what is connected."""

    def __init__(self, pod: Pod, ports: Iterable[int], real: PodSockets | None) -> None:
        pod.ports = iter(ports)
        self._real = real

    def tcp(self, version: int) -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def found(self, local: Endpoint, remote: Endpoint) -> Found:
        return self._real.found(local, remote) if self._real is not None else Found.NOTHING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may speak as others")
@pytest.mark.parametrize(("asks", "taken"), [(True, 2), (False, 1)], ids=["as it is", "sabotage: nobody asks"])
def test_a_port_that_leads_to_another_connection_is_not_used(asks: bool, taken: int) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            target = Endpoint(parse_endpoint("127.0.0.12:1").ip, port)
            real = pod.sockets
            with socket.socket() as other, socket.socket() as free:
                for sock in (other, free):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("127.0.0.77", 0))
                other.connect(("127.0.0.12", port))
                own, live, last = 31_999, other.getsockname()[1], free.getsockname()[1]
                pod.sockets = Dealt(pod, (own, live, last), real if asks else None)
                with closing(socket_for(pod, target, Endpoint(parse_endpoint("127.0.0.77:1").ip, own))) as found:
                    assert found.getsockname() == ("127.0.0.77", last if asks else live)
            pod.sockets = real
            assert here.counter("source_port_collisions") == taken

    run(scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may speak as others")
def test_a_port_in_time_wait_is_used_only_when_there_is_no_better_one() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            pod = here.workers[0]._pods["uid-client"].pod
            target, client = parse_endpoint("127.0.0.12:80"), parse_endpoint("127.0.0.77:5")
            remains, live, clear = 31_001, 31_002, 31_003

            class Known(Dealt):
                def found(self, local: Endpoint, remote: Endpoint) -> Found:
                    return {remains: Found.REMAINS, live: Found.CONNECTION}.get(remote.port, Found.NOTHING)

            real = pod.sockets
            for dealt, chosen in (((remains, live, clear), clear), ((live, remains, *[live] * 6), remains)):
                pod.sockets = Known(pod, dealt, None)
                with closing(socket_for(pod, target, client)) as found:
                    assert found.getsockname() == ("127.0.0.77", chosen)
            pod.sockets = real

    run(scenario)
