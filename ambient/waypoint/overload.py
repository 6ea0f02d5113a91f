"""What an Envoy does when it is given more than it can bear: it refuses what is new before it is killed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ambient.waypoint.typed import Message, typed

_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS: Final = "envoy.resource_monitors.global_downstream_max_connections"
_SHRINK: Final = 0.9
_REFUSE: Final = 0.95
"""Shares of the heap: from the first on memory is given back, from the second on new requests and tunnels get a 503."""


@dataclass(frozen=True, slots=True)
class Bearable:
    """`heap_mib` 0: as much as there is."""

    connections: int = 200_000
    heap_mib: int = 0


USUAL: Final = Bearable()


def overload(most: Bearable) -> Message:
    """`overload_manager` of a bootstrap."""
    connections = typed(
        _CONNECTIONS,
        "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=most.connections,
    )
    made: Message = {"resource_monitors": [connections]}
    if most.heap_mib:
        heap = "resource_monitors.fixed_heap.v3.FixedHeapConfig"
        made["refresh_interval"] = "0.25s"
        made["resource_monitors"].append(typed(_HEAP, heap, max_heap_size_bytes=most.heap_mib << 20))
        made["actions"] = [_action("shrink_heap", _SHRINK), _action("stop_accepting_requests", _REFUSE)]
    return made


def _action(name: str, share: float) -> Message:
    trigger = {"name": _HEAP, "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}
