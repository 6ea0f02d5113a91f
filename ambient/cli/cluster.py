"""How a command reaches a mesh in a real cluster: its pods are found through the Kubernetes API, each part's own pages
read through port-forwards, as kubectl would.

Needs `list` of pods and `create` (older servers: `get`) of pods/portforward, where the mesh is installed.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from ambient.cli.reach import AGENT_PORT, Answer, Dial, ask, cut_path, stream
from ambient.errors import MeshError, Refused, Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Forbidden
from ambient.kube.api.portforward import PODS, carry
from ambient.model.address import ADMIN_PORT, CONTROL_HTTP_PORT

T = TypeVar("T")

SYSTEM: Final = "ambient-system"
ZTUNNEL, AGENT, CONTROL = "ztunnel", "ambient-agent", "ambient-control"
"""What the parts' pods have as label `app`."""
_SELECTOR: Final = f"app in ({ZTUNNEL},{AGENT},{CONTROL})"
_PERMISSION: Final = "reading a mesh takes the permission to create pods/portforward there"


@dataclass(frozen=True, slots=True)
class Part:
    """A pod of the mesh."""

    app: str
    namespace: str
    name: str
    node: str
    ready: bool
    created: str

    @classmethod
    def read(cls, pod: Mapping[str, Any]) -> Part | None:
        """None for a pod that is on no node, or on its way out."""
        metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        node = spec.get("nodeName", "")
        if not node or metadata.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
            return None
        conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
        return cls(
            (metadata.get("labels") or {}).get("app", ""),
            metadata["namespace"],
            metadata["name"],
            node,
            conditions.get("Ready") == "True",
            metadata.get("creationTimestamp") or "",
        )


class Forwarder:
    """A thread with an event loop of its own, for a client that is asynchronous and commands that are not."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="port-forward", daemon=True)
        self._thread.start()
        self.close = weakref.finalize(self, _end, self._loop, self._thread, api)
        """Called at exit at the latest."""

    def call(self, work: Callable[[ApiClient], Coroutine[Any, Any, T]]) -> T:
        """The result of `work`, done there."""
        return asyncio.run_coroutine_threadsafe(work(self._api), self._loop).result()

    @contextmanager
    def dial(self, part: Part, port: int) -> Iterator[socket.socket]:
        """A socket that is connected to a pod's port; raises what `carry` says when nothing can be had of it."""
        mine, theirs = socket.socketpair()
        carried = asyncio.run_coroutine_threadsafe(
            carry(self._api, part.namespace, part.name, port, theirs), self._loop
        )
        try:
            yield mine
        except (OSError, http.client.HTTPException):
            mine.close()
            carried.result()
            raise
        finally:
            mine.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, api: ApiClient) -> None:
    async def finish() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await api.close()

    asyncio.run_coroutine_threadsafe(finish(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class ClusterReach:
    """The mesh of a cluster. Its pods are looked up once."""

    def __init__(self, api: ApiClient) -> None:
        self.label = f"cluster {api.access.server.partition('://')[2]}"
        self._far = Forwarder(api)
        self.close = self._far.close

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        """Ready ones first, of those the newest. Raises Refused when there is no mesh, Forbidden, Unavailable."""
        found = [part for pod in self._far.call(_pods) for part in [Part.read(pod)] if part]
        if not any(part.app == ZTUNNEL for part in found):
            raise Refused("no mesh", self.label, "no pod has the label app=ztunnel; `ambient install` installs one")
        found.sort(key=lambda part: part.created, reverse=True)
        return tuple(sorted(found, key=lambda part: not part.ready))

    def nodes(self) -> Sequence[str]:
        return sorted({part.node for part in self._parts if part.app in (ZTUNNEL, AGENT)})

    def ztunnel(self, node: str, path: str, port: int = ADMIN_PORT) -> Answer:
        return self._on_node(ZTUNNEL, node, port, path)

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        part = self._part(ZTUNNEL, node)
        with self._telling(part):
            yield from stream(f"ztunnel of node {node}", self._dialled(part, ADMIN_PORT), path)

    def agent(self, node: str, path: str) -> Answer:
        return self._on_node(AGENT, node, AGENT_PORT, path)

    def cut(self, node: str, pod: str) -> Answer:
        return self._on_node(AGENT, node, AGENT_PORT, cut_path(pod), "POST")

    def controls(self, path: str) -> Sequence[Answer]:
        replicas = [part for part in self._parts if part.app == CONTROL]
        if not replicas:
            raise Unavailable("control plane does not answer", self.label, f"no pod has the label app={CONTROL}")
        return [self._ask(part, "control plane", CONTROL_HTTP_PORT, path) for part in replicas]

    def _on_node(self, app: str, node: str, port: int, path: str, method: str = "GET") -> Answer:
        return self._ask(self._part(app, node), f"{app.removeprefix('ambient-')} of node {node}", port, path, method)

    def _part(self, app: str, node: str) -> Part:
        if node not in self.nodes():
            raise Refused(f"no node {node!r}", self.label, f"the mesh is on {', '.join(self.nodes())}")
        for part in self._parts:
            if (part.app, part.node) == (app, node):
                return part
        raise Unavailable(f"{app} of node {node} does not answer", self.label, "it has no such pod")

    def _ask(self, part: Part, what: str, port: int, path: str, method: str = "GET") -> Answer:
        with self._telling(part):
            return ask(what, self._dialled(part, port), path, method)

    def _dialled(self, part: Part, port: int) -> Dial:
        return Dial(f"pod {part.namespace}/{part.name}, port {port}", lambda: self._far.dial(part, port))

    @contextmanager
    def _telling(self, part: Part) -> Iterator[None]:
        try:
            yield
        except Forbidden as error:
            raise Refused(error.what, f"{part.namespace}/{part.name}", f"{error.why}: {_PERMISSION}") from None


async def _pods(api: ApiClient) -> list[dict[str, Any]]:
    """All pods of a mesh, wherever it is installed; of its usual namespace for who may not look further."""
    try:
        found = await api.list(PODS, labels=_SELECTOR)
    except Forbidden as error:
        try:
            found = await api.list(PODS, SYSTEM, labels=_SELECTOR)
        except MeshError:
            raise error from None
    items: list[dict[str, Any]] = found.get("items") or []
    return items
