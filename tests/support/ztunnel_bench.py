"""A real ztunnel (supervisor, director, workers) with two pods in network namespaces, a control plane in this process
and an agent that speaks ZDS and keeps keys. Needs root.

No eBPF: each pod's outgoing connections to port 80 are redirected by nft, and answers of its application to foreign
clients are routed to `lo`, which is what the capture programs do otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ambient.agent import custody
from ambient.netns import entered
from ambient.zds import packet
from ambient.zds.codec import MAX_PACKET, AddWorkload, encode_request
from ambient.zds.session import AgentSession, NotServed, Removed, Served, SnapshotDone
from tests.support.control import ControlBench
from tests.support.waiting import PATIENCE_S, eventually

APP_PORT = 8080
_RULES = """
table ip amb {{
  chain out {{
    type nat hook output priority -100;
    tcp dport {{ 80, 8080 }} meta mark != 0x539 ip daddr != {own} redirect to :15001
  }}
}}
"""
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: b}, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ports: [{port: 80, targetPort: 8080}]}
---
"""
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: {name}}}
  annotations: {{ambient.istio.io/redirection: enabled}}
spec:
  nodeName: n1
  serviceAccountName: {name}
  containers: [{{name: c, image: none, command: [sleep]}}]
status: {{phase: Running, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: "True"}}]}}
---
"""


@dataclass
class BenchPod:
    """A network namespace. `uid` is what the agent calls it."""

    name: str
    netns: str
    ip: str
    descriptor: int

    @property
    def uid(self) -> str:
        return f"uid-{self.name}"

    @property
    def workload(self) -> AddWorkload:
        return AddWorkload(self.uid, self.name, "shop", self.name)

    def socket(self) -> socket.socket:
        """A TCP socket inside."""
        with entered(self.descriptor):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    async def ask(self, ip: str, port: int, data: bytes = b"hello", timeout_s: float = PATIENCE_S) -> bytes:
        """Open a connection from inside, send, read all until the end."""
        sock = self.socket()
        sock.setblocking(False)
        async with asyncio.timeout(timeout_s):
            try:
                await asyncio.get_running_loop().sock_connect(sock, (ip, port))
                reader, writer = await asyncio.open_connection(sock=sock)
                writer.write(data)
                writer.write_eof()
                answer = await reader.read()
                writer.close()
                await writer.wait_closed()
                return answer
            finally:
                sock.close()

    def listening(self, port: int) -> list[str]:
        """Local addresses of the sockets that listen on a TCP port inside; "*" is the wildcard of both families."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.netns}", "ss", "-Hltn", f"sport = :{port}"],
            check=True,
            capture_output=True,
            text=True,
        )
        return [row.split()[3].rpartition(":")[0] for row in done.stdout.splitlines()]


@dataclass
class Agent:
    """The node agent's ZDS side for a fixed set of pods; `events` is all that ztunnel made of them."""

    path: Path
    pods: dict[str, BenchPod]
    events: list[object] = field(default_factory=list)
    session: AgentSession | None = None
    _poke: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        listener = packet.listen(self.path)
        try:
            while True:
                link = await packet.accept(listener)
                try:
                    with contextlib.suppress(Exception):
                        await self._serve(link)
                finally:
                    self.session = None
                    link.close()
        finally:
            listener.close()

    def delete(self, uid: str) -> None:
        assert self.session is not None
        self.session.delete(uid)
        self._poke.set()

    def add(self, pod: BenchPod) -> None:
        self.pods[pod.uid] = pod
        assert self.session is not None
        self.session.add(pod.workload)
        self._poke.set()

    async def _serve(self, link: packet.PacketSocket) -> None:
        session = AgentSession([pod.workload for pod in self.pods.values()])
        session.receive((await link.receive(MAX_PACKET))[0], time.monotonic())
        self.session = session
        while True:
            request = session.next_request(time.monotonic())
            if request is None:
                self._poke.clear()
                closed = asyncio.ensure_future(link.receive(MAX_PACKET))
                poke = asyncio.ensure_future(self._poke.wait())
                await asyncio.wait({closed, poke}, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                if closed.done():
                    closed.exception()
                    return
                for waiting in (closed, poke):
                    waiting.cancel()
                await asyncio.gather(closed, poke, return_exceptions=True)
                continue
            fds = [self.pods[request.uid].descriptor] if isinstance(request, AddWorkload) else []
            await link.send(encode_request(request), fds)
            data, _ = await link.receive(MAX_PACKET)
            if not data:
                return
            event = session.receive(data, time.monotonic())
            if event is not None:
                self.events.append(event)

    def served(self) -> set[str]:
        found: set[str] = set()
        for event in self.events:
            if isinstance(event, Served):
                found.add(event.uid)
            elif isinstance(event, Removed | NotServed):
                found.discard(event.uid)
        return found

    @property
    def complete(self) -> bool:
        return any(isinstance(event, SnapshotDone) for event in self.events)


class Ztunnel:
    """The processes. Ports of the admin pages are of this bench alone."""

    def __init__(self, folder: Path, environment: dict[str, str], ports: int) -> None:
        self.ports = ports
        self.log = folder / "ztunnel.log"
        self._environment = {
            **os.environ,
            **environment,
            "AMBIENT_ADMIN_PORT": str(ports),
            "AMBIENT_STATS_PORT": str(ports + 20),
            "AMBIENT_READY_PORT": str(ports + 21),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def another(self, folder: Path, **environment: str) -> Ztunnel:
        """A second one on the same node, not started yet: same ports, settings changed, a log in `folder`."""
        folder.mkdir()
        made = Ztunnel(folder, {**self._environment, **environment}, self.ports)
        made.log.touch()
        return made

    def start(self) -> None:
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "ztunnel"]
            self.process = subprocess.Popen(argv, env=self._environment, stdout=log, stderr=log)

    def stop(self) -> int:
        """SIGTERM and wait; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill_everything(self) -> None:
        """As when the machine loses power, for these processes."""
        if self.process is None or self.process.poll() is not None:
            return
        family = [*self.children(), psutil.Process(self.process.pid)]
        family[-1].suspend()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(60)

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def pids(self, word: str) -> list[int]:
        """Of the director or the workers."""
        found = []
        for child in self.children():
            with contextlib.suppress(psutil.Error):
                if any(f"ztunnel.{word}" in part for part in child.cmdline()):
                    found.append(child.pid)
        return sorted(found)

    def pss_kb(self, pid: int) -> int:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))

    async def get(self, path: str, offset: int = 0, method: str = "GET") -> tuple[int, str]:
        """Status and body from the admin port (or another: +20 stats, +21 readiness); (0, "") when nobody answers."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports + offset)
        except OSError:
            return 0, ""
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ")[1]) if head else 0, body

    async def ready(self) -> None:
        async def look() -> bool:
            return (await self.get("/healthz/ready", 21))[0] == 200

        async with asyncio.timeout(PATIENCE_S):
            while not await look():
                pass


@dataclass
class ZtunnelBench:
    """Everything; `app` answers "<peer ip> <what it got>" in pod b on port 8080."""

    control: ControlBench
    agent: Agent
    keys: custody.Custody
    ztunnel: Ztunnel
    a: BenchPod
    b: BenchPod

    async def served(self) -> None:
        """Both pods are acknowledged and ztunnel is ready."""
        await eventually(lambda: {self.a.uid, self.b.uid} <= self.agent.served(), "for ZDS acks")
        await self.ztunnel.ready()


def _run(*command: str, stdin: str = "") -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, input=stdin or None)


