"""A revoked peer: refused at the handshake, ended while it lives, in both directions; everybody else goes on."""

from __future__ import annotations

import asyncio

import pytest

from ambient.model.traffic import TRAFFIC
from tests.support.tunnel import TestPod, World, application, conversation, echo, pair, run, talk, until, world
from ztunnel.ipc import messages as m
from ztunnel.proxy.inbound import InboundTunnel
from ztunnel.proxy.pool import ClientTunnel
from ztunnel.tls.revocation import certificate_key


def key_of(here: World, kind: type[InboundTunnel | ClientTunnel]) -> bytes:
    """The leaf that the peer of a live tunnel of this kind has."""
    (tunnel,) = (one for one in here.workers[0].plane.tunnels if isinstance(one, kind) and one.established)
    return certificate_key(tunnel.session.chain()[0])[1]


def revoke(here: World, *keys: bytes) -> None:
    here.director.send(m.Revocations(keys=keys))


async def refused(client: TestPod) -> bool:
    """A new connection ends without an octet of the application."""
    try:
        return await talk(client.outbound, b"again") == b""
    except (ConnectionError, asyncio.IncompleteReadError):
        return True


@pytest.mark.parametrize(("kind", "reporter"), [(InboundTunnel, "destination"), (ClientTunnel, "source")])
def test_a_live_connection_of_a_revoked_peer_is_ended_and_a_new_one_refused(
    kind: type[InboundTunnel | ClientTunnel], reporter: str
) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            revoke(here, key_of(here, kind))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            name = f'istio_crl_policy_rejections{{reporter="{reporter}"}}'
            await until(lambda: here.counter(name) == 1)
            assert await refused(client)
            await until(lambda: here.counter(name) == 2)
            await until(lambda: here.log().count("revoked") >= 2)
            here.director.send(m.ReportAsk(ask=1))
            await until(lambda: bool(here.director.of(m.Report)))
            flags = {
                named["response_flags"]
                for report in here.director.of(m.Counters)
                for series in report.series
                if (named := dict(zip(TRAFFIC, series.labels, strict=True)))["reporter"] == reporter
            }
            assert "CERT_REVOKED" in flags

    run(scenario)


def test_others_go_on_and_a_new_certificate_of_the_same_pod_is_as_good_as_any() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            revoke(here, b"somebody else", key_of(here, InboundTunnel)[:-1])
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            revoke(here, key_of(here, InboundTunnel))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            here.certificate(client.identity)
            assert await talk(client.outbound, b"renewed") == b"renewed"

    run(scenario)


def test_what_is_no_longer_on_a_list_is_accepted_again() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound, b"first") == b"first"
            revoke(here, key_of(here, InboundTunnel))
            assert await refused(client)
            revoke(here)
            assert await talk(client.outbound, b"back") == b"back"

    run(scenario)


def test_while_nobody_knows_what_is_revoked_no_tunnel_lives_and_none_is_made() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            here.director.send(m.Revocations(unknown=True))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            assert await refused(client)
            revoke(here)
            assert await talk(client.outbound, b"back") == b"back"

    run(scenario)
