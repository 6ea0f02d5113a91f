"""Which pods stand behind a Service, and on which ports. Pure; used by the node's Services and its DNS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ambient.kube.objects import Pod, Service, ServicePort
from ambient.model.address import IpAddress


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod behind a Service. `ready` is False for pods that only `publishNotReadyAddresses` lets in."""

    pod: Pod
    ready: bool


def backends(service: Service, pods: Iterable[Pod]) -> list[Backend]:
    """The pods a Service selects that have an address and have not ended, ordered by name.

    A Service without selector has none. Pods that are being deleted stay only where the Service publishes
    addresses that are not ready.
    """
    if not service.selector:
        return []
    wanted = service.selector.items()
    chosen = []
    for pod in pods:
        if pod.namespace != service.namespace or not wanted <= pod.labels.items():
            continue
        if not pod.ips or pod.phase in ("Succeeded", "Failed"):
            continue
        ready = pod.ready and not pod.deleting
        if ready or service.publish_not_ready:
            chosen.append(Backend(pod, ready))
    return sorted(chosen, key=lambda b: b.pod.name)


def target_port(port: ServicePort, pod: Pod) -> int | None:
    """The pod's port behind a Service port; None when the pod has no port of that name."""
    if isinstance(port.target, int):
        return port.target
    return pod.named_port(port.target, port.protocol)


def targets(port: ServicePort, chosen: Iterable[Backend], version: int) -> list[tuple[IpAddress, int]]:
    """(address, port) of every backend that has this family and this port."""
    found = []
    for backend in chosen:
        number = target_port(port, backend.pod)
        if number is not None:
            found += [(ip, number) for ip in backend.pod.ips if ip.version == version]
    return found
