"""What a waypoint or a gateway was last configured from, kept until something of it changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ambient.control.derive_gateway import Told
from ambient.control.derive_waypoint import Waypoint
from ambient.kube.networking import Gateway
from ambient.waypoint.front import View


@dataclass(slots=True)
class Seen:
    """Of a waypoint; `touched`: services whose endpoints have changed since."""

    waypoint: Waypoint
    gateway: Gateway
    view: View
    touched: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class SeenGateway:
    """Of a gateway; `read`: the services whose endpoints it was made of."""

    gateway: Gateway
    told: Told
    read: frozenset[str]
