"""Where a Gateway is reached, as its Service says, and as its owner wants it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ambient.kube import syntax
from ambient.kube.networking import Gateway, TypedAddress
from ambient.kube.objects import Condition, Service
from ambient.waypoint.deploy import is_ingress, is_managed, name_of

PROGRAMMED: Final = "Programmed"
Find = Callable[[str, str], Service | None]
"""The Service of a namespace and name."""


def addresses(gateway: Gateway, find: Find, domain: str) -> tuple[TypedAddress, ...]:
    """Of a Gateway of ours, () while its Service has none: a waypoint's name; of an ingress what a load balancer has
    given it, else the Service's own addresses. Where the owner named a Service of his own, that name."""
    if not is_managed(gateway):
        return tuple(one for one in gateway.wanted if _names_one(one, gateway.namespace, find, domain))
    service = find(gateway.namespace, name_of(gateway))
    if service is None or not service.cluster_ips:
        return ()
    if not is_ingress(gateway):
        return (TypedAddress("Hostname", f"{service.name}.{service.namespace}.svc.{domain}"),)
    given = service.balanced or tuple(str(one) for one in service.cluster_ips)
    return tuple(TypedAddress("Hostname" if syntax.ip(one) else "IPAddress", one) for one in given)


def unmet(gateway: Gateway) -> Condition | None:
    """Of an ingress with addresses: what its owner asked for and has not been given."""
    missing = [one.value for one in gateway.wanted if one not in gateway.assigned]
    if not missing or not is_ingress(gateway):
        return None
    return Condition(PROGRAMMED, "False", "AddressNotUsable", f"{', '.join(missing)} cannot be had; the others serve")


def _names_one(address: TypedAddress, namespace: str, find: Find, domain: str) -> bool:
    """It is the name of a Service of the Gateway's namespace."""
    if address.type != "Hostname":
        return False
    name, _, rest = address.value.partition(".")
    return rest in (f"{namespace}.svc", f"{namespace}.svc.{domain}") and find(namespace, name) is not None
