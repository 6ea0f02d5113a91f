"""What ztunnel's DNS answers to a pod, from the mesh alone (Istio's rules for captured DNS).

Only A and AAAA of known names are answered; everything else goes upstream. A name is tried as asked and with the
cluster's search suffixes taken off or put on, each from most to least specific wildcard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ambient.model.address import IpAddress
from ambient.model.mesh import Mesh, hostname_name, service_name, workload_name
from ambient.model.workload import Health, HealthPolicy, Service, Workload

TTL_S = 30


@dataclass(frozen=True, slots=True)
class Resolution:
    """`known` False: ask upstream. Else `addresses` of the family asked for (maybe none, in a stable order; the
    server shuffles). `canonical`: the name that matched when a search suffix was taken off (a CNAME leads to it)."""

    known: bool
    addresses: tuple[IpAddress, ...] = ()
    canonical: str = ""
    depends: frozenset[str] = frozenset()


def resolve_name(
    mesh: Mesh,
    client: Workload,
    name: str,
    qtype: str,
    domain: str = "cluster.local",
    *,
    preferred_namespace: str = "",
    ipv6: bool = True,
) -> Resolution:
    """Answer a question of `client`. `name` without final dot, any case; `qtype` "A" or "AAAA", others are not known.

    `domain` is the cluster's; `ipv6` False gives no AAAA answers for known names.
    """
    asked = name.rstrip(".").lower()
    depends = {workload_name(client.uid)}
    if qtype not in ("A", "AAAA") or not asked:
        return Resolution(False, depends=frozenset(depends))
    for alias, stripped in aliases(asked, client.namespace, domain):
        for candidate in wildcards(alias):
            depends.add(hostname_name(candidate))
            service = mesh.service_by_hostname(candidate, client.namespace, preferred_namespace)
            found = _of_service(mesh, service, client, domain) if service is not None else None
            if service is not None:
                depends.add(service_name(service.key))
            if found is None:
                workload = mesh.workload_by_hostname(candidate)
                found = workload.addresses if workload is not None and workload.addresses else None
            if found is None:
                found = _of_pod(mesh, candidate, client, domain, depends)
            if found is not None:
                version = 6 if qtype == "AAAA" else 4
                fitting = tuple(ip for ip in found if ip.version == version and (ipv6 or version == 4))
                return Resolution(
                    True, fitting, candidate if stripped and candidate == alias else "", frozenset(depends)
                )
    return Resolution(False, depends=frozenset(depends))


def aliases(name: str, namespace: str, domain: str) -> Iterator[tuple[str, bool]]:
    """(name, False), then what it may stand for in this namespace; True where a search suffix was taken off."""
    seen: set[str] = set()
    suffixes = (f".{namespace}.svc.{domain}", f".svc.{domain}", f".{domain}")
    # A resolver with search domains asks for "db.example.com.shop.svc.cluster.local" first: the suffix goes again.
    bases = [(name, False)] + [(name.removesuffix(s), True) for s in suffixes if name.endswith(s) and name != s]
    for base, stripped in bases:
        for alias in (base, *_expansions(base, namespace, domain)):
            if alias not in seen:
                seen.add(alias)
                yield alias, stripped


def _expansions(name: str, namespace: str, domain: str) -> tuple[str, ...]:
    """Full names under the cluster's domain that a short name may mean."""
    labels = name.split(".")
    in_svc = labels[-1] == "svc"
    match len(labels):
        case 1:
            return (f"{name}.{namespace}.svc.{domain}",)
        case 2:
            return (f"{name}.svc.{domain}", f"{name}.{namespace}.svc.{domain}")
        case 3 if in_svc:
            return (f"{name}.{domain}", f"{name}.svc.{domain}")
        case 3:
            return (f"{name}.svc.{domain}",)
        case 4 if in_svc:
            return (f"{name}.{domain}",)
    return ()


def wildcards(name: str) -> Iterator[str]:
    """www.example.com, then *.example.com, then *.com."""
    yield name
    labels = name.split(".")
    for i in range(1, len(labels)):
        yield ".".join(("*", *labels[i:]))


def _of_service(mesh: Mesh, service: Service, client: Workload, domain: str) -> tuple[IpAddress, ...] | None:
    """Its virtual addresses on the client's network; a headless one under the cluster's domain gives its endpoints."""
    vips = tuple(vip.ip for vip in service.addresses if vip.network == client.network and vip.prefix_length is None)
    if vips:
        return vips
    if service.addresses or not service.hostname.endswith(f".svc.{domain}"):
        return None
    everybody = service.load_balancing.health_policy is HealthPolicy.ALLOW_ALL
    return tuple(
        ip
        for endpoint in mesh.endpoints(service.key)
        if (everybody or endpoint.workload.status is Health.HEALTHY) and endpoint.workload.network == client.network
        if not endpoint.workload.refused
        for ip in endpoint.workload.addresses
    )


def _of_pod(mesh: Mesh, name: str, client: Workload, domain: str, depends: set[str]) -> tuple[IpAddress, ...] | None:
    """`<pod>.<headless service>.<namespace>.svc.<domain>`: that pod's addresses."""
    suffix = f".svc.{domain}"
    labels = name.removesuffix(suffix).split(".")
    if not name.endswith(suffix) or len(labels) != 3 or labels[0] == "*":
        return None
    key = f"{labels[2]}/{labels[1]}.{labels[2]}{suffix}"
    service = mesh.service(key)
    if service is None or service.addresses:
        return None
    depends.add(service_name(key))
    for endpoint in mesh.endpoints(key):
        if endpoint.workload.name == labels[0] and endpoint.workload.network == client.network:
            return endpoint.workload.addresses
    return None
