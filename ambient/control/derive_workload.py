"""Pod and WorkloadEntry -> the Workload that ztunnels know. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ambient.control.derive_endpoints import left_out
from ambient.control.derive_network import gateway_of
from ambient.control.derive_peer import peer_policies
from ambient.control.derive_service import endpoint_ports, entry_endpoint_ports, hostname_of, outside_ports
from ambient.control.derive_waypoint import bind, instance_tunnel
from ambient.control.derive_world import World
from ambient.kube import syntax
from ambient.kube.joined import UNHEALTHY, is_joined, joined_node
from ambient.kube.networking import Endpoint, WorkloadEntry
from ambient.kube.objects import Condition, Node, Pod, Record
from ambient.kube.objects import Service as KubeService
from ambient.model.address import IpAddress, parse_ip
from ambient.model.workload import Health, Locality, NetworkMode, Port, TunnelProtocol, Workload

REDIRECTION: Final = "ambient.istio.io/redirection"
"""Annotation that says the node has enrolled the pod ("enabled"): from then on peers speak HBONE to it."""
TUNNEL: Final = "networking.istio.io/tunnel"
_ENDED: Final = ("Succeeded", "Failed")
_NOWHERE: Final = Locality()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address outside of pods is, as its object writes it."""

    addresses: tuple[IpAddress, ...]
    hostname: str
    network: str
    locality: Locality


def pod_workload(pod: Pod, world: World) -> Workload | None:
    """None for pods that have no address or have ended."""
    if not pod.ips or pod.phase in _ENDED:
        return None
    settings = world.settings
    native, protocol = _tunnel(pod, pod.labels)
    name = workload_name(pod)
    canonical, revision = canonical_names(pod.labels, name)
    return Workload(
        uid=f"{settings.cluster_id}//Pod/{pod.namespace}/{pod.name}",
        name=pod.name,
        namespace=pod.namespace,
        addresses=pod.ips,
        network=world.network,
        tunnel_protocol=protocol,
        trust_domain=settings.trust_domain,
        service_account=pod.service_account,
        waypoint=bind(world, pod, pod.labels, "workload").address,
        node=pod.node_name,
        canonical_name=canonical,
        canonical_revision=revision,
        workload_name=name,
        native_tunnel=native,
        authorization_policies=policies_of(world, pod.namespace, pod.labels),
        status=Health.HEALTHY if pod.ready and not pod.deleting else Health.UNHEALTHY,
        cluster_id=settings.cluster_id,
        services=_services_of_pod(pod, world),
        application_tunnel=instance_tunnel(world, pod.namespace, pod.labels),
        locality=node_locality(world.find(Node, "", pod.node_name)),
        network_mode=NetworkMode.HOST_NETWORK if pod.host_network else NetworkMode.STANDARD,
    )


def entry_workload(entry: WorkloadEntry, world: World) -> tuple[Workload | None, tuple[Condition, ...]]:
    """A WorkloadEntry and what to say of its waypoint; no workload where its address is a socket of some machine."""
    labels = entry.merged_labels
    binding = bind(world, entry, labels, "workload")
    where = place_of(entry.endpoint, world)
    if where is None:
        return None, binding.conditions
    settings = world.settings
    native, protocol = _tunnel(entry, labels)
    canonical, revision = canonical_names(labels, entry.name)
    services: dict[str, tuple[Port, ...]] = {}
    for service in world.services_selecting(entry.namespace, labels):
        services[f"{service.namespace}/{hostname_of(service, settings.domain)}"] = outside_ports(
            service, entry.endpoint
        )
    for selecting in world.entries_selecting(entry.namespace, labels):
        for host in selecting.hosts:
            services.setdefault(f"{entry.namespace}/{host}", entry_endpoint_ports(selecting, entry.endpoint.ports))
    workload = Workload(
        uid=f"{settings.cluster_id}/networking.istio.io/WorkloadEntry/{entry.namespace}/{entry.name}",
        name=entry.name,
        namespace=entry.namespace,
        addresses=where.addresses,
        hostname=where.hostname,
        network=where.network,
        tunnel_protocol=protocol,
        trust_domain=settings.trust_domain,
        service_account=entry.endpoint.service_account or "default",
        waypoint=binding.address,
        canonical_name=canonical,
        canonical_revision=revision,
        workload_name=entry.name,
        node=joined_node(entry.namespace, entry.name) if is_joined(entry.annotations) else "",
        status=Health.UNHEALTHY if _unwell(entry) else Health.HEALTHY,
        native_tunnel=native,
        authorization_policies=policies_of(world, entry.namespace, labels),
        cluster_id=settings.cluster_id,
        network_gateway=gateway_of(world, where.network),
        services=MappingProxyType(services),
        locality=where.locality,
        capacity=entry.endpoint.weight or 1,
    )
    said = left_out([entry.endpoint.address]) if protocol is TunnelProtocol.NONE else None
    return workload, binding.conditions if said is None else (*binding.conditions, said)


