"""What a waypoint or a gateway was last configured from, kept until something of it changes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from ambient.control.derive_gateway import Laid, Told
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

    laid: Laid
    told: Told
    read: frozenset[str]


class SeenGateways:
    """By their keys. What is laid outlasts what is told of it: endpoints, keys and certificates do not change it."""

    def __init__(
        self, lay: Callable[[Gateway], Generator[None, None, Laid]], look: Callable[[Laid], SeenGateway]
    ) -> None:
        self._lay = lay
        self._look = look
        self._laid: dict[str, Laid] = {}
        self._seen: dict[str, SeenGateway] = {}

    def forget(self) -> None:
        """Everything may be another."""
        self._laid, self._seen = {}, {}

    def renew(self) -> None:
        """Keys are other ones."""
        self._seen = {}

    def touch(self, key: str) -> None:
        """The endpoints of a service are other ones."""
        self._seen = {name: seen for name, seen in self._seen.items() if key not in seen.read}

    def telling(self, gateway: Gateway) -> Generator[None, None, Told]:
        """In small steps; the same object as before where nothing has changed. Between them anything but `forget` may
        be called."""
        laid = self._laid.get(gateway.key)
        if laid is None or laid.gateway != gateway:
            laid = self._laid[gateway.key] = yield from self._lay(gateway)
        seen = self._seen.get(gateway.key)
        if seen is None or seen.laid is not laid:
            seen = self._seen[gateway.key] = self._look(laid)
        if not seen.told.resolved:
            # Why something cannot be read may be another thing the next time.
            del self._seen[gateway.key]
        return seen.told
