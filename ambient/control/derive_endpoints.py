"""What is behind a port of a service, and behind the subsets that DestinationRules make of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ambient.control.derive_traffic_policy import policy_of
from ambient.kube.networking import DestinationRule, ServiceEntry, WorkloadEntry
from ambient.kube.objects import Condition, Pod, Records
from ambient.model.balance import port_of
from ambient.model.forbidden import nowhere
from ambient.model.mesh import ServiceEndpoint
from ambient.model.workload import AppProtocol, Health, HealthPolicy, Port, Scope, Service, TunnelProtocol, Workload
from ambient.waypoint.front import Backend, FrontPort, Protocol, Subset

ALLOWED: Final = "ambient.mesh/EndpointsAllowed"
_PROTOCOLS: Final[Mapping[AppProtocol, Protocol]] = {
    AppProtocol.HTTP11: Protocol.HTTP,
    AppProtocol.HTTP2: Protocol.HTTP2,
    AppProtocol.GRPC: Protocol.HTTP2,
    AppProtocol.TCP: Protocol.TCP,
    AppProtocol.TLS: Protocol.TCP,
}


@dataclass(frozen=True, slots=True)
class Labels:
    """Looked up where a workload came from: its pod, WorkloadEntry or ServiceEntry."""

    records: Records

    def fitting(self, behind: Iterable[Workload], wanted: Mapping[str, str]) -> Iterable[Workload]:
        """Those that have all labels that are wanted."""
        return [one for one in behind if wanted.items() <= self.of(one).items()]

    def of(self, workload: Workload) -> Mapping[str, str]:
        """{} where nobody knows."""
        _, _, rest = workload.uid.partition("/")
        parts = rest.split("/")
        if len(parts) == 4 and parts[1] == "Pod":
            pod = self.records.find(Pod, parts[2], parts[3])
            return pod.labels if pod is not None else {}
        if len(parts) == 4 and parts[1] == "WorkloadEntry":
            entry = self.records.find(WorkloadEntry, parts[2], parts[3])
            return entry.merged_labels if entry is not None else {}
        if len(parts) > 4 and parts[1] == "ServiceEntry":
            return self._inline(parts[2], parts[3], workload)
        return {}

    def _inline(self, namespace: str, name: str, workload: Workload) -> Mapping[str, str]:
        entry = self.records.find(ServiceEntry, namespace, name)
        own = {str(address) for address in workload.addresses} | {workload.hostname}
        listed = entry.endpoints if entry is not None else ()
        return next((one.labels for one in listed if one.address in own), {})


def ports_of(
    service: Service, behind: Iterable[Workload], rule: DestinationRule | None, labels: Labels
) -> tuple[FrontPort, ...]:
    """`behind`: the workloads of the service; `rule`: what is in force for it."""
    workloads, ports = list(behind), []
    for port in by_number(service.ports):
        protocol, number = protocol_of(port), port.service_port
        subsets = tuple(
            Subset(
                one.name,
                tuple(backends_of(service, labels.fitting(workloads, one.labels), number)),
                policy,
            )
            for one in (rule.subsets if rule is not None else ())
            for policy in (policy_of(rule, number, one),)
        )
        policy = policy_of(rule, number)
        backends = tuple(backends_of(service, workloads, number))
        ports.append(FrontPort(number, protocol, backends, policy, subsets, near=_near(service)))
    return tuple(ports)


def protocol_of(port: Port) -> Protocol:
    """What is spoken on a port of a service."""
    return _PROTOCOLS.get(port.app_protocol, Protocol.AUTO)


def _near(service: Service) -> tuple[Scope, ...]:
    """What clients prefer, proxies do. Even what is for the client's own node alone: which that is a proxy does not
    know, so its own goes first."""
    return service.load_balancing.routing_preference


def by_number(ports: Iterable[Port]) -> list[Port]:
    """Each number once: one that is there for TCP and for UDP is the port that somebody gave a protocol."""
    found: dict[int, Port] = {}
    for port in ports:
        if port.service_port not in found or found[port.service_port].app_protocol is AppProtocol.UNKNOWN:
            found[port.service_port] = port
    return list(found.values())


def backends_of(service: Service, behind: Iterable[Workload], port: int) -> Iterable[Backend]:
    """Those that a waypoint can send to, and may: what is its own, or its machine's, is nobody else's endpoint."""
    everyone = service.load_balancing.health_policy is HealthPolicy.ALLOW_ALL
    for workload in behind:
        target = port_of(service, ServiceEndpoint(workload, workload.services[service.key]), port)
        # What stands for another network is nothing that a waypoint can dial yet, nor is a tunnel to a mere name.
        tunnelled = workload.tunnel_protocol is not TunnelProtocol.NONE
        where = workload.addresses[0] if workload.addresses else "" if tunnelled else workload.hostname
        if not target or not where or str(where).startswith("*") or workload.network_gateway is not None:
            continue
        if not tunnelled and nowhere(str(where)):
            continue
        if workload.status is not Health.HEALTHY and not everyone:
            continue
        yield Backend(
            where,
            target,
            str(workload.identity) if tunnelled else "",
            workload.workload_name or workload.name,
            workload.capacity,
            workload.namespace,
            workload.canonical_name,
            workload.canonical_revision,
            workload.cluster_id,
            node=workload.node,
            locality=workload.locality,
        )


def left_out(endpoints: Iterable[str]) -> Condition | None:
    """What is said of endpoints, addresses or names, that no proxy sends to; None where there are none."""
    found = [one for one in endpoints if not one.startswith("unix://") and nowhere(one)]
    if not found:
        return None
    why = (
        "addresses of machines' own, and names for them, are nobody's endpoints: waypoints and gateways leave them out"
    )
    return Condition(ALLOWED, "False", "Forbidden", f"{', '.join(found)[:300]}: {why}")
