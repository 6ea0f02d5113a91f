"""The root changes while connections go through: whoever is first, with both roots trusted in between nothing fails."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.tunnel import TestPod, World, application, echo, pair, run, talk, until, world
from tests.support.tunnel_certs import Authority
from ztunnel.ipc import messages as m
from ztunnel.proxy.pool import ClientTunnel


def give(here: World, pod: TestPod, signer: Authority, *trusted: Authority) -> None:
    fd = signer.descriptor((pod.identity,))
    roots = "".join(authority.roots for authority in trusted)
    here.director.send(m.Certificate(identity=pod.identity, roots=roots, not_after_unix=time.time() + 60), (fd,))


async def goes_through(client: TestPod) -> bool:
    try:
        return await talk(client.outbound, b"through") == b"through"
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


async def taken_up(here: World, before: int) -> None:
    """Both certificates of a step are in use, and no tunnel of the time before them is there for new connections."""
    plane = here.workers[0].plane
    await until(lambda: plane.wallet._serial >= before + 2)
    for tunnel in list(plane.tunnels):
        if isinstance(tunnel, ClientTunnel):
            tunnel.pooled = False


@pytest.mark.parametrize("client_first", [True, False])
def test_nothing_fails_through_a_time_with_both_roots_whoever_is_first(client_first: bool) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            old, new = here.authority, Authority()
            steps = ((old, (old, new)), (new, (new, old)), (new, (new,)))
            for signer, trusted in steps:
                before = here.workers[0].plane.wallet._serial
                for pod in (client, server) if client_first else (server, client):
                    give(here, pod, signer, *trusted)
                    # In between one has the new certificate and the other the old one.
                    assert await goes_through(client)
                await taken_up(here, before)
                for _ in range(3):
                    assert await goes_through(client)

    run(scenario)


def test_sabotage_without_a_time_with_both_roots_new_connections_fail() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            assert await goes_through(client)
            before = here.workers[0].plane.wallet._serial
            give(here, server, new := Authority(), new)
            give(here, client, here.authority, here.authority)
            await taken_up(here, before)
            assert not await goes_through(client)

    run(scenario)
