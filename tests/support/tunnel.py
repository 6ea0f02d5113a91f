"""A small world on the loopback device: a stand-in for the director, workers inside the test's own loop, pods on
127.0.0.x, and applications. No privileges are needed."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ambient.model.address import Endpoint, parse_ip
from ambient.model.outcome import Forward, Hop, NoRoute, PeerLabels, Plan, Refuse, ServiceLabels
from tests.support.tunnel_certs import Authority
from tests.support.tunnel_sockets import HereSockets
from ztunnel.ipc import messages as m
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk
from ztunnel.ipc.channel import Channel
from ztunnel.proxy.loop import Loop, running
from ztunnel.proxy.poller import Poller
from ztunnel.worker.worker import Worker


def run(scenario: Callable[[], Awaitable[None]], *, timeout: float = 20.0) -> None:
    """Run a test's coroutine on a worker's loop with a time limit. What applications left open in it is cut."""

    async def limited() -> None:
        try:
            async with asyncio.timeout(timeout):
                await scenario()
        finally:
            for transport in list(running()._transports.values()):  # type: ignore[attr-defined]
                transport.abort()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(limited())


def poller() -> Poller:
    """Of the running loop; a handler that crashes is told to the loop."""
    return running().poller


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition without sleeping through it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("condition did not become true in time")
        await asyncio.sleep(0.005)


class Director:
    """Answers like a director: from tables that the test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plans: dict[tuple[str, int], Plan] = {}
        self.decide: Callable[[m.RouteAsk], m.RouteAnswer] | None = None
        """Answers instead of `plans`."""
        self.peers: dict[str, PeerLabels] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.authorities: dict[str, tuple[int, str | None]] = {}
        self.received: list[object] = []
        self.fds: list[list[int]] = []
        self.channels: list[Channel] = []
        self.silent = False
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        path.unlink(missing_ok=True)
        self._server.bind(str(path))
        self._server.listen()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._server, self._accept)

    def _accept(self) -> None:
        sock, _ = self._server.accept()
        channel: Channel
        channel = Channel(self._loop, sock, lambda msg, fds: self._message(channel, msg, fds), lambda: None)
        self.channels.append(channel)

    def _message(self, channel: Channel, message: object, fds: list[int]) -> None:
        self.received.append(message)
        if fds:
            self.fds.append(fds)
        if self.silent:
            return
        match message:
            case m.RouteAsk():
                if self.decide is not None:
                    channel.send(self.decide(message))
                    return
                plan = self.plans.get((str(message.ip), message.port), Refuse(NoRoute.NOT_IN_REGISTRY, "test"))
                channel.send(m.RouteAnswer(uid=message.uid, ip=message.ip, port=message.port, plan=plan))
            case m.PeerAsk():
                channel.send(m.PeerAnswer(ip=message.ip, labels=self.peers.get(str(message.ip), PeerLabels())))
            case AuthorityAsk():
                port, address = self.authorities.get(message.authority, (0, None))
                ip = parse_ip(address) if address else None
                channel.send(AuthorityAnswer(uid=message.uid, authority=message.authority, port=port, address=ip))
            case m.NameAsk():
                found = self.names.get(message.name)
                family = ":" if message.qtype == "AAAA" else "."
                channel.send(
                    m.NameAnswer(
                        uid=message.uid,
                        name=message.name,
                        qtype=message.qtype,
                        known=found is not None,
                        addresses=tuple(one for one in found or () if family in one),
                    )
                )

    def send(self, message: object, fds: tuple[int, ...] = ()) -> None:
        for channel in self.channels:
            channel.send(message, fds)

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.received if isinstance(message, kind)]

    def close(self) -> None:
        self._loop.remove_reader(self._server)
        self._server.close()
        for channel in self.channels:
            channel.close()
        self.channels.clear()
        for fds in self.fds:
            for fd in fds:
                os.close(fd)
        self.fds.clear()


@dataclass
class TestPod:
    """A pod: its address and the listening sockets (kept open by the test, as the director would)."""

    __test__ = False

    uid: str
    address: str
    identity: str
    policy: m.PodPolicy
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def outbound(self) -> tuple[str, int]:
        return self.address, self.sockets[0].getsockname()[1]

    @property
    def plain(self) -> tuple[str, int]:
        return self.address, self.sockets[1].getsockname()[1]

    @property
    def hbone(self) -> tuple[str, int]:
        return self.address, self.sockets[2].getsockname()[1]

    @property
    def dns_udp(self) -> tuple[str, int]:
        return self.address, self.sockets[3].getsockname()[1]

    @property
    def dns_tcp(self) -> tuple[str, int]:
        return self.address, self.sockets[4].getsockname()[1]


