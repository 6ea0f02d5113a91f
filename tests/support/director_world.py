"""A director with fake workers and without discovery's stream: the folder it lives in, and records for it to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from ambient.model.policy import Action, Authorization, PolicyScope
from ambient.model.workload import NetworkAddress, Port, Service, TunnelProtocol, Workload
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, name_of, type_of
from ambient.zds.codec import AddWorkload
from tests.support.authority import Authority
from tests.support.fake_worker import FakeWorker, loose_adoption, loose_listeners
from ztunnel.config import Config, read_config
from ztunnel.director.director import Director
from ztunnel.director.snapshot import SnapshotFile

ALICE = AddWorkload("uid-a", "alice", "shop", "alice-sa")
IDENTITY = "spiffe://cluster.local/ns/shop/sa/alice-sa"
ALICE_WORKLOAD = Workload(
    uid="Kubernetes//Pod/shop/alice",
    name="alice",
    namespace="shop",
    service_account="alice-sa",
    addresses=(ip_address("10.0.0.1"),),
    node="n1",
    tunnel_protocol=TunnelProtocol.HBONE,
    workload_name="alice-owner",
    canonical_name="alice-app",
    canonical_revision="v1",
)
BOB_WORKLOAD = replace(
    ALICE_WORKLOAD,
    uid="Kubernetes//Pod/shop/bob",
    name="bob",
    service_account="bob-sa",
    addresses=(ip_address("10.0.1.1"),),
    node="n2",
    services={"shop/web.shop.svc.cluster.local": (Port(80, 8080),)},
)
WEB = Service(
    name="web",
    namespace="shop",
    hostname="web.shop.svc.cluster.local",
    addresses=(NetworkAddress("", ip_address("10.96.0.1")),),
    ports=(Port(80, 8080),),
)
DENY = Authorization(name="deny", namespace="shop", scope=PolicyScope.NAMESPACE, action=Action.DENY)


class World:
    """A folder with a director in it, one after the other."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.config: Config = read_config(
            {
                "NODE_NAME": "n1",
                "AMBIENT_RUN_DIR": str(folder / "run"),
                "AMBIENT_STATE_DIR": str(folder / "state"),
                "XDS_ADDRESS": "https://127.0.0.1:1",
                **environment,
            }
        )
        self.authority = Authority()
        self.workers: list[FakeWorker] = []

    @asynccontextmanager
    async def director(self) -> AsyncIterator[Director]:
        one = Director(self.config, self.authority.sign, bind=loose_listeners, adopt=loose_adoption)
        await one.discovery.restore()
        one.crew.listen()
        running = asyncio.ensure_future(one.certificates.run())
        try:
            yield one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            one.close()
            await asyncio.sleep(0)

    def known(self, *records: Workload | Service | Authorization) -> None:
        """What the next director finds on its disk."""
        versions: dict[str, dict[str, str]] = {ADDRESS_TYPE: {}, AUTHORIZATION_TYPE: {}}
        for record in records:
            versions[type_of(record)][name_of(record)] = "1"
        SnapshotFile(self.config.state_dir, "Kubernetes/n1").save(records, versions)

    def forget(self) -> None:
        """The disk is empty again."""
        Path(self.config.state_dir, "discovery.snapshot").unlink()

    def worker(self, slot: int = 0, pid: int = 1000, **how: object) -> FakeWorker:
        self.workers.append(FakeWorker(self.config.director_socket, slot, pid, **how))  # type: ignore[arg-type]
        return self.workers[-1].connect()


def scenario(test: Callable[[World], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def body() -> None:
            world = World(tmp_path)
            try:
                await test(world)
            finally:
                for worker in world.workers:
                    worker.die()

        asyncio.run(body())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
