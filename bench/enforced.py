"""How long after the API's answer a policy holds on real nodes: on the cluster of KUBECONFIG, with the mesh in it.

Each of two nodes has a server, and a client of the other node's that keeps a connection busy. A policy that denies both
is created; the time until both connections are cut and nothing new is let in counts from the answer of the API server.
Then it is deleted, and the time until both clients are served again counts. There must be one clock: nodes on one
machine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from ambient.cli.demo.app import SERVER
from ambient.errors import Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Forbidden, NotThere
from ambient.kube.objects import resources
from ambient.kube.resource import Resource
from bench.stats import middle_of

SPACE: Final = "bench-enforced"
SYSTEM: Final = "ambient-system"
_POLICIES: Final = resources("AuthorizationPolicy")[0]
_PODS: Final = Resource("v1", "pods")
_NAMESPACES: Final = Resource("v1", "namespaces", namespaced=False)
_NODES: Final = Resource("v1", "nodes", namespaced=False)
_PATIENCE_S: Final = 60.0
_DENY: Final[dict[str, Any]] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "nobody", "namespace": SPACE},
    "spec": {"action": "DENY", "rules": [{"from": [{"source": {"namespaces": [SPACE]}}]}]},
}
CLIENT: Final = r"""
import socket, sys, time
served = None
while True:
    try:
        with socket.create_connection((sys.argv[1], 7000), 5) as connection:
            lines = connection.makefile("rwb", buffering=0)
            while lines.readline():
                if served is not True:
                    served = True
                    print("open", time.time(), flush=True)
                time.sleep(0.001)
                lines.write(b"x\n")
    except OSError:
        pass
    if served is not False:
        served = False
        print("shut", time.time(), flush=True)
    time.sleep(0.002)
"""


@dataclass(frozen=True, slots=True)
class Enforced:
    """Milliseconds from the API's answer until the slower of two nodes did as it says, for each round."""

    denied: tuple[float, ...]
    allowed: tuple[float, ...]


def enforced(rounds: int) -> Enforced:
    """Measure. Raises MeshError without a cluster, without the mesh in it or when nothing happens in time."""
    return asyncio.run(_enforced(rounds))


def lines(found: Enforced) -> list[str]:
    """As Markdown."""
    table = [
        "",
        "| a policy on two nodes, ms after the API's answer | median | 90 of 100 | slowest |",
        "|---" * 4 + "|",
    ]
    for what, times in (("created: cut and refused", found.denied), ("deleted: served again", found.allowed)):
        ordered = sorted(times)
        table.append(
            f"| {what} | {middle_of(ordered):.1f} | {ordered[len(ordered) * 9 // 10]:.1f} | {ordered[-1]:.1f} |"
        )
    return [*table, "", f"{len(found.denied)} rounds, load average {os.getloadavg()[0]:.0f}"]


class _Client:
    """A client in its pod, as kubectl shows what it prints."""

    def __init__(self, pod: str, process: asyncio.subprocess.Process) -> None:
        self._pod = pod
        self._process = process

    async def says(self, word: str) -> float:
        """When (Unix seconds) it next says so."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                async for line in self._process.stdout:
                    said, at = line.decode().split()
                    if said == word:
                        return float(at)
        except TimeoutError:
            raise Unavailable("bench", self._pod, f"never said {word!r}") from None
        raise Unavailable("bench", self._pod, "its client ended")

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def _enforced(rounds: int) -> Enforced:
    denied, allowed = [], []
    async with ApiClient.open(os.environ) as api, _clients(api) as clients:
        await _all_say(clients, "open")
        for _ in range(rounds):
            await api.create(_POLICIES, _DENY, SPACE)
            denied.append(await _after(time.time(), clients, "shut"))
            await api.delete(_POLICIES, "nobody", SPACE)
            allowed.append(await _after(time.time(), clients, "open"))
    return Enforced(tuple(denied), tuple(allowed))


async def _after(answered: float, clients: Sequence[_Client], word: str) -> float:
    return (max(await _all_say(clients, word)) - answered) * 1000


async def _all_say(clients: Sequence[_Client], word: str) -> list[float]:
    return await asyncio.gather(*(client.says(word) for client in clients))


@asynccontextmanager
async def _clients(api: ApiClient) -> AsyncIterator[list[_Client]]:
    """One on either node, which talks to the server on the other."""
    nodes = sorted(node["metadata"]["name"] for node in (await api.list(_NODES))["items"])[:2]
    if len(nodes) < 2:
        raise Unavailable("bench", "the cluster", "has fewer than two nodes")
    ztunnels = (await api.list(_PODS, SYSTEM, labels="app=ztunnel"))["items"]
    if not ztunnels:
        raise Unavailable("bench", "the cluster", f"has no ztunnel in {SYSTEM}: install the mesh first")
    image = ztunnels[0]["spec"]["containers"][0]["image"]
    metadata = {"name": SPACE, "labels": {"istio.io/dataplane-mode": "ambient"}}
    await api.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    started: list[_Client] = []
    try:
        for node in nodes:
            await _start(api, f"server-{node}", node, image, ["python3", "-c", SERVER])
            await _start(api, f"client-{node}", node, image, ["sleep", "infinity"])
        addresses = {name: await _running(api, name) for node in nodes for name in (f"server-{node}", f"client-{node}")}
        for node, other in zip(nodes, reversed(nodes), strict=True):
            argv = ["kubectl", "-n", SPACE, "exec", f"client-{node}", "--"]
            argv += ["python3", "-u", "-c", CLIENT, addresses[f"server-{other}"]]
            process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
            started.append(_Client(f"client-{node}", process))
        yield started
    finally:
        for client in started:
            await client.end()
        await api.delete(_NAMESPACES, SPACE)


async def _start(api: ApiClient, name: str, node: str, image: str, command: list[str]) -> None:
    container = {"name": "app", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SPACE}, "spec": spec}
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            # A namespace has no account for its pods in its first moments.
            with suppress(Forbidden, NotThere):
                await api.create(_PODS, body, SPACE)
                return
            await asyncio.sleep(0.2)


async def _running(api: ApiClient, name: str) -> str:
    """Its address, once it runs."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            status = (await api.get(_PODS, name, SPACE))["status"]
            if status.get("phase") == "Running" and status.get("podIP"):
                return str(status["podIP"])
            await asyncio.sleep(0.2)
