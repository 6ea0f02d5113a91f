"""A control plane with a large cluster before it and fifty nodes behind it.

The cluster (`bench.feed`) and the control plane are processes of their own, as they ship; the nodes are discovery
clients in this one that read what they are sent as far as names. Measured: how long until everything is served and
what memory that takes, how long a change of a policy takes to reach every node, whether pods that change all the time
are kept up with, and how much a node that comes back is sent. Beside it, alternating in one process: what deriving a
change costs against deriving everything.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from statistics import median, quantiles
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.roots import make_root
from ambient.ca.token import Caller, issue_token
from ambient.control.derive import Derivation
from ambient.control.derive_world import DeriveSettings
from ambient.errors import Unavailable
from ambient.kube.objects import Record, Records, parse_object
from ambient.xds.channel import ServerSettings, call_metadata, connected, open_channel
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambient.xds.messages import METHOD, DeltaRequest, encode_request, open_response, ztunnel_node
from bench import feed
from bench.process import cpu_ns

NODES: Final = 50
CHANGES: Final = 40
RATE: Final = 100.0
SECONDS: Final = 20.0
_RESOURCES: Final = feed.PODS + feed.SERVICES
_LOAD_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Times in seconds unless named otherwise; memory in MiB (high-water mark of the control plane's process)."""

    load_s: float
    load_cpu_s: float
    nodes_s: float
    memory_loaded: float
    memory_most: float
    policy_ms: tuple[float, ...]
    pods_ms: tuple[float, ...]
    pods_cpu: float
    first_bytes: int
    back_bytes: int
    back_changed: int
    derive_all_ms: float
    derive_one_ms: float


@dataclass(slots=True)
class Node:
    """A discovery client. `seen`: when each resource last came; `size`: octets received."""

    settings: ServerSettings
    name: str
    versions: dict[str, dict[str, str]] = field(default_factory=lambda: {ADDRESS_TYPE: {}, AUTHORIZATION_TYPE: {}})
    seen: dict[str, float] = field(default_factory=dict)
    size: int = 0
    answered: set[str] = field(default_factory=set)
    resources: int = 0

    async def run(self) -> None:
        """Subscribe to everything, acknowledge everything, until cancelled."""
        channel = open_channel(self.settings)
        outgoing: asyncio.Queue[DeltaRequest] = asyncio.Queue()
        self.answered.clear()
        self.size = self.resources = 0
        try:
            await connected(channel, self.settings.target)
            for url in (ADDRESS_TYPE, AUTHORIZATION_TYPE):
                outgoing.put_nowait(
                    DeltaRequest(type_url=url, node=ztunnel_node(self.name), versions=dict(self.versions[url]))
                )
            call = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)(
                _requests(outgoing), metadata=tuple(call_metadata(self.settings))
            )
            while isinstance(data := await call.read(), bytes):
                now = time.monotonic()
                response = open_response(data)
                self.size += len(data)
                versions = self.versions[response.type_url]
                for resource in response.resources:
                    versions[resource.name] = resource.version
                    self.seen[resource.name] = now
                    self.resources += 1
                self.answered.add(response.type_url)
                outgoing.put_nowait(DeltaRequest(type_url=response.type_url, nonce=response.nonce))
        finally:
            await channel.close(None)

    @property
    def complete(self) -> bool:
        """Everything has come."""
        return len(self.answered) == 2 and len(self.versions[ADDRESS_TYPE]) >= _RESOURCES


async def _requests(outgoing: asyncio.Queue[DeltaRequest]) -> AsyncIterator[bytes]:
    while True:
        yield encode_request(await outgoing.get())


def measure(folder: Path) -> Scale:
    """Everything, with processes that are gone when it returns. Raises Unavailable when something does not come up."""
    derive_all_ms, derive_one_ms = derivations()
    with ExitStack() as stack:
        api, xds, http = _ports(3)
        secrets = _Secrets(folder, xds)
        _start(stack, [sys.executable, "-m", "bench.feed", str(api)], {})
        _until(lambda: _get(api, "/api/v1/nodes") is not None, "the cluster on paper")
        begun = time.monotonic()
        plane = _start(stack, [sys.executable, "-m", "ambient.control"], secrets.environment(api, xds, http))
        _until(lambda: _loaded(http), "the control plane")
        load_s = time.monotonic() - begun
        load_cpu_s = cpu_ns([plane.pid]) / 1e9
        loaded = _high_water(plane.pid)
        found = asyncio.run(_with_nodes(secrets, api, plane.pid))
        return Scale(
            load_s=load_s,
            load_cpu_s=load_cpu_s,
            memory_loaded=loaded,
            memory_most=_high_water(plane.pid),
            derive_all_ms=derive_all_ms,
            derive_one_ms=derive_one_ms,
            **found,
        )


