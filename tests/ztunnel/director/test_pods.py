"""Pods and policies seen alone: what a pod is told to be, and failures that only the small parts can show."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from ambient.errors import KernelError
from ambient.model.mesh import Mesh
from ambient.model.workload import GatewayAddress, Locality, NamespacedHostname, Port, Service, WorkloadType
from ambient.xds.client import Batch
from ambient.xds.codec import AUTHORIZATION_TYPE
from tests.support.director_world import ALICE, ALICE_WORKLOAD, DENY, World, scenario
from tests.support.discovery import simple_policy, simple_workload
from tests.support.fake_worker import FakeWorker, loose_adoption, loose_listeners, own_netns
from tests.support.waiting import eventually
from ztunnel.director.pods import Pods, Rules
from ztunnel.director.policies import PodInfo, Site, baggage, identity_of, pod_policy, source_of, workload_of
from ztunnel.director.workers import Crew, Worker
from ztunnel.inpod.listeners import Listeners
from ztunnel.ipc import messages as ipc
from ztunnel.ipc.messages import PodReady, ToDirector

SITE = Site("n1", "Kubernetes", "cluster.local", "")
POD = PodInfo("uid-a", "a", "ns", "sa-a")


def test_a_pod_is_found_by_its_canonical_name_or_by_name_on_this_node() -> None:
    mesh = Mesh()
    other = simple_workload("a", uid="west//Pod/ns/a", node="n2")
    mesh.apply([other])
    assert workload_of(mesh, SITE, POD) is None
    here = replace(other, node="n1")
    mesh.apply([here])
    assert workload_of(mesh, SITE, POD) == here
    mesh.apply([simple_workload("a")])
    assert workload_of(mesh, SITE, POD) == simple_workload("a")


def test_the_identity_takes_the_trust_domain_from_discovery_and_the_rest_from_the_agent() -> None:
    mesh = Mesh()
    assert identity_of(mesh, SITE, POD) == "spiffe://cluster.local/ns/ns/sa/sa-a"
    mesh.apply([simple_workload("a", trust_domain="far.example", service_account="liar")])
    assert identity_of(mesh, SITE, POD) == "spiffe://far.example/ns/ns/sa/sa-a"


def test_the_policies_of_a_predecessor_with_another_account_are_not_those_of_the_pod() -> None:
    mesh = Mesh()
    mesh.apply([simple_workload("a", service_account="before")])
    assert not pod_policy(mesh, SITE, POD).known
    mesh.apply([simple_workload("a")])
    assert pod_policy(mesh, SITE, POD).known


def test_a_pod_unknown_to_discovery_can_send_and_nobody_may_come_in() -> None:
    policy = pod_policy(Mesh(), SITE, POD)
    assert not policy.known
    assert policy.own.principal.endswith("ns/ns/sa/sa-a")
    assert source_of(Mesh(), SITE, POD).namespace == "ns"


def test_a_policy_set_is_whole_and_names_what_is_missing() -> None:
    mesh = Mesh()
    service = Service(name="s", namespace="ns", hostname="s.ns.svc.cluster.local", ports=(Port(80, 80),))
    mesh.apply(
        [
            simple_workload("a", authorization_policies=("ns/named", "ns/absent"), services={service.key: ()}),
            simple_policy("everywhere"),
            simple_policy("named"),
            service,
        ]
    )
    policy = pod_policy(mesh, SITE, POD)
    assert policy.known
    assert [one.name for one in policy.policies] == ["everywhere", "named"]
    assert policy.missing == ("ns/absent",)
    assert [one.hostname for one in policy.services] == [service.hostname]


def test_a_host_name_means_the_pods_own_port_before_the_services() -> None:
    mesh = Mesh()
    ports = (Port(80, 8080), Port(81, 0), Port(82, 0))
    near = Service(name="s", namespace="ns", hostname="s.example", ports=ports)
    far = Service(name="s", namespace="other", hostname="s.example", ports=(Port(80, 1), Port(90, 9090)))
    keys = {near.key: (Port(81, 9081),), far.key: ()}
    mesh.apply([simple_workload("a", services=keys), near, far])
    assert set(pod_policy(mesh, SITE, POD).service_ports) == {
        ("s.example", 80, 8080),
        ("s.example", 81, 9081),
        ("s.example", 90, 9090),
    }


def test_baggage_is_in_istios_order_without_empty_values() -> None:
    workload = simple_workload(
        "a",
        workload_name="w",
        workload_type=WorkloadType.JOB,
        canonical_name="c",
        locality=Locality("r", "z", ""),
    )
    assert baggage(workload) == (
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.job.name=w,service.name=c,cloud.region=r,"
        "cloud.availability_zone=z"
    )


class Owner:
    def __init__(self) -> None:
        self.pods: Pods | None = None

    def worker_joined(self, worker: Worker) -> None:
        assert self.pods is not None
        self.pods.worker_joined(worker)

    def worker_left(self, worker: Worker) -> None:
        assert self.pods is not None
        self.pods.worker_left()

    def worker_said(self, worker: Worker, message: ToDirector, fds: list[int]) -> None:
        assert self.pods is not None
        if isinstance(message, PodReady):
            self.pods.worker_ready(worker, message)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.bound = 0
        self.failure: KernelError | None = None
        owner = Owner()
        self.crew = Crew(self.path, owner)
        rules = Rules(
            bind=self._bind,
            adopt=loose_adoption,
            identity=lambda pod: identity_of(Mesh(), SITE, pod),
            policy=lambda pod: pod_policy(Mesh(), SITE, pod),
            settled=lambda: True,
            dns=True,
            ready_timeout_s=0.2,
        )
        self.pods = owner.pods = Pods(self.crew, rules, started=lambda: None, stopped=lambda _uid: None)
        self.crew.listen()

    def _bind(self, netns: int) -> Listeners:
        if self.failure is not None:
            raise self.failure
        self.bound += 1
        return loose_listeners(netns)

    async def worker(self, slot: int = 0, *, silent: bool = False) -> FakeWorker:
        worker = FakeWorker(self.path, slot, slot + 1, silent=silent).connect()
        await eventually(lambda: any(one.slot == slot for one in self.crew))
        return worker

    def close(self) -> None:
        self.crew.close()
        self.pods.close()


def test_a_pod_that_cannot_be_bound_is_refused_by_name_and_bound_at_a_retry(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        worker = await bench.worker()
        bench.failure = KernelError("cannot listen in the pod", "tcp 15008", "Address already in use")
        assert "tcp 15008" in await bench.pods.add(POD, own_netns())
        assert bench.pods.pending() == ["uid-a"]
        bench.failure = None
        assert await bench.pods.retry() == ["uid-a"]
        assert bench.bound == 1
        worker.die()
        bench.close()

    asyncio.run(scenario())


def test_a_worker_that_does_not_answer_makes_the_pod_pending_and_its_death_makes_it_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        good, silent = await bench.worker(0), await bench.worker(1, silent=True)
        assert await bench.pods.add(POD, own_netns()) == "the workers did not answer in time"
        assert not bench.pods.up("uid-a")
        silent.die()
        await eventually(lambda: bench.pods.up("uid-a"))
        good.die()
        bench.close()

    asyncio.run(scenario())


def test_a_worker_that_serves_the_namespace_a_pod_had_before_is_given_the_one_it_has_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        worker = await bench.worker()
        assert await bench.pods.add(POD, own_netns()) == ""
        worker.hang_up()
        await eventually(lambda: not list(bench.crew))
        worker.heard.clear()
        worker.netns = 1
        worker.connect()
        await worker.hears(ipc.PodUp)
        await eventually(lambda: bench.pods.up("uid-a"))
        worker.hang_up()
        await eventually(lambda: not list(bench.crew))
        worker.heard.clear()
        worker.netns = 0
        worker.connect()
        await worker.hears(ipc.PodUpdate)
        assert worker.all(ipc.PodUp) == []
        worker.die()
        bench.close()

    asyncio.run(scenario())


def test_no_worker_at_all_is_said_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        assert await bench.pods.add(POD, own_netns()) == "no worker is running"
        bench.close()

    asyncio.run(scenario())


def test_a_descriptor_that_is_no_network_namespace_is_refused_and_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        read, write = os.pipe()
        assert "not a network namespace" in await bench.pods.add(POD, write)
        assert os.read(read, 1) == b""
        os.close(read)
        assert bench.pods.served() == set()
        bench.close()

    asyncio.run(scenario())


@scenario
async def test_a_policy_that_changes_before_a_worker_has_answered_reaches_it_all_the_same(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        worker = world.worker(silent=True)
        await eventually(lambda: list(director.crew))
        adding = asyncio.ensure_future(director.add(ALICE, own_netns()))
        assert (await worker.hears(ipc.PodUp)).policy.policies == ()
        director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY,)))
        assert (await worker.hears(ipc.PodUpdate)).policy.policies == (DENY,)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)


@scenario
async def test_a_worker_on_its_way_out_hears_of_policies_for_the_connections_it_still_has(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        old = world.worker(0, 1)
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        world.worker(0, 2)
        await eventually(lambda: [worker.pid for worker in director.crew] == [2])
        director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY,)))
        assert (await old.hears(ipc.PodUpdate)).policy.policies == (DENY,)


def test_a_pod_of_which_nothing_was_understood_lets_nobody_in() -> None:
    for uid in ("Kubernetes//Pod/ns/a", "other//Pod/ns/a"):
        mesh = Mesh()
        mesh.apply([replace(simple_workload("a"), uid=uid, node=SITE.node, refused="junk")])
        assert not pod_policy(mesh, SITE, POD).known
        assert source_of(mesh, SITE, POD).addresses == ()


def test_only_waypoints_may_come_in_unless_the_setting_leaves_it_to_policies() -> None:
    mesh = Mesh()
    nowhere = GatewayAddress(NamespacedHostname("ns", "nowhere.example"))
    mesh.apply([replace(simple_workload("a"), waypoint=nowhere)])
    assert pod_policy(mesh, SITE, POD).waypoint_principals == ("",)
    assert pod_policy(mesh, replace(SITE, only_waypoints=False), POD).waypoint_principals == ()
