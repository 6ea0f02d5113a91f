"""From what discovery says to bytes on sockets: mesh, answers of the director, worker and tunnel are the real ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address

from ambient.model.address import HBONE_PORT
from ambient.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Health,
    LoadBalancing,
    LoadBalancingMode,
    NamespacedHostname,
    NetworkAddress,
    Port,
    Scope,
    Service,
    TunnelProtocol,
    Workload,
)
from tests.support.decided import Decided, decided
from tests.support.tunnel import application, run, until

VIP = "10.96.0.1"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def named(name: bytes) -> Handler:
    """An application that says who it is, and nothing else."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        writer.close()

    return handle


def web(port: int, **changes: object) -> Service:
    service = Service(
        name="web",
        namespace="test",
        hostname="web.test.svc.cluster.local",
        addresses=(NetworkAddress("", ip_address(VIP)),),
        ports=(Port(80, port),),
        canonical=True,
    )
    return replace(service, **changes)  # type: ignore[arg-type]


def behind(workload: Workload, service: Service, port: int) -> Workload:
    return replace(workload, services={service.key: (Port(80, port),)})


async def answered(here: Decided, client: str, destination: str, expected: bytes) -> None:
    """Until this is what comes back (a change is on its way to the worker)."""
    async with asyncio.timeout(10):
        while await here.dial(client, destination) != expected:
            pass


def test_endpoints_take_over_from_each_other_as_their_health_says() -> None:
    async def scenario() -> None:
        async with decided() as here:
            client, first, second = [await here.pod(name) for name in ("client", "first", "second")]
            async with (
                application(str(first.addresses[0]), named(b"first")) as one,
                application(str(second.addresses[0]), named(b"second")) as two,
            ):
                service = web(0)
                ends = behind(first, service, one), behind(second, service, two)
                here.change(client, service, *ends)
                assert {await here.dial("client", f"{VIP}:80") for _ in range(40)} == {b"first", b"second"}
                here.change(replace(ends[0], status=Health.UNHEALTHY))
                await answered(here, "client", f"{VIP}:80", b"second")
                assert {await here.dial("client", f"{VIP}:80") for _ in range(20)} == {b"second"}
                here.change(replace(ends[1], status=Health.UNHEALTHY))
                await answered(here, "client", f"{VIP}:80", b"")
                await until(lambda: "no-healthy-upstream: test/web" in here.here.log())
                here.change(ends[0])
                await answered(here, "client", f"{VIP}:80", b"first")

    run(scenario)


def test_an_endpoint_outside_of_the_mesh_is_reached_in_clear_on_its_own_port() -> None:
    async def scenario() -> None:
        async with decided() as here:
            client, plain = await here.pod("client"), here.outside("plain")
            async with application(str(plain.addresses[0]), named(b"plain")) as port:
                service = web(1)
                here.change(client, service, behind(plain, service, port))
                assert await here.dial("client", f"{VIP}:80") == b"plain"
                line = await_line(here, f"dst.addr={plain.addresses[0]}:{port}")
                await until(lambda: bool(line()))
                assert "dst.hbone_addr" not in line()

    run(scenario)


def await_line(here: Decided, part: str) -> Callable[[], str]:
    return lambda: next((line for line in here.here.log().splitlines() if part in line and "complete" in line), "")


def test_what_was_not_understood_is_not_dialled_in_clear_and_is_reached_once_it_is() -> None:
    async def scenario() -> None:
        async with decided() as here:
            client, plain = await here.pod("client"), here.outside("plain")
            came: list[bytes] = []

            async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                came.append(b"somebody")
                await named(b"plain")(_, writer)

            async with application(str(plain.addresses[0]), handle) as port:
                service = web(port)
                destination = f"{VIP}:80"
                here.change(client, replace(service, refused="junk"), behind(plain, service, port))
                assert await here.dial("client", destination) == b""
                here.change(service, replace(behind(plain, service, port), refused="junk"))
                await until(lambda: here.here.counter('outbound_refused{reason="not-understood"}') == 1)
                assert await here.dial("client", destination) == b""
                assert not came
                here.change(behind(plain, service, port))
                await answered(here, "client", destination, b"plain")

    run(scenario)


