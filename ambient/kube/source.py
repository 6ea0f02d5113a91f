"""Where objects come from and where what we say about them goes: a folder (lab) or a Kubernetes API server.

Everything that reads objects is written against the two protocols here and does not know which one it has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from ambient.kube.api.client import ApiClient
from ambient.kube.api.lease import Seat
from ambient.kube.api.source import ApiSource, Beside
from ambient.kube.folder import ObjectFolder
from ambient.kube.networking import TypedAddress
from ambient.kube.objects import KINDS, Condition, Record, Records
from ambient.kube.status_values import AncestorStatus, ListenerStatus, ParentStatus

KUBERNETES: Final = Path("kubernetes")
"""The value of AMBIENT_OBJECTS that means the API server (a folder of this name is `./kubernetes`)."""
GATEWAY_KINDS: Final = ("ConfigMap", "Secret")
"""What gateways need beside: read only where that was asked for, for there may be very many, and they hold keys."""
MESH_KINDS: Final = tuple(kind for kind in KINDS if kind not in GATEWAY_KINDS)
"""What the control plane reads."""
NODE_KINDS: Final = ("Namespace", "Pod")
"""What an agent reads."""


class StatusSink(Protocol):
    """What one process says about objects that it does not own. Nothing here waits; equal words cost nothing."""

    def annotate(self, target: Record | str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations on an object (a record or its key); None takes one away."""

    def conditions(self, target: Record | str, conditions: Iterable[Condition]) -> None:
        """Replace all conditions that this writer gives the object."""

    def addresses(self, target: Record, addresses: Sequence[tuple[str, str]]) -> None:
        """Give the hosts of a ServiceEntry these addresses (host, address) in its status, in the place of others."""

    def gateway_addresses(self, target: Record, addresses: Sequence[TypedAddress]) -> None:
        """Give a Gateway these addresses, in the place of others."""

    def gateway_listeners(self, target: Record, listeners: Sequence[ListenerStatus]) -> None:
        """Say this of a Gateway's listeners, in the place of what was said of any."""

    def route_parents(self, target: Record, parents: Sequence[ParentStatus]) -> None:
        """Say this of the gateways that a route is on, in the place of what was said of any."""

    def policy_ancestors(self, target: Record, ancestors: Sequence[AncestorStatus]) -> None:
        """Say this of a policy for the Gateways that it concerns, in the place of what was said for any."""

    def forget(self, target: Record | str) -> None:
        """Take back everything said about the object."""

    def observed(self, revision: int) -> None:
        """Everything up to this objects revision has been acted upon."""


class ObjectSource(Protocol):
    """Objects as they are and as they change."""

    async def run(self) -> None:
        """Do what has to be done beside `changes`, until cancelled. Without it running nothing may come."""

    def changes(self) -> AsyncIterator[Records]:
        """Everything, as soon as all of it was read once; then again after each change (several may come as one).
        `Records.changed` says what differs from the one before. For one reader."""

    def status(self, writer: str) -> StatusSink:
        """The sink of this process. Its name must be used by no other."""

    def leading(self) -> bool:
        """Whether we are the one of several replicas that writes."""

    def waiting(self) -> str:
        """Why `changes` has not begun, or what it cannot read now; "" when all is well."""


def concerns(node: str, kind: str, content: Mapping[str, Any]) -> bool:
    """What an agent has to know of the cluster's objects: namespaces, and the pods of its own node."""
    if kind != "Pod":
        return kind == "Namespace"
    spec = content.get("spec")
    return not isinstance(spec, Mapping) or spec.get("nodeName") == node


def open_source(
    objects: Path,
    environment: Mapping[str, str],
    *,
    node: str = "",
    kinds: Collection[str] = MESH_KINDS,
    seat: Seat | None = None,
    beside: Beside | None = None,
) -> ObjectSource:
    """The source that the setting AMBIENT_OBJECTS names. `node`: only what an agent on that node needs; `seat`: the
    lease whose holder alone writes (a folder has one control plane); `beside`: what is read by its name (a folder is
    read whole).

    Raises InvalidInput when it is the API server and `environment` does not say where that is.
    """
    if objects != KUBERNETES:
        return ObjectFolder(objects, keep=partial(concerns, node) if node else None)
    read = NODE_KINDS if node else tuple(kinds)
    return ApiSource(ApiClient.open(environment), kinds=read, node=node, seat=seat, beside=beside)