async def _with_nodes(secrets: _Secrets, api: int, pid: int) -> dict[str, Any]:
    nodes = [Node(secrets.client(feed.node(number)), feed.node(number)) for number in range(NODES)]
    begun = time.monotonic()
    running = [asyncio.create_task(node.run()) for node in nodes]
    try:
        await _eventually(lambda: all(node.complete for node in nodes))
        nodes_s = time.monotonic() - begun
        first_bytes = nodes[0].size
        # What is said about objects is written in the background at a bounded rate; it is part of a normal day.
        policy_ms = await _policies(nodes, api)
        before = cpu_ns([pid])
        stamps = await asyncio.to_thread(_post, api, f"/bench/pods?rate={RATE}&seconds={SECONDS}")
        pods_cpu = (cpu_ns([pid]) - before) / 1e9 / SECONDS
        await _eventually(lambda: all(nodes[0].seen[name] >= at for name, at in stamps.items()))
        pods_ms = tuple((nodes[0].seen[name] - at) * 1000 for name, at in stamps.items())
        running[0].cancel()
        await asyncio.gather(running[0], return_exceptions=True)
        changed = await asyncio.to_thread(_post, api, "/bench/policy?number=1&port=7000")
        running[0] = asyncio.create_task(nodes[0].run())
        await _eventually(
            lambda: len(nodes[0].answered) == 2 and all(nodes[0].seen[n] >= at for n, at in changed.items())
        )
        return {
            "nodes_s": nodes_s,
            "policy_ms": policy_ms,
            "pods_ms": pods_ms,
            "pods_cpu": pods_cpu,
            "first_bytes": first_bytes,
            "back_bytes": nodes[0].size,
            "back_changed": nodes[0].resources,
        }
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _policies(nodes: list[Node], api: int) -> tuple[float, ...]:
    """Milliseconds from the change at the API server to each node, for each change."""
    found: list[float] = []
    for number in range(CHANGES):
        changed = await asyncio.to_thread(_post, api, f"/bench/policy?number={number * 7}&port={9000 + number}")
        ((name, at),) = changed.items()
        await _eventually(lambda name=name, at=at: all(node.seen[name] >= at for node in nodes))
        found += [(node.seen[name] - at) * 1000 for node in nodes]
        await asyncio.sleep(0.05)
    return tuple(found)


def derivations(rounds: int = 7) -> tuple[float, float]:
    """Median milliseconds to derive everything, and to derive what one pod changed: in turn, on the same objects."""
    by_key = {record.key: record for record in map(_read, feed.objects())}
    stepwise = Derivation(DeriveSettings())
    stepwise.update(Records(1, by_key))
    whole: list[float] = []
    one: list[float] = []
    for number in range(rounds):
        record = _read(feed.pod(number, ready=False))
        by_key = {**by_key, record.key: record}
        records = Records(number + 2, by_key, changed=frozenset({record.key}))
        begun = time.perf_counter()
        Derivation(DeriveSettings()).update(records)
        middle = time.perf_counter()
        stepwise.update(records)
        whole.append((middle - begun) * 1000)
        one.append((time.perf_counter() - middle) * 1000)
    return median(whole), median(one)


def _read(content: dict[str, Any]) -> Record:
    return parse_object(content, "bench", observed=True)


