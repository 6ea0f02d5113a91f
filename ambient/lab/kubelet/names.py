"""The cluster's DNS names as a pure function of its objects: what CoreDNS answers in a Kubernetes cluster.

Services (A, AAAA, SRV, CNAME for ExternalName), headless Services and the pods below them, pods by address, and
the reverse of all these. Names of anything else do not exist: nothing is forwarded.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ambient.kube.objects import Pod, Records, Service
from ambient.lab.endpoints import Backend, backends, target_port
from ambient.model.address import IpAddress

DOMAIN = "cluster.local"


class Code(enum.IntEnum):
    """DNS response codes in use."""

    OK = 0
    NO_NAME = 3


@dataclass(frozen=True, slots=True)
class Srv:
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`addresses` answer A/AAAA (all families, the server picks), `alias` is a CNAME's target.

    `code` OK with nothing in it: the name exists, but not with this type.
    """

    code: Code = Code.OK
    addresses: tuple[IpAddress, ...] = ()
    services: tuple[Srv, ...] = ()
    alias: str = ""
    pointer: str = ""


NOTHING = Answer(Code.NO_NAME)


@dataclass(frozen=True, slots=True)
class Zone:
    """All names of one snapshot of the cluster."""

    services: Mapping[tuple[str, str], Service] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    namespaces: frozenset[str] = frozenset()
    domain: str = DOMAIN

    def resolve(self, name: str) -> Answer:
        """The answer for a full name (no trailing dot needed, case does not matter)."""
        labels = name.lower().rstrip(".").split(".")
        if labels[-2:] == ["in-addr", "arpa"] or labels[-2:] == ["ip6", "arpa"]:
            return self._reverse(labels)
        suffix = self.domain.split(".")
        if labels[-len(suffix) :] != suffix:
            return NOTHING
        inner = labels[: -len(suffix)]
        match inner:
            case [] | ["svc"] | ["pod"]:
                return Answer()
            case [namespace, "svc" | "pod"]:
                return Answer() if namespace in self.namespaces else NOTHING
            case [*host, service, namespace, "svc"]:
                return self._service(host, service, namespace)
            case [dashed, namespace, "pod"]:
                return self._pod(dashed, namespace)
        return NOTHING

    def _service(self, host: list[str], name: str, namespace: str) -> Answer:
        service = self.services.get((namespace, name))
        if service is None:
            return NOTHING
        chosen = backends(service, self.pods)
        match host:
            case []:
                if service.external_name:
                    return Answer(alias=service.external_name)
                if service.headless:
                    return Answer(addresses=tuple(ip for backend in chosen for ip in backend.pod.ips))
                return Answer(addresses=service.cluster_ips)
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                return self._srv(service, chosen, port[1:], protocol[1:])
            case [one] if service.headless:
                found = tuple(ip for backend in chosen for ip in backend.pod.ips if one in _hosts(service, backend.pod))
                return Answer(addresses=found) if found else NOTHING
        return NOTHING

    def _srv(self, service: Service, chosen: Iterable[Backend], name: str, protocol: str) -> Answer:
        base = f"{service.name}.{service.namespace}.svc.{self.domain}"
        found = []
        for port in service.ports:
            if (port.name, port.protocol.lower()) != (name, protocol):
                continue
            if not service.headless:
                found.append(Srv(port.port, base))
                continue
            for backend in chosen:
                number = target_port(port, backend.pod)
                if number is not None:
                    found.append(Srv(number, f"{_hosts(service, backend.pod)[0]}.{base}"))
        return Answer(services=tuple(found)) if found else NOTHING

    def _pod(self, dashed: str, namespace: str) -> Answer:
        for pod in self.pods:
            if pod.namespace == namespace:
                for ip in pod.ips:
                    if _dashed(ip) == dashed:
                        return Answer(addresses=(ip,))
        return NOTHING

    def _reverse(self, labels: list[str]) -> Answer:
        ip = _reversed_address(labels)
        if ip is None:
            return NOTHING
        for service in self.services.values():
            base = f"{service.name}.{service.namespace}.svc.{self.domain}"
            if ip in service.cluster_ips:
                return Answer(pointer=base)
            if service.headless:
                for backend in backends(service, self.pods):
                    if ip in backend.pod.ips:
                        return Answer(pointer=f"{_hosts(service, backend.pod)[0]}.{base}")
        return NOTHING


def zone(records: Records) -> Zone:
    """The names of a snapshot."""
    return Zone(
        {(service.namespace, service.name): service for service in records.of(Service)},
        tuple(records.of(Pod)),
        frozenset(key.split("/")[2] for key in records.by_key if key.startswith("Namespace/")),
    )


def _dashed(ip: IpAddress) -> str:
    return str(ip).replace(".", "-").replace(":", "-")


def _hosts(service: Service, pod: Pod) -> list[str]:
    """What a pod is called below a headless service, the canonical name first."""
    names = [_dashed(ip) for ip in pod.ips]
    if pod.hostname and pod.subdomain == service.name:
        return [pod.hostname, *names]
    return names


def _reversed_address(labels: list[str]) -> IpAddress | None:
    parts = labels[-3::-1]
    try:
        if labels[-2] == "in-addr":
            return ip_address(".".join(parts))
        digits = "".join(parts)
        if len(parts) != 32 or len(digits) != 32:
            return None
        return ip_address(":".join(digits[i : i + 4] for i in range(0, 32, 4)))
    except ValueError:
        return None
