"""Envoy between networks and behind an application tunnel: what only carries us, and what is told about us."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.model.outcome import Forward, Hop
from ambient.model.workload import ApplicationTunnel, TunnelPreamble
from tests.support.envoy_here import behind_proxy_protocol, envoy_here, free, gateway
from tests.support.h2_peer import CLIENT, Peer
from tests.support.tunnel import World, application, echo, run, talk, until, world
from ztunnel.ipc import messages as m

NAME = "server.test.svc.cluster.local"
GATEWAY = "spiffe://cluster.local/ns/test/sa/gateway"


async def on_network(here: World, name: str) -> None:
    here.director.send(
        m.Settings(node="n1", trust_domain="cluster.local", cluster_id="Kubernetes", log_level="debug", network=name)
    )
    await until(lambda: here.workers[0].plane.settings.network == name)


@pytest.mark.parametrize("inner", ["the service", "somebody else"])
def test_envoy_as_gateway_carries_the_inner_tunnel_and_only_the_service_is_believed_at_its_end(
    tmp_path: Path, inner: str
) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await here.pod("client", "127.0.0.11"), await here.pod("server", "127.0.0.12")
            here.update(server, service_ports=((NAME, 80, port),))
            await on_network(here, "west")
            listen = free("127.0.0.14")
            mint = here.authority.mint
            config = gateway(mint, mint.leaf(GATEWAY), listen, f"{NAME}:80", server.hbone)
            expected = (server.identity,) if inner == "the service" else (GATEWAY,)
            hop = Hop(*listen, authority=f"{NAME}:80", expected=(GATEWAY,), inner=expected)
            here.director.plans[client.outbound] = Forward((hop,), server.policy.services[0])
            async with envoy_here(config, listen, tmp_path) as log:
                said = bytes(range(256)) * 20_000
                heard = await talk(client.outbound, said)
                if inner == "the service":
                    assert heard == said
                    parts = await asyncio.gather(*(talk(client.outbound, b"%d" % n * 50_000) for n in range(20)))
                    assert parts == [b"%d" % n * 50_000 for n in range(20)]
                    await until(lambda: log.read_text().count(f"peer={client.identity} {NAME}:80 200") == 21)
                    await until(lambda: f'dst.identity="{server.identity}"' in here.log())
                else:
                    assert heard == b""
                    await until(lambda: "inside the gateway's tunnel" in here.log())
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario, timeout=200)


def test_envoy_as_gateway_that_does_not_know_the_service_says_so_and_nothing_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world() as here:
            client, server = await here.pod("client", "127.0.0.11"), await here.pod("server", "127.0.0.12")
            listen, mint = free("127.0.0.14"), here.authority.mint
            config = gateway(mint, mint.leaf(GATEWAY), listen, "other.test.svc.cluster.local:80", server.hbone)
            hop = Hop(*listen, authority=f"{NAME}:80", expected=(GATEWAY,), inner=(server.identity,))
            here.director.plans[client.outbound] = Forward((hop,), server.policy.services[0])
            async with envoy_here(config, listen, tmp_path):
                assert await talk(client.outbound) == b""
                await until(lambda: 'error="http status: 404 Not Found"' in here.log())

    run(scenario, timeout=200)


@pytest.mark.parametrize("authority", ["10.96.0.1:80", f"{NAME}:80"])
def test_envoy_behind_an_application_tunnel_learns_from_the_proxy_header_who_calls_and_for_what(
    tmp_path: Path, authority: str
) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.1", echo) as port:
            here.director.authorities[f"{NAME}:80"] = (8080, "10.96.0.1")
            waypoint = await here.pod("waypoint", "127.0.0.12")
            listen = free("127.0.0.1")
            tunnel = ApplicationTunnel(TunnelPreamble.PROXY, listen[1])
            here.update(waypoint, application_tunnel=tunnel)
            async with envoy_here(behind_proxy_protocol(listen, ("127.0.0.1", port)), listen, tmp_path) as log:
                peer = Peer(here, waypoint)
                await peer.connect()
                assert (await peer.ask(authority))[0] == 200
                # No end yet: Envoy drops a connection whose FIN comes while it is still reading the header.
                peer.h2.send_data(1, b"hello")
                peer.writer.write(peer.h2.data_to_send())
                while b"hello" not in b"".join(getattr(event, "data", b"") or b"" for event in peer.events):
                    await peer.pump()
                address, source_port = peer.writer.get_extra_info("sockname")
                peer.close()
                line = f"from={address}:{source_port} to=10.96.0.1:80 as="
                await until(lambda: line in log.read_text())
                told = log.read_text().partition(line)[2]
                assert CLIENT in told

    run(scenario, timeout=200)