class World:
    """Director, workers and pods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.director = Director(folder / "director.sock")
        self.workers: list[Worker] = []
        self.finished: list[int] = []
        self.crashes = 0
        """How many crashed handlers the test expects."""
        self.pods: dict[str, TestPod] = {}
        self.redirect: dict[Endpoint, Endpoint] = {}
        self.unheard = 0
        """How many of the next attempts to connect are never answered."""
        self.log_path = folder / "log"
        self._log = os.open(self.log_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    async def worker(self, slot: int = 0) -> Worker:
        worker = Worker(
            running(),
            slot,
            str(self.director.path),
            lambda: self.finished.append(slot),
            log_fd=self._log,
            make_sockets=lambda fd: HereSockets(fd, self),
        )
        self.workers.append(worker)
        before = len(self.director.of(m.Hello))
        worker.start()
        await until(lambda: len(self.director.of(m.Hello)) > before)
        self.director.channels[-1].send(
            m.Settings(node="n1", trust_domain="cluster.local", cluster_id="Kubernetes", log_level="debug")
        )
        return worker

    async def pod(
        self,
        name: str,
        address: str,
        *,
        account: str = "",
        certificate: bool = True,
        dns: bool = False,
        hbone_port: int = 0,
    ) -> TestPod:
        identity = f"spiffe://cluster.local/ns/test/sa/{account or name}"
        policy = m.PodPolicy(
            known=True,
            addresses=(address,),
            own=labels(name, identity),
            services=(ServiceLabels(f"{name}.test.svc.cluster.local", "test", name),),
            baggage=f"k8s.cluster.name=Kubernetes,k8s.namespace.name=test,k8s.deployment.name={name}",
        )
        pod = TestPod(f"uid-{name}", address, identity, policy)
        kinds = (socket.SOCK_STREAM,) * 3 + ((socket.SOCK_DGRAM, socket.SOCK_STREAM) if dns else ())
        for kind, port in zip(kinds, (0, 0, hbone_port, 0, 0), strict=False):
            sock = socket.socket(socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(256)
            pod.sockets.append(sock)
        self.pods[name] = pod
        if certificate:
            self.certificate(identity)
        before = len(self.director.of(m.PodReady))
        self.send_up(pod)
        await until(lambda: len(self.director.of(m.PodReady)) >= before + len(self.director.channels))
        assert not self.director.of(m.PodReady)[-1].error, self.director.of(m.PodReady)[-1].error
        return pod

    def send_up(self, pod: TestPod) -> None:
        netns = os.open("/proc/self/ns/net", os.O_RDONLY)
        fds = (netns, *(sock.fileno() for sock in pod.sockets))
        name = pod.uid.removeprefix("uid-")
        self.director.send(
            m.PodUp(
                uid=pod.uid,
                name=name,
                namespace="test",
                service_account=name,
                identity=pod.identity,
                policy=pod.policy,
                dns=len(pod.sockets) > 3,
            ),
            fds,
        )
        os.close(netns)

    def certificate(self, identity: str, uris: tuple[str, ...] = (), authority: Authority | None = None) -> None:
        fd = (authority or self.authority).descriptor(uris or (identity,))
        self.director.send(
            m.Certificate(identity=identity, roots=self.authority.roots, not_after_unix=time.time() + 3600), (fd,)
        )
        os.close(fd)

    def update(self, pod: TestPod, **changes: Any) -> None:
        pod.policy = replace(pod.policy, **changes)
        self.director.send(m.PodUpdate(uid=pod.uid, policy=pod.policy))

    def route(self, source: TestPod, destination: TestPod, app: int, **changes: Any) -> None:
        """What `source` dials (its own outbound listener stands for any address) goes to the app of `destination`."""
        hop = Hop(
            ip=destination.address,
            port=destination.hbone[1],
            authority=f"{destination.address}:{app}",
            expected=(destination.identity,),
            labels=labels(destination.uid.removeprefix("uid-"), destination.identity),
        )
        service = destination.policy.services[0]
        self.director.plans[source.outbound] = Forward((replace(hop, **changes),), service)

    def capture(self, listener: tuple[str, int], host: str, port: int) -> None:
        """Whoever connects to `listener` counts as having dialled host:port."""
        self.redirect[Endpoint(parse_ip(listener[0]), listener[1])] = Endpoint(parse_ip(host), port)

    def log(self) -> str:
        return self.log_path.read_text()

    def counter(self, name: str) -> int:
        return sum(worker.recorder.counters.value(name) for worker in self.workers)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.director.close()
        for pod in self.pods.values():
            for sock in pod.sockets:
                sock.close()
        os.close(self._log)


async def pair(here: World, app: int, **changes: Any) -> tuple[TestPod, TestPod]:
    """Two pods, `client` and `server`: what the client dials goes to the server's app; `changes` are of the hop."""
    client = await here.pod("client", "127.0.0.11")
    server = await here.pod("server", "127.0.0.12")
    here.route(client, server, app, **changes)
    return client, server


def labels(name: str, identity: str) -> PeerLabels:
    return PeerLabels(
        workload=name,
        pod=f"{name}-1",
        namespace="test",
        canonical_service=name,
        canonical_revision="v1",
        principal=identity,
        cluster="Kubernetes",
    )


@asynccontextmanager
async def world(workers: int = 1) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        made = World(Path(folder))
        try:
            for slot in range(workers):
                await made.worker(slot)
            yield made
            assert made.counter("worker_handler_crashes") == made.crashes, made.log()
        finally:
            made.close()
            await asyncio.sleep(0)


@asynccontextmanager
async def application(
    address: str, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[int]:
    """A TCP server; gives its port."""
    at_work: set[object] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Of a connection that has ended both ways asyncio keeps nothing, and the collector would end its task.
        at_work.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        finally:
            at_work.discard(asyncio.current_task())

    server = await asyncio.start_server(handled, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await asyncio.sleep(0.002)  # asyncio stumbles over connections that it has just accepted
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, then the end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:  # also ENOTCONN, which is no ConnectionError
        return
    finally:
        writer.close()


async def talk(address: tuple[str, int], data: bytes = b"hello", source: str = "") -> bytes:
    """Connect, say it, end, and read everything; an aborted connection gives what came before the abort."""
    received = b""
    try:
        reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0) if source else None)
    except OSError:
        return received
    try:
        writer.write(data)
        writer.write_eof()
        while part := await reader.read(65536):
            received += part
    except OSError:
        pass
    finally:
        writer.close()
    return received


async def conversation(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An open connection to whoever echoes: one octet has gone there and come back."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"1")
    assert await reader.readexactly(1) == b"1"
    return reader, writer
