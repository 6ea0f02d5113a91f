"""A pod's descriptors: taken over, given on, and all closed in the end."""

from __future__ import annotations

import os

from tests.support.tunnel import application, echo, run, talk, until, world
from ztunnel.ipc import messages as m


def open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def test_a_pod_that_came_and_went_leaves_no_descriptor() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            client = await here.pod("client", "127.0.0.11", dns=True)
            here.route(client, server, port)
            assert await talk(client.outbound) == b"hello"
            here.director.send(m.PodDown(uid=client.uid))
            await until(lambda: len(here.director.of(m.PodGone)) == 1)
            before = len(open_fds())
            for turn in range(2, 5):
                here.send_up(client)
                assert await talk(client.outbound) == b"hello"
                here.director.send(m.PodDown(uid=client.uid))
                await until(lambda turn=turn: len(here.director.of(m.PodGone)) == turn)  # type: ignore[misc]
            await until(lambda: len(open_fds()) <= before)

    run(scenario)


def test_listening_descriptors_come_in_the_order_of_the_pod() -> None:
    async def scenario() -> None:
        async with world() as here:
            client = await here.pod("client", "127.0.0.11", dns=True)
            served = here.workers[0]._pods[client.uid]
            assert len(served.listening_fds) == 6
            assert os.fstat(served.listening_fds[0]).st_ino == served.netns_inode

    run(scenario)
