"""A control plane's side of joining without a network: a folder of objects, its joins, and a clock that is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ambient.ca.ticket import NOTE, Ticket, new_ticket, session_text
from ambient.ca.token import Caller
from ambient.control.join import JoinedTokens, Joins, Mesh
from ambient.control.join_store import FolderStore
from ambient.errors import Refused
from ambient.kube.folder import ObjectFolder
from ambient.kube.networking import WorkloadEntry, WorkloadGroup
from ambient.kube.objects import parse_object, record_key

GRACE_S: Final = 60.0
ADDRESS: Final = "192.0.2.7"


class NodeTokens:
    """Verifies "node:<name>", nothing else."""

    async def verify(self, token: str) -> Caller:
        kind, _, node = token.partition(":")
        if kind != "node":
            raise Refused("token", why="unknown")
        return Caller(node, "ambient-system", "ztunnel")


class Joining:
    """`now` is the clock of the control plane."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000_000.0
        self.folder = ObjectFolder(folder)
        self.store = FolderStore(folder)
        self.members = JoinedTokens(NodeTokens())
        self.joins = self.control_plane()

    def control_plane(self) -> Joins:
        """Another replica, or the same one after its restart."""
        mesh = Mesh("Kubernetes", "cluster.local", "", "cluster.local")
        return Joins(self.store, lambda: self.members.records, mesh, grace_s=GRACE_S, clock=lambda: self.now)

    def put(self, kind: str, name: str, spec: Mapping[str, Any], **more: Any) -> None:
        raw = {"kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": dict(spec), **more}
        version = "networking.istio.io/v1" if kind.endswith(("Entry", "Group")) else "v1"
        if kind == "Node":
            del raw["metadata"]["namespace"]
        self.folder.put([parse_object({"apiVersion": version, **raw}, "test")])
        self.hear()

    def hear(self) -> None:
        """What a reconciler does at each change."""
        self.members.hear(self.folder.records())

    def group(self, name: str = "ledger", **spec: Any) -> None:
        self.put(WorkloadGroup.kind, name, {"template": {"serviceAccount": name}, **spec})

    def ticket(self, group: str = "ledger", life_s: float = 600) -> Ticket:
        ticket, note = new_ticket("shop", group, control="c:15012", root="", expires_unix=self.now + life_s)
        raw = self.folder.stored(record_key(WorkloadGroup.kind, "shop", group))
        assert raw is not None
        annotations = {**(raw["metadata"].get("annotations") or {}), NOTE + ticket.number: note}
        self.folder.put([parse_object({**raw, "metadata": {**raw["metadata"], "annotations": annotations}}, "test")])
        return ticket

    async def join(self, ticket: Ticket, address: str = ADDRESS, **other: str) -> dict[str, Any]:
        """As the machine would; `other` parts than the ticket's."""
        parts = {"namespace": ticket.namespace, "group": ticket.group, "number": ticket.number, "secret": ticket.secret}
        answer = await self.joins.join({**parts, "address": address, **other})
        self.hear()
        return answer

    def entries(self) -> dict[str, WorkloadEntry]:
        return {entry.name: entry for entry in self.folder.records().of(WorkloadEntry)}


def token_of(answer: Mapping[str, Any], role: str = "join") -> str:
    return session_text(role, str(answer["namespace"]), str(answer["entry"]), str(answer["session"]))
