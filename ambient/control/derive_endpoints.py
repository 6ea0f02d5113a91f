"""What is behind a port of a service, and behind the subsets that DestinationRules make of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ambient.control.derive_traffic_policy import policy_of
from ambient.kube.networking import DestinationRule, ServiceEntry, WorkloadEntry
from ambient.kube.objects import Pod, Records
from ambient.kube.traffic_values import TrafficPolicy
from ambient.model.balance import port_of
from ambient.model.mesh import ServiceEndpoint
from ambient.model.workload import AppProtocol, Health, HealthPolicy, Port, Service, TunnelProtocol, Workload
from ambient.waypoint.front import Backend, FrontPort, Protocol, Subset

_PROTOCOLS: Final[Mapping[AppProtocol, Protocol]] = {
    AppProtocol.HTTP11: Protocol.HTTP,
    AppProtocol.HTTP2: Protocol.HTTP2,
    AppProtocol.GRPC: Protocol.HTTP2,
    AppProtocol.TCP: Protocol.TCP,
    AppProtocol.TLS: Protocol.TCP,
}

_TLS: Final = frozenset({"SIMPLE", "MUTUAL"})


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
        protocol = _PROTOCOLS.get(port.app_protocol, Protocol.AUTO)
        number = port.service_port
        subsets = tuple(
            Subset(
                one.name,
                _spoken_to(backends_of(service, labels.fitting(workloads, one.labels), number), policy),
                policy,
            )
            for one in (rule.subsets if rule is not None else ())
            for policy in (policy_of(rule, number, one),)
        )
        policy = policy_of(rule, number)
        backends = _spoken_to(backends_of(service, workloads, number), policy)
        ports.append(FrontPort(number, protocol, backends, policy, subsets))
    return tuple(ports)


def _spoken_to(backends: Iterable[Backend], policy: TrafficPolicy) -> tuple[Backend, ...]:
    """Where TLS is asked for, which no proxy here begins: none outside of the mesh, rather than in plain text."""
    tls = policy.tls is not None and policy.tls.mode in _TLS
    return tuple(one for one in backends if one.identity or not tls)


def by_number(ports: Iterable[Port]) -> list[Port]:
    """Each number once: one that is there for TCP and for UDP is the port that somebody gave a protocol."""
    found: dict[int, Port] = {}
    for port in ports:
        if port.service_port not in found or found[port.service_port].app_protocol is AppProtocol.UNKNOWN:
            found[port.service_port] = port
    return list(found.values())


def backends_of(service: Service, behind: Iterable[Workload], port: int) -> Iterable[Backend]:
    """Those that a waypoint can send to."""
    everyone = service.load_balancing.health_policy is HealthPolicy.ALLOW_ALL
    for workload in behind:
        target = port_of(service, ServiceEndpoint(workload, workload.services[service.key]), port)
        # What stands for another network, or has no address but a name, is nothing a waypoint can dial yet.
        if not target or not workload.addresses or workload.network_gateway is not None:
            continue
        if workload.status is not Health.HEALTHY and not everyone:
            continue
        tunnelled = workload.tunnel_protocol is not TunnelProtocol.NONE
        yield Backend(
            workload.addresses[0],
            target,
            str(workload.identity) if tunnelled else "",
            workload.workload_name or workload.name,
            workload.capacity,
            workload.namespace,
            workload.canonical_name,
            workload.canonical_revision,
            workload.cluster_id,
        )
