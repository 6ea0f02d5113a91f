"""The services that routes of gateways lead to, and the way there: endpoints, or the waypoint before them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from ambient.control.derive_backends import Unresolved
from ambient.kube.objects import Record
from ambient.kube.routing import AttachedRoute, BackendRef
from ambient.model.waypoints import waypoints_of
from ambient.model.workload import Health, NamespacedHostname, Service, Workload
from ambient.waypoint.door import Through
from ambient.waypoint.front import Backend, Front

_CORE: Final = ("", "core")


class Pools:
    """`services`: by (namespace, name). `granted(route, namespace, name)`: it may send to a Service of another
    namespace. `pool(service, home)`: it with its endpoints. `behind(key)`: the workloads of a service."""

    def __init__(
        self,
        services: Mapping[tuple[str, str], Service],
        granted: Callable[[Record, str, str], bool],
        pool: Callable[[Service, str], Front],
        behind: Callable[[str], Collection[Workload]],
    ) -> None:
        self._services = services
        self._granted = granted
        self._pool = pool
        self._behind = behind

    def resolve(self, route: AttachedRoute, ref: BackendRef) -> Service:
        """The service of a backend; raises Unresolved."""
        if ref.group not in _CORE or ref.kind != "Service":
            raise Unresolved("InvalidKind", f"{ref.kind} {ref.name}: only a Service can be sent to")
        namespace = ref.namespace or route.namespace
        if namespace != route.namespace and not self._granted(route, namespace, ref.name):
            raise Unresolved("RefNotPermitted", f"no ReferenceGrant in {namespace} permits Service {ref.name}")
        service = self._services.get((namespace, ref.name))
        if service is None or not _of_kubernetes(service) or all(one.service_port != ref.port for one in service.ports):
            raise Unresolved("BackendNotFound", f"there is no Service {namespace}/{ref.name} with port {ref.port}")
        return service

    def wanted(self, ports: Collection[tuple[str, int]], home: str) -> tuple[tuple[Front, ...], tuple[Through, ...]]:
        """What a gateway in namespace `home` needs for these (host name, port): services, and the waypoints that some
        are behind."""
        numbers: dict[str, set[int]] = {}
        for hostname, port in ports:
            numbers.setdefault(hostname, set()).add(port)
        fronts, through = [], {}
        by_host = {one.hostname: one for one in self._services.values() if _of_kubernetes(one)}
        for hostname, wanted in sorted(numbers.items()):
            service = by_host[hostname]
            front = self._pool(service, home)
            front = replace(front, ports=tuple(one for one in front.ports if one.number in wanted))
            if service.addresses and waypoints_of(service):
                waypoint = self._through(service)
                through[waypoint.name] = waypoint
                front = replace(
                    front,
                    ports=tuple(
                        replace(one, backends=(Backend(service.addresses[0].ip, one.number, through=waypoint.name),))
                        for one in front.ports
                    ),
                )
            fronts.append(front)
        return tuple(fronts), tuple(one for _, one in sorted(through.items()))

    def _through(self, service: Service) -> Through:
        """The waypoint of a service. One that cannot be found has no proxies: nothing gets to the service."""
        destination = waypoints_of(service)[-1].destination
        if isinstance(destination, NamespacedHostname):
            found = [one for one in self._behind(f"{destination.namespace}/{destination.hostname}") if _serves(one)]
            name = f"{destination.namespace}/{destination.hostname.partition('.')[0]}"
        else:
            found, name = [], f"address/{destination.ip}"
        addresses = tuple(str(one.addresses[0]) for one in found)
        return Through(name, addresses, tuple(dict.fromkeys(str(one.identity) for one in found)))


def _serves(workload: Workload) -> bool:
    return workload.status is Health.HEALTHY and bool(workload.addresses) and workload.network_gateway is None


def _of_kubernetes(service: Service) -> bool:
    return service.hostname.startswith(f"{service.name}.{service.namespace}.svc.")