def lines(one: Scale) -> list[str]:
    """What was measured, as a table of Markdown."""
    rows = (
        ("everything served after start; of it CPU time", f"{one.load_s:.1f} s; {one.load_cpu_s:.1f} s"),
        ("memory of the control plane, loaded / most", f"{one.memory_loaded:.0f} / {one.memory_most:.0f} MiB"),
        (f"{NODES} nodes have everything", f"{one.nodes_s:.1f} s"),
        (f"a policy change at {NODES} nodes, p50 / p99", _spread(one.policy_ms)),
        (f"{RATE:.0f} pod changes/s for {SECONDS:.0f} s, p50 / p99 until a node has them", _spread(one.pods_ms)),
        ("control plane's CPU meanwhile", f"{one.pods_cpu * 100:.0f} % of a core"),
        ("a node that connects for the first time is sent", f"{one.first_bytes / 1024:.0f} KiB"),
        (f"one that comes back after {one.back_changed} change", f"{one.back_bytes / 1024:.1f} KiB"),
        ("deriving everything / what one pod changed", f"{one.derive_all_ms:.0f} / {one.derive_one_ms:.2f} ms"),
    )
    return [
        "",
        f"| {feed.PODS:,} pods, {feed.SERVICES:,} services, {feed.POLICIES:,} policies | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        f"deriving everything over what one pod changed: {one.derive_all_ms / one.derive_one_ms:.0f}",
        f"octets, first connection over coming back: {one.first_bytes / one.back_bytes:.0f}",
    ]


def _spread(values: tuple[float, ...]) -> str:
    return f"{median(values):.0f} / {last_percent(values):.0f} ms"


def last_percent(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100, method="inclusive")[98]


class _Secrets:
    """An authority and a key for tokens, in files."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        certificate, key = make_root(datetime.now(UTC))
        (folder / "root-cert.pem").write_text(certificate)
        (folder / "root-key.pem").write_text(key)
        signing = ec.generate_private_key(ec.SECP256R1())
        public = signing.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / "token.pem").write_bytes(public)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._key = signing.private_bytes(*form).decode()

    def environment(self, api: int, xds: int, http: int) -> Mapping[str, str]:
        """Of the control plane."""
        server = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{api}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "ambient-system"}}
        config = {"clusters": [server], "contexts": [context], "users": [{"name": "c", "user": {}}]}
        path = self._folder / "kubeconfig"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "c", **config}))
        return {
            "KUBECONFIG": str(path),
            "AMBIENT_OBJECTS": "kubernetes",
            "AMBIENT_CA_DIR": str(self._folder),
            "AMBIENT_TOKEN_KEY": str(self._folder / "token.pem"),
            "AMBIENT_XDS_LISTEN": f"127.0.0.1:{xds}",
            "AMBIENT_HTTP_LISTEN": f"127.0.0.1:{http}",
            "LOG_LEVEL": "warning",
        }

    def client(self, node: str) -> ServerSettings:
        token = self._folder / f"{node}.token"
        caller = Caller(node, "ambient-system", "ztunnel", "uid")
        token.write_text(issue_token(self._key, caller, time.time(), 3600, issuer="ambient-lab"))
        target = f"127.0.0.1:{self._port}"
        root = self._folder / "root-cert.pem"
        return ServerSettings(target=target, root=root, token=token, hostname="istiod.istio-system.svc")


def _start(stack: ExitStack, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _ports(count: int) -> list[int]:
    """Free ones on loopback."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket(AF_INET, SOCK_STREAM)) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _get(port: int, path: str) -> bytes | None:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return bytes(answer.read())
    return None


def _post(port: int, path: str) -> dict[str, float]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="POST")
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, float] = json.loads(answer.read())
        return found


def _loaded(port: int) -> bool:
    page = (_get(port, "/metrics") or b"").decode()
    counts = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith("ambient_control_resources{")]
    return sum(float(count) for count in counts) >= _RESOURCES + feed.POLICIES


def _until(ready: Any, what: str) -> None:
    end = time.monotonic() + _LOAD_LIMIT_S
    while not ready():
        if time.monotonic() > end:
            raise Unavailable("bench", what, f"not ready within {_LOAD_LIMIT_S:g} s")
        time.sleep(0.02)


async def _eventually(ready: Any) -> None:
    end = time.monotonic() + _LOAD_LIMIT_S
    while not ready():
        if time.monotonic() > end:
            raise Unavailable("bench", "the nodes", f"have not got it within {_LOAD_LIMIT_S:g} s")
        await asyncio.sleep(0.005)


def _high_water(pid: int) -> float:
    """MiB that the process had resident at most so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
