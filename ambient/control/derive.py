"""Kubernetes objects in, what the mesh is told out: workloads, services, policies and status conditions. Pure.

The same records always give the same result, whatever came before; whoever needs deltas compares two results. Forms
and names are those of Istio's control plane, so that its proxies and tools understand them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ambient.control.derive_peer import PeerModes, peer_modes
from ambient.control.derive_policy import PolicySet, policy_set
from ambient.control.derive_select import ByLabel
from ambient.control.derive_service import derive_service, endpoint_ports
from ambient.kube.objects import Condition, Namespace, Node, Pod, Record, Records
from ambient.kube.objects import Service as KubeService
from ambient.model.policy import Authorization
from ambient.model.workload import Health, Locality, NetworkMode, Port, Service, TunnelProtocol, Workload

REDIRECTION = "ambient.istio.io/redirection"
"""Annotation that says the node has enrolled the pod ("enabled"): from then on peers speak HBONE to it."""
TUNNEL = "networking.istio.io/tunnel"
USE_WAYPOINT = "istio.io/use-waypoint"
NETWORK = "topology.istio.io/network"


@dataclass(frozen=True, slots=True)
class DeriveSettings:
    """What of the mesh's configuration matters here. `network` "" means: the label of the root namespace, if any."""

    cluster_id: str = "Kubernetes"
    trust_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    domain: str = "cluster.local"
    network: str = ""
    dry_run_policies: bool = False
    trust_domain_aliases: frozenset[str] = frozenset()
    """Other names of our trust domain: principals of policies that name one of them mean all of them."""


@dataclass(frozen=True, slots=True)
class Derived:
    """Values by their xDS name; conditions by record key (`()` where we own the type but have nothing to say)."""

    workloads: Mapping[str, Workload] = field(default_factory=lambda: MappingProxyType({}))
    services: Mapping[str, Service] = field(default_factory=lambda: MappingProxyType({}))
    policies: Mapping[str, Authorization] = field(default_factory=lambda: MappingProxyType({}))
    conditions: Mapping[str, tuple[Condition, ...]] = field(default_factory=lambda: MappingProxyType({}))


def derive(records: Records, settings: DeriveSettings) -> Derived:
    """Everything the mesh needs to know about these objects."""
    network = settings.network or _network(records, settings.root_namespace)
    namespaces = {namespace.name: namespace for namespace in records.of(Namespace)}
    services: dict[str, Service] = {}
    conditions: dict[str, tuple[Condition, ...]] = {}
    kube_services = [s for s in records.of(KubeService) if s.type != "ExternalName"]
    for kube_service in kube_services:
        labels = namespaces[kube_service.namespace].labels if kube_service.namespace in namespaces else {}
        annotations = namespaces[kube_service.namespace].annotations if kube_service.namespace in namespaces else {}
        service = derive_service(kube_service, annotations, network, settings.domain)
        if service is not None:
            services[service.key] = service
        conditions[kube_service.key] = _waypoint_bound(kube_service, labels)
    aliases = settings.trust_domain_aliases
    authorization = policy_set(
        records,
        settings.root_namespace,
        dry_run=settings.dry_run_policies,
        same_domains=aliases | {settings.trust_domain} if aliases else aliases,
    )
    modes = peer_modes(records, settings.root_namespace)
    conditions.update(authorization.conditions)
    nodes = {node.name: node for node in records.of(Node)}
    by_key = {service.key: service for service in kube_services}
    selectors = ByLabel()
    for kube_service in kube_services:
        if kube_service.selector:
            selectors.add(kube_service.namespace, kube_service.selector, kube_service.key)
    workloads = {}
    for pod in records.of(Pod):
        if pod.ips and pod.phase not in ("Succeeded", "Failed"):
            behind = [by_key[key] for key in sorted(selectors.names(pod.namespace, pod.labels))]
            locality = _locality(nodes.get(pod.node_name))
            workload = _workload(pod, behind, locality, network, settings, authorization, modes)
            workloads[workload.uid] = workload
    return Derived(
        MappingProxyType(workloads),
        MappingProxyType(services),
        MappingProxyType({**authorization.policies, **modes.policies}),
        MappingProxyType(conditions),
    )


def _network(records: Records, root_namespace: str) -> str:
    root = records.find(Namespace, "", root_namespace)
    return root.labels.get(NETWORK, "") if root is not None else ""


def _workload(
    pod: Pod,
    behind: list[KubeService],
    locality: Locality,
    network: str,
    settings: DeriveSettings,
    authorization: PolicySet,
    modes: PeerModes,
) -> Workload:
    ports: dict[str, tuple[Port, ...]] = {}
    for service in behind:
        hostname = f"{service.name}.{service.namespace}.svc.{settings.domain}"
        ports[f"{service.namespace}/{hostname}"] = endpoint_ports(service, pod)
    native = pod.labels.get(TUNNEL) == "http"
    hbone = native or pod.annotations.get(REDIRECTION) == "enabled"
    name = workload_name(pod)
    labels = pod.labels
    return Workload(
        uid=f"{settings.cluster_id}//Pod/{pod.namespace}/{pod.name}",
        name=pod.name,
        namespace=pod.namespace,
        addresses=pod.ips,
        network=network,
        tunnel_protocol=TunnelProtocol.HBONE if hbone else TunnelProtocol.NONE,
        trust_domain=settings.trust_domain,
        service_account=pod.service_account,
        node=pod.node_name,
        canonical_name=_first(labels, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app") or name,
        canonical_revision=_first(labels, "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
        or "latest",
        workload_name=name,
        native_tunnel=native,
        authorization_policies=(*authorization.selecting(pod), *modes.selecting(pod)),
        status=Health.HEALTHY if pod.ready and not pod.deleting else Health.UNHEALTHY,
        cluster_id=settings.cluster_id,
        services=MappingProxyType(ports),
        locality=locality,
        network_mode=NetworkMode.HOST_NETWORK if pod.host_network else NetworkMode.STANDARD,
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


def _first(labels: Mapping[str, str], *names: str) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _locality(node: Node | None) -> Locality:
    if node is None:
        return Locality()
    return Locality(
        node.labels.get("topology.kubernetes.io/region", ""),
        node.labels.get("topology.kubernetes.io/zone", ""),
        node.labels.get("topology.istio.io/subzone", ""),
    )


def _waypoint_bound(service: Record, namespace_labels: Mapping[str, str]) -> tuple[Condition, ...]:
    """No waypoints are known to this control plane yet: whoever asks for one is told that it is not ready."""
    labels = service.labels if USE_WAYPOINT in service.labels else namespace_labels
    wanted = labels.get(USE_WAYPOINT, "none")
    if wanted == "none":
        return ()
    name = f"{labels.get(f'{USE_WAYPOINT}-namespace') or service.namespace}/{wanted}"
    return (Condition("istio.io/WaypointBound", "False", "WaypointIsNotReady", f'waypoint "{name}" is not ready'),)
