"""The services that routes of gateways lead to, and the way there: endpoints, or the waypoint before them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from ambient.control.derive_backends import Unresolved
from ambient.kube.objects import Record
from ambient.kube.routing import AttachedRoute, BackendRef
from ambient.model.waypoints import waypoints_of
from ambient.model.workload import GatewayAddress, Health, NamespacedHostname, Service, Workload
from ambient.waypoint.door import Through
from ambient.waypoint.front import Backend, Front

_CORE: Final = ("", "core")


class Pools:
    """`services`: those of Kubernetes by (namespace, name). `granted(route, namespace, name)`: it may send to a Service
    of another namespace. `pool(service)`: it with its endpoints. `behind(key)`: the workloads of a service."""

    def __init__(
        self,
        services: Mapping[tuple[str, str], Service],
        granted: Callable[[Record, str, str], bool],
        pool: Callable[[Service], Front],
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
        if service is None or all(one.service_port != ref.port for one in service.ports):
            raise Unresolved("BackendNotFound", f"there is no Service {namespace}/{ref.name} with port {ref.port}")
        return service

    def wanted(self, ports: Collection[tuple[str, int]]) -> tuple[tuple[Front, ...], tuple[Through, ...]]:
        """What a gateway needs for these (host name, port): services, and the waypoints that some
        are behind."""
        numbers: dict[str, set[int]] = {}
        for hostname, port in ports:
            numbers.setdefault(hostname, set()).add(port)
        fronts, through = [], {}
        by_host = {one.hostname: one for one in self._services.values()}
        for hostname, wanted in sorted(numbers.items()):
            service = by_host[hostname]
            front = self._pool(service)
            front = replace(front, ports=tuple(one for one in front.ports if one.number in wanted))
            if service.addresses and waypoints_of(service):
                waypoint = self._through(waypoints_of(service)[-1])
                through[waypoint.name] = waypoint
                front = replace(
                    front,
                    ports=tuple(
                        # The waypoint begins the TLS that the application wants.
                        replace(
                            one,
                            backends=(Backend(service.addresses[0].ip, one.number, through=waypoint.name),),
                            tls=None,
                        )
                        for one in front.ports
                    ),
                )
            elif not service.addresses:
                front = self._pod_by_pod(service, front, through)
            fronts.append(front)
        return tuple(fronts), tuple(one for _, one in sorted(through.items()))

    def _pod_by_pod(self, service: Service, front: Front, through: dict[str, Through]) -> Front:
        """A service that has no address is called by those of its pods, and so through a waypoint that one has of its
        own. That one begins no TLS, whose DestinationRules and BackendTLSPolicies are about services: so it stays
        ours, within the tunnel. Adds to `through`."""
        ways: dict[str, str] = {}
        for one in self._behind(service.key):
            if one.waypoint is not None:
                way = self._through(one.waypoint)
                through[way.name] = way
                ways |= {str(address): way.name for address in one.addresses}

        def led(backend: Backend) -> Backend:
            name = ways.get(str(backend.address))
            return backend if name is None else replace(backend, identity="", through=name)

        return replace(front, ports=tuple(replace(one, backends=tuple(map(led, one.backends))) for one in front.ports))

    def _through(self, waypoint: GatewayAddress) -> Through:
        """A waypoint. One that cannot be found has no proxies: nothing gets past it."""
        destination = waypoint.destination
        if isinstance(destination, NamespacedHostname):
            found = [one for one in self._behind(f"{destination.namespace}/{destination.hostname}") if _serves(one)]
            name = f"{destination.namespace}/{destination.hostname.partition('.')[0]}"
        else:
            found, name = [], f"address/{destination.ip}"
        addresses = tuple(str(one.addresses[0]) for one in found)
        return Through(name, addresses, tuple(dict.fromkeys(str(one.identity) for one in found)))


def _serves(workload: Workload) -> bool:
    return workload.status is Health.HEALTHY and bool(workload.addresses) and workload.network_gateway is None