def test_a_service_is_reached_through_its_waypoint_or_not_at_all() -> None:
    async def scenario() -> None:
        async with decided() as here:
            client, server, thief = [await here.pod(name) for name in ("client", "server", "thief")]
            waypoint = await here.pod("waypoint")
            async with (
                application(str(server.addresses[0]), named(b"server")) as port,
                application(str(waypoint.addresses[0]), named(b"waypoint")) as front,
            ):
                gateway = GatewayAddress(NamespacedHostname("test", "wp.test.svc.cluster.local"))
                guarded = web(port, waypoint=gateway)
                wp = Service(
                    name="wp", namespace="test", hostname="wp.test.svc.cluster.local", ports=(Port(15008, 15008),)
                )
                behind_wp = replace(
                    waypoint, services={wp.key: (Port(15008, 15008),)}, application_tunnel=ApplicationTunnel(port=front)
                )
                side = replace(
                    web(port), hostname="side.example", addresses=(NetworkAddress("", ip_address("10.96.0.2")),)
                )
                end = replace(server, services={guarded.key: (Port(80, port),), side.key: (Port(80, port),)})
                here.change(client, thief, guarded, side, end)
                assert await here.dial("client", f"{VIP}:80") == b"", "there is no waypoint yet: it is not bypassed"
                await until(lambda: "unknown-waypoint" in here.here.log())
                here.change(wp, behind_wp)
                await answered(here, "client", f"{VIP}:80", b"waypoint")
                assert await here.dial("thief", "10.96.0.2:80") == b"", "past the waypoint, by another name"
                await until(lambda: "peer is not the waypoint of this workload" in here.here.log())
                assert await here.dial("waypoint", f"{VIP}:80") == b"server", "the waypoint goes to the endpoints"
                here.change(replace(guarded, waypoint=None))
                await answered(here, "client", f"{VIP}:80", b"server")

    run(scenario)


def test_a_pod_behind_a_waypoint_of_its_own_is_dialled_through_it_and_by_service_directly() -> None:
    async def scenario() -> None:
        async with decided() as here:
            client, server, waypoint = [await here.pod(name) for name in ("client", "server", "waypoint")]
            async with (
                application(str(server.addresses[0]), named(b"server")) as port,
                application(str(waypoint.addresses[0]), named(b"waypoint")) as front,
            ):
                gateway = GatewayAddress(NetworkAddress("", waypoint.addresses[0]))
                service = web(port)
                end = replace(behind(server, service, port), waypoint=gateway)
                here.change(client, service, end, replace(waypoint, application_tunnel=ApplicationTunnel(port=front)))
                # A loopback address is never anybody else's, so the pod is dialled by the address it is known by.
                known = replace(end, addresses=(ip_address("10.0.0.9"),), uid="Kubernetes//Pod/test/known")
                here.change(known)
                assert await here.dial("client", f"10.0.0.9:{port}") == b"waypoint"
                here.change(gone=[("workload", known.uid)])
                await answered(here, "client", f"{VIP}:80", b"server")

    run(scenario)


def test_registry_only_refuses_what_nobody_has_until_somebody_has_it() -> None:
    async def scenario() -> None:
        async with decided(registry_only=True) as here:
            client, server = await here.pod("client"), await here.pod("server")
            async with application(str(server.addresses[0]), named(b"server")) as port:
                here.change(client)
                assert await here.dial("client", f"{VIP}:80") == b""
                assert here.here.counter('outbound_refused{reason="not-in-registry"}') == 1
                service = web(port)
                here.change(service, behind(server, service, port))
                await answered(here, "client", f"{VIP}:80", b"server")

    run(scenario)


def test_another_network_takes_over_through_its_gateway_when_nobody_is_left_here() -> None:
    async def scenario() -> None:
        async with decided() as here:
            client, near = await here.pod("client"), await here.pod("near")
            gateway, far = await here.pod("gateway"), await here.pod("far")
            beyond = (str(far.addresses[0]), HBONE_PORT)

            async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                """What a gateway does: octets to the far end's tunnel port and back."""
                back, forth = await asyncio.open_connection(*beyond)
                try:
                    await asyncio.gather(_pump(reader, forth), _pump(back, writer))
                finally:
                    forth.transport.abort()
                    writer.transport.abort()

            async with (
                application(str(near.addresses[0]), named(b"near")) as one,
                application(str(far.addresses[0]), named(b"far")) as two,
                application(str(gateway.addresses[0]), carry) as carrier,
            ):
                service = web(
                    one,
                    subject_alt_names=(str(far.identity),),
                    load_balancing=LoadBalancing(LoadBalancingMode.FAILOVER, (Scope.NETWORK,)),
                )
                split = Workload(
                    uid="east/SplitHorizonWorkload/x",
                    name="split",
                    namespace="test",
                    network="east",
                    tunnel_protocol=TunnelProtocol.HBONE,
                    network_gateway=GatewayAddress(NetworkAddress("east", gateway.addresses[0])),
                    services={service.key: (Port(80, 80),)},
                )
                end = behind(near, service, one)
                here.change(client, service, end, split, replace(gateway, network="east"))
                for name, port in (("gateway", carrier), ("far", two)):
                    served = here.here.pods[name]
                    here.here.update(served, service_ports=((service.hostname, 80, port),))
                assert {await here.dial("client", f"{VIP}:80") for _ in range(8)} == {b"near"}
                here.tell(replace(end, status=Health.UNHEALTHY))
                await answered(here, "client", f"{VIP}:80", b"far")
                here.tell(replace(service, subject_alt_names=(str(near.identity),)))
                await answered(here, "client", f"{VIP}:80", b"")
                here.tell(replace(service, subject_alt_names=()))
                await answered(here, "client", f"{VIP}:80", b"")
                await until(lambda: here.here.counter('outbound_refused{reason="no-gateway"}') >= 1)

    run(scenario)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while (data := await source.read(65_536)) and not sink.is_closing():
            sink.write(data)
            await sink.drain()
        if not sink.is_closing():
            sink.write_eof()