@contextlib.contextmanager
def _pods(prefix: str, octet: int) -> Iterator[tuple[BenchPod, BenchPod]]:
    names = (f"{prefix}-a", f"{prefix}-b")
    with contextlib.ExitStack() as stack:
        made = []
        for number, (name, short) in enumerate(zip(names, "ab", strict=True), start=1):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
            descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            made.append(BenchPod(short, name, f"10.214.{octet}.{number}", descriptor))
        _run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for pod in made:
            for command in (
                f"addr add {pod.ip}/24 dev eth0",
                "link set eth0 up",
                "link set lo up",
                "route add default dev eth0",
                "rule add sport 8080 lookup 100 pref 10",
                "route add local default dev lo table 100",
            ):
                _run("nsenter", f"--net=/run/netns/{pod.netns}", "ip", *command.split())
            _run("nsenter", f"--net=/run/netns/{pod.netns}", "nft", "-f", "-", stdin=_RULES.format(own=pod.ip))
        yield made[0], made[1]


async def _app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("peername")[0]
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(f"{peer} ".encode() + data)
    writer.close()


@contextlib.asynccontextmanager
async def ztunnel_bench(folder: Path, prefix: str, number: int, **environment: str) -> AsyncIterator[ZtunnelBench]:
    """`number` 1..99 makes addresses and ports of this bench its own."""
    with _pods(prefix, number) as (a, b):
        async with ControlBench(folder) as control:
            control.apply(OBJECTS + "".join(POD.format(name=pod.name, ip=pod.ip) for pod in (a, b)))
            settings = control.client()
            agent = Agent(folder / "zds.sock", {a.uid: a, b.uid: b})
            keys = custody.Custody(time.time)
            ours: dict[str, Any] = {
                "NODE_NAME": "n1",
                "XDS_ADDRESS": f"https://{settings.target}",
                "XDS_ROOT_CA": str(settings.root),
                "AUTH_TOKEN": str(settings.token),
                "ALT_XDS_HOSTNAME": settings.hostname,
                "INPOD_UDS": str(agent.path),
                "AMBIENT_CUSTODY_UDS": str(folder / "custody.sock"),
                "AMBIENT_RUN_DIR": str(folder / "run"),
                "AMBIENT_STATE_DIR": str(folder / "state"),
                "ZTUNNEL_WORKER_THREADS": "2",
                "CONNECTION_TERMINATION_DEADLINE": "1s",
            }
            ztunnel = Ztunnel(folder, {**ours, **environment}, 20_000 + number * 100)
            with b.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("0.0.0.0", APP_PORT))
                server = await asyncio.start_server(_app, sock=listener)
                tasks = [
                    asyncio.ensure_future(agent.run()),
                    asyncio.ensure_future(custody.serve(keys, folder / "custody.sock")),
                ]
                ztunnel.start()
                try:
                    yield ZtunnelBench(control, agent, keys, ztunnel, a, b)
                finally:
                    ztunnel.kill_everything()
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    server.close()
                    keys.close()
