"""Who counts the limits that all proxies share, and what is said of the routes that have such limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ambient.control.derive_provider import service_called
from ambient.kube.objects import Condition
from ambient.kube.routing import AttachedRoute, RequestRoute
from ambient.model.workload import Health, Service, Workload
from ambient.waypoint.front import Front

COUNTED: Final = "ambient.mesh/LimitsCounted"


@dataclass(frozen=True, slots=True)
class Counting:
    """Host name and port of the service that counts."""

    hostname: str
    port: int


class Limiter:
    """`asked` None: nobody counts. `pool(service, home)`: it with its endpoints.
    `behind(key)`: the workloads of a service."""

    def __init__(
        self,
        asked: Counting | None,
        pool: Callable[[Service, str], Front],
        behind: Callable[[str], Collection[Workload]],
    ) -> None:
        self._asked = asked
        self._pool = pool
        self._behind = behind

    def is_of(self, key: str) -> bool:
        """Whether the service of this key, "namespace/hostname", is the one."""
        return self._asked is not None and key.endswith(f"/{self._asked.hostname}")

    def front(self, services: Mapping[str, Service], home: str) -> Front | None:
        """The service as a proxy in namespace `home` is to use it, None where there is none."""
        service = self._service(services)
        if service is None or self._asked is None:
            return None
        front = self._pool(service, home)
        return replace(front, ports=tuple(one for one in front.ports if one.number == self._asked.port))

    def trouble(self, services: Mapping[str, Service]) -> tuple[str, str]:
        """Reason and words why nothing is counted; ("", "") while it is."""
        if self._asked is None:
            return "NotConfigured", "the mesh has no rate limit service"
        service = self._service(services)
        if service is None:
            return "NotFound", f"there is no Service {self._asked.hostname} with port {self._asked.port}"
        if not any(one.status is Health.HEALTHY for one in self._behind(service.key)):
            return "NotReady", f"no pod of Service {service.hostname} is ready: is its Redis to be had?"
        return "", ""

    def conditions(self, route: AttachedRoute, services: Mapping[str, Service]) -> tuple[Condition, ...]:
        """() where a route has no limit that is counted for all proxies."""
        rules = route.rules if isinstance(route, RequestRoute) else ()
        limits = {one for rule in rules for one in rule.limits if one.route}
        if not limits:
            return ()
        reason, why = self.trouble(services)
        if not reason:
            return (Condition(COUNTED, "True", "Counted", ""),)
        kinds = {one.strict for one in limits}
        then = " and ".join(
            what
            for strict, what in ((False, "requests pass uncounted"), (True, "those of a limit with deny are refused"))
            if strict in kinds
        )
        return (Condition(COUNTED, "False", reason, f"{why}; until then {then}"),)

    def _service(self, services: Mapping[str, Service]) -> Service | None:
        return service_called(services, self._asked.hostname, self._asked.port) if self._asked is not None else None