def _unwell(entry: WorkloadEntry) -> bool:
    """Its machine says so (ours by annotation, others' by condition)."""
    healthy = entry.condition("Healthy")
    return bool(entry.annotations.get(UNHEALTHY)) or (healthy is not None and healthy.status == "False")


def place_of(endpoint: Endpoint, world: World) -> Place | None:
    """None for a socket in some machine's file system, which nobody else can reach."""
    if endpoint.address.startswith("unix://"):
        return None
    named = bool(endpoint.address) and syntax.ip(endpoint.address) != ""
    region, zone, subzone = (*endpoint.locality.split("/"), "", "")[:3]
    return Place(
        () if named or not endpoint.address else (parse_ip(endpoint.address),),
        endpoint.address if named else "",
        endpoint.network or world.network,
        Locality(region, zone, subzone),
    )


def policies_of(world: World, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the policies that apply to a workload beside those of its whole namespace and of the mesh."""
    return (*world.policies_selecting(namespace, labels), *peer_policies(world, namespace, labels))


def canonical_names(labels: Mapping[str, str], name: str) -> tuple[str, str]:
    """Canonical name and revision; without any label the workload's own name and "latest"."""
    return (
        _first(labels, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app") or name,
        _first(labels, "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version") or "latest",
    )


def workload_name(pod: Pod) -> str:
    """What made the pod: the Deployment behind a ReplicaSet, the CronJob behind a Job, the owner, else the pod."""
    label = pod.labels.get("service.istio.io/workload-name", "")
    if label:
        return label
    if pod.owner is None:
        return pod.name
    kind, owner = pod.owner
    template = pod.labels.get("pod-template-hash", "")
    if kind == "ReplicaSet" and template and owner.endswith(f"-{template}"):
        return owner.removesuffix(f"-{template}")
    base, _, stamp = owner.rpartition("-")
    if kind == "Job" and base and stamp.isdigit() and len(stamp) >= 8:
        return base
    return pod.name if kind == "Node" else owner


def _services_of_pod(pod: Pod, world: World) -> Mapping[str, tuple[Port, ...]]:
    found: dict[str, tuple[Port, ...]] = {}
    domain = world.settings.domain

    def behind(service: KubeService) -> None:
        found.setdefault(f"{service.namespace}/{hostname_of(service, domain)}", endpoint_ports(service, pod))

    for service in world.services_selecting(pod.namespace, pod.labels):
        behind(service)
    for part in world.slices_with(pod):
        by_hand = world.find(KubeService, part.namespace, part.service)
        if by_hand is not None and not by_hand.selector and by_hand.type != "ExternalName":
            behind(by_hand)
    for entry in world.entries_selecting(pod.namespace, pod.labels):
        for host in entry.hosts:
            found.setdefault(f"{pod.namespace}/{host}", entry_endpoint_ports(entry, {}))
    return MappingProxyType(found)


def _tunnel(record: Record, labels: Mapping[str, str]) -> tuple[bool, TunnelProtocol]:
    native = labels.get(TUNNEL) == "http"
    hbone = native or record.annotations.get(REDIRECTION) == "enabled"
    return native, TunnelProtocol.HBONE if hbone else TunnelProtocol.NONE


def _first(labels: Mapping[str, str], *names: str) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def node_locality(node: Node | None) -> Locality:
    """Of its pods, and of proxies on it; nowhere for one that is not known."""
    if node is None:
        return _NOWHERE
    return Locality(
        node.labels.get("topology.kubernetes.io/region", ""),
        node.labels.get("topology.kubernetes.io/zone", ""),
        node.labels.get("topology.istio.io/subzone", ""),
    )
