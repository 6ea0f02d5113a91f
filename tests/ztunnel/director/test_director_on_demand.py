"""A director with on-demand discovery against a real control plane: it knows what is used, and waits for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.model.outcome import Forward, Passthrough, Refuse
from ambient.model.workload import GatewayAddress, NamespacedHostname, NetworkAddress, Port, Service, TunnelProtocol
from ambient.xds.demand import Demand
from tests.support.authority import Authority
from tests.support.control import ControlBench
from tests.support.director_world import ALICE, ALICE_WORKLOAD, BOB_WORKLOAD, WEB
from tests.support.fake_worker import FakeWorker, loose_adoption, loose_listeners, own_netns
from tests.support.waiting import eventually
from ztunnel.config import read_config
from ztunnel.director.director import Director
from ztunnel.ipc import messages as ipc

SERVICE_IP, BOB_IP, OUTSIDE = ip_address("10.96.0.1"), ip_address("10.0.1.1"), ip_address("192.0.2.7")


class Bench:
    def __init__(self, director: Director, worker: FakeWorker, control: ControlBench) -> None:
        self.director, self.worker, self.control = director, worker, control

    async def route(self, ip: object, port: int = 80) -> object:
        count = len(self.worker.all(ipc.RouteAnswer))
        self.worker.say(ipc.RouteAsk(uid="uid-a", ip=ip, port=port))  # type: ignore[arg-type]
        return (await self.worker.hears(ipc.RouteAnswer, count + 1)).plan

    def known(self) -> set[str]:
        return {one.uid for one in self.director.discovery.mesh.workloads()}


@asynccontextmanager
async def bench(folder: Path, *records: object) -> AsyncIterator[Bench]:
    async with ControlBench(folder) as control:
        control.plane.catalogue.update(records, 1)  # type: ignore[arg-type]
        client = control.client()
        config = read_config(
            {
                "NODE_NAME": "n1",
                "AMBIENT_RUN_DIR": str(folder / "run"),
                "XDS_ADDRESS": f"https://{client.target}",
                "XDS_ROOT_CA": str(client.root),
                "AUTH_TOKEN": str(client.token),
                "ALT_XDS_HOSTNAME": client.hostname,
                "XDS_ON_DEMAND": "true",
                "DNS_CAPTURE": "false",
            }
        )
        director = Director(config, Authority().sign, bind=loose_listeners, adopt=loose_adoption)
        await director.discovery.restore()
        director.crew.listen()
        tasks = [asyncio.ensure_future(one) for one in (director.certificates.run(), director.discovery.run())]
        worker = FakeWorker(config.director_socket).connect()
        try:
            await eventually(lambda: list(director.crew) and director.discovery.settled)
            await director.add(ALICE, own_netns())
            yield Bench(director, worker, control)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            worker.die()
            director.close()
            await asyncio.sleep(0)


OTHERS = tuple(
    replace(BOB_WORKLOAD, uid=f"Kubernetes//Pod/shop/x{i}", name=f"x{i}", addresses=(), services={}) for i in range(50)
)


def test_a_node_knows_only_its_own_workloads_and_what_they_talk_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, ALICE_WORKLOAD, BOB_WORKLOAD, WEB, *OTHERS) as one:
            await eventually(lambda: one.known() == {ALICE_WORKLOAD.uid})
            plan = await one.route(SERVICE_IP)
            assert isinstance(plan, Forward)
            assert one.known() == {ALICE_WORKLOAD.uid, BOB_WORKLOAD.uid}
            assert isinstance(await one.route(OUTSIDE), Passthrough)
            one.worker.say(ipc.PeerAsk(ip=ip_address("10.0.1.1")))
            assert (await one.worker.hears(ipc.PeerAnswer)).labels.pod == "bob"

    asyncio.run(scenario())


def test_who_was_missing_and_comes_later_is_found_after_the_workers_were_told_to_forget(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, ALICE_WORKLOAD) as one:
            assert isinstance(await one.route(BOB_IP), Passthrough)
            for _ in range(2):
                one.director.discovery.age()
            assert (await one.worker.hears(ipc.Forget, len(one.worker.all(ipc.Forget)))) is not None
            await eventually(lambda: any(f.routes == (("uid-a", BOB_IP, 80),) for f in one.worker.all(ipc.Forget)))
            one.control.plane.catalogue.update([ALICE_WORKLOAD, BOB_WORKLOAD], 2)
            one.control.plane.discovery.changed()
            assert isinstance(await one.route(BOB_IP), Forward)

    asyncio.run(scenario())


def test_peers_from_ever_new_addresses_leave_room_for_what_pods_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Demand.__init__, "__defaults__", (8,))

    async def scenario() -> None:
        async with bench(tmp_path, ALICE_WORKLOAD, BOB_WORKLOAD) as one:
            for n in range(20):
                one.worker.say(ipc.PeerAsk(ip=ip_address(f"192.0.2.{n}")))
            assert isinstance(await one.route(BOB_IP), Forward)

    asyncio.run(scenario())


def test_without_the_control_plane_what_was_never_heard_of_is_refused_and_not_passed_through(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, ALICE_WORKLOAD, BOB_WORKLOAD, WEB) as one:
            assert isinstance(await one.route(SERVICE_IP), Forward)
            await one.control.plane.stop()
            assert isinstance(await one.route(SERVICE_IP, 81), Forward | Passthrough | Refuse)
            plan = await one.route(OUTSIDE)
            assert isinstance(plan, Refuse)
            assert "discovery has not answered" in plan.detail

    asyncio.run(scenario())


def test_the_policy_of_a_pod_waits_for_the_waypoint_in_front_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = Service(
            name="wp",
            namespace="infra",
            hostname="wp.infra.svc.cluster.local",
            addresses=(NetworkAddress("", ip_address("10.96.0.9")),),
            ports=(Port(15008, 15008),),
        )
        proxy = replace(
            BOB_WORKLOAD,
            uid="Kubernetes//Pod/infra/wp",
            name="wp",
            namespace="infra",
            service_account="wp",
            services={gateway.key: (Port(15008, 15008),)},
            tunnel_protocol=TunnelProtocol.HBONE,
        )
        service = replace(WEB, waypoint=GatewayAddress(NamespacedHostname("infra", gateway.hostname)))
        guarded = replace(ALICE_WORKLOAD, services={WEB.key: (Port(80, 8080),)})
        async with bench(tmp_path, guarded, service, gateway, proxy, *OTHERS) as one:

            def policies() -> list[ipc.PodPolicy]:
                ups = [m.policy for m in one.worker.all(ipc.PodUp)]
                return ups + [m.policy for m in one.worker.all(ipc.PodUpdate)]

            await eventually(lambda: any(policy.known for policy in policies()))
            # Never was it known and open: the first picture that counts has the waypoint in it.
            for policy in policies():
                if policy.known:
                    assert policy.waypoint_principals == ("spiffe://cluster.local/ns/infra/sa/wp",)

    asyncio.run(scenario())
