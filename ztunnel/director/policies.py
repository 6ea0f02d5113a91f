"""What discovery says about one local pod, put into the form workers get: identity, policy set, labels. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ambient.model.authority import stands_in_front
from ambient.model.identity import Identity
from ambient.model.mesh import Mesh
from ambient.model.outcome import ServiceLabels
from ambient.model.route import peer_labels
from ambient.model.waypoints import open_ports, waypoint_principals
from ambient.model.workload import Service, TunnelProtocol, Workload
from ztunnel.ipc.messages import PodPolicy


@dataclass(frozen=True, slots=True)
class PodInfo:
    """Who a pod is, as the node agent tells it. `uid` is Kubernetes' pod UID."""

    uid: str
    name: str
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Site:
    """Where this ztunnel is. `only_waypoints`: what has a waypoint takes connections from nobody else."""

    node: str
    cluster_id: str
    trust_domain: str
    network: str
    only_waypoints: bool = True


def workload_of(mesh: Mesh, site: Site, pod: PodInfo) -> Workload | None:
    """The pod as discovery knows it: by its canonical uid, else by name on this node. Not known is, too, of whom we
    understood nothing: which policies select it may be what we did not understand."""
    found = mesh.workload(f"{site.cluster_id}//Pod/{pod.namespace}/{pod.name}")
    found = found or mesh.local_workload(pod.namespace, pod.name, site.node)
    return None if found is None or found.refused else found


def source_of(mesh: Mesh, site: Site, pod: PodInfo) -> Workload:
    """The pod as the source of a connection. One that discovery does not know yet is known well enough by its
    agent: name, namespace and account are all that routing asks of a source."""
    return workload_of(mesh, site, pod) or Workload(
        uid=f"{site.cluster_id}//Pod/{pod.namespace}/{pod.name}",
        name=pod.name,
        namespace=pod.namespace,
        service_account=pod.service_account,
        trust_domain=site.trust_domain,
        network=site.network,
        node=site.node,
        cluster_id=site.cluster_id,
        workload_name=pod.name,
        tunnel_protocol=TunnelProtocol.HBONE,
    )


def identity_of(mesh: Mesh, site: Site, pod: PodInfo) -> str:
    """SPIFFE id: trust domain from discovery (ours until it knows the pod), the rest from the agent (interop 3.4)."""
    workload = workload_of(mesh, site, pod)
    trust_domain = workload.trust_domain if workload else site.trust_domain
    return str(Identity(trust_domain, pod.namespace, pod.service_account))


def pod_policy(mesh: Mesh, site: Site, pod: PodInfo) -> PodPolicy:
    """All that `decide` needs about the pod; not `known` until discovery has told us about it."""
    workload = workload_of(mesh, site, pod)
    if workload is not None and workload.service_account != pod.service_account:
        workload = None  # discovery still speaks of the predecessor of that name
    source = source_of(mesh, site, pod)
    if workload is None:
        return PodPolicy(known=False, own=peer_labels(source), baggage=baggage(source))
    chosen = mesh.policies_of(workload)
    found = (mesh.service(key) for key in sorted(workload.services))
    services = [service for service in found if service is not None]
    return PodPolicy(
        known=True,
        policies=chosen.policies,
        missing=chosen.missing,
        own=peer_labels(workload),
        addresses=tuple(str(ip) for ip in workload.addresses),
        waypoint_principals=waypoint_principals(mesh, workload) if site.only_waypoints else (),
        services=tuple(ServiceLabels(service.hostname, service.namespace, service.name) for service in services),
        baggage=baggage(workload),
        service_ports=service_ports(workload, services),
        open_ports=open_ports(mesh, workload),
        application_tunnel=workload.application_tunnel,
        fronts=stands_in_front(mesh, workload),
    )


def service_ports(workload: Workload, services: Sequence[Service]) -> tuple[tuple[str, int, int], ...]:
    """(hostname, service port, port of this pod): what a tunnel to a host name means here (interop 1.6).

    The pod's own port for a service port counts before the service's; of one name in several namespaces the pod's own.
    """
    meaning: dict[tuple[str, int], int] = {}
    for service in sorted(services, key=lambda service: service.namespace != workload.namespace):
        own = {port.service_port: port.target_port for port in workload.services[service.key]}
        for port in service.ports:
            target = own.get(port.service_port, 0) or port.target_port
            if target:
                meaning.setdefault((service.hostname, port.service_port), target)
    return tuple((hostname, port, target) for (hostname, port), target in meaning.items())


def baggage(workload: Workload) -> str:
    """The `baggage` header of what this workload sends (interop 1.4): empty values left out, nothing encoded."""
    pairs = (
        ("k8s.cluster.name", workload.cluster_id),
        ("k8s.namespace.name", workload.namespace),
        (f"k8s.{workload.workload_type.name.lower()}.name", workload.workload_name),
        ("service.name", workload.canonical_name),
        ("service.version", workload.canonical_revision),
        ("cloud.region", workload.locality.region),
        ("cloud.availability_zone", workload.locality.zone),
    )
    return ",".join(f"{key}={value}" for key, value in pairs if value)
