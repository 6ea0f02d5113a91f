"""Which waypoint stands before a service or a workload, and what to say when the one that is asked for does not. Pure.

A waypoint is a Gateway of a waypoint's class that has an address. Labels on the thing itself go before those of its
namespace; where a waypoint is asked for and cannot be had there is none, and the condition says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ambient.control.derive_world import World
from ambient.kube.networking import Gateway, GatewayClass, Listener
from ambient.kube.objects import Condition, Record
from ambient.model.address import HBONE_PORT, parse_ip, port_number
from ambient.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    TunnelPreamble,
    WeightedWaypoint,
)

BOUND: Final = "istio.io/WaypointBound"
USE: Final = "istio.io/use-waypoint"
CANARY: Final = "istio.io/use-waypoint-canary"
CANARY_WEIGHT: Final = "istio.io/use-waypoint-canary-weight"
FOR: Final = "istio.io/waypoint-for"
WITHOUT: Final = "ambient.mesh/without-waypoint"
"""Annotation of a Service or a namespace: what becomes of a service whose waypoint cannot be had. "deny": nobody
reaches it; "l4", which is also what holds without it: it is called directly, by ztunnels' policies alone."""
BINDING: Final = "ambient.istio.io/waypoint-inbound-binding"
GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"
MANAGED: Final = "gateway.istio.io/managed"
_MANAGED_MESH: Final = "istio.io-mesh-controller"
_CONTROLLERS: Final = frozenset({"istio.io/mesh-controller", "istio.io/agentgateway-waypoint-controller"})
_CLASSES: Final = frozenset({"istio-waypoint", "istio-agentgateway-waypoint"})
_TRAFFIC: Final = {"service": "services", "workload": "workloads"}


@dataclass(frozen=True, slots=True)
class Waypoint:
    """`traffic` is service, workload, all or none. `tunnel`: how its pods want to be handed what is for them."""

    namespace: str
    name: str
    address: GatewayAddress
    traffic: str
    listener: Listener
    tunnel: ApplicationTunnel | None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Binding:
    """`weighted`: with a canary, both with their shares. `conditions`: () where no waypoint is asked for. `name`: the
    waypoint's, "" where there is none."""

    address: GatewayAddress | None = None
    weighted: tuple[WeightedWaypoint, ...] = ()
    conditions: tuple[Condition, ...] = ()
    name: str = ""


_NONE: Final = Binding()


def waypoint(world: World, namespace: str, name: str) -> Waypoint | None:
    """A waypoint that is ready, else None."""
    gateway = world.find(Gateway, namespace, name)
    if gateway is None:
        return None
    of_class = world.find(GatewayClass, "", gateway.class_name)
    binding = _tunnel(gateway.annotations.get(BINDING) or (of_class.annotations.get(BINDING, "") if of_class else ""))
    known = gateway.class_name in _CLASSES or (of_class is not None and of_class.controller in _CONTROLLERS)
    address = _address(gateway, world.network)
    if address is None or not (known or binding):
        return None
    labels = of_class.labels if of_class is not None else {}
    return Waypoint(
        namespace,
        name,
        address,
        gateway.labels.get(FOR) or labels.get(FOR) or "service",
        next((one for one in gateway.listeners if one.port == HBONE_PORT), gateway.listeners[0]),
        binding,
    )


def bind(world: World, record: Record, labels: Mapping[str, str], traffic: str) -> Binding:
    """The waypoint for a service or workload (`traffic`) and what to say about it."""
    if labels.get(MANAGED) == _MANAGED_MESH:
        return _NONE  # a waypoint does not stand behind another
    source: Mapping[str, str] = labels
    annotations = record.annotations
    if USE not in labels:
        namespace = world.namespace(record.namespace)
        source = namespace.labels if namespace is not None else {}
        annotations = namespace.annotations if namespace is not None else {}
    wanted = _wanted(source, USE, record.namespace)
    if wanted is None:
        return _NONE
    found = _attached(world, wanted, record.namespace, traffic)
    if isinstance(found, Condition):
        return _without(world, record, wanted, found) if traffic == "service" else Binding(conditions=(found,))
    bound = Condition(BOUND, "True", "WaypointAccepted", f"Successfully attached to waypoint {found}")
    canary = _wanted(source, CANARY, record.namespace)
    if canary is None or traffic != "service":
        return Binding(found.address, (), (bound,), str(found))
    return _with_canary(world, record, found, canary, annotations.get(CANARY_WEIGHT, ""), bound)


def _without(world: World, record: Record, wanted: tuple[str, str], why: Condition) -> Binding:
    """A waypoint that nobody knows lets nobody pass: no client finds it, and no peer of the endpoints is it."""
    namespace = world.namespace(record.namespace)
    asked = record.annotations.get(WITHOUT) or (namespace.annotations.get(WITHOUT, "") if namespace is not None else "")
    if asked in ("", "l4"):
        return Binding(conditions=(why,))
    # A word that nobody knows was meant to close something.
    said = f"{why.message}; until then nobody reaches it ({WITHOUT}: {asked})"
    nowhere = NamespacedHostname(wanted[0], f"{wanted[1]}.{wanted[0]}.svc.{world.settings.domain}")
    return Binding(GatewayAddress(nowhere), conditions=(Condition(BOUND, "False", why.reason, said),))


def _with_canary(
    world: World, record: Record, primary: Waypoint, wanted: tuple[str, str], written: str, bound: Condition
) -> Binding:
    """A canary that cannot be used leaves everything with the primary."""

    def without(reason: str, why: str) -> Binding:
        said = Condition(BOUND, "False", reason, f"{why}; all goes to {primary}")
        return Binding(primary.address, (), (said,), str(primary))

    if wanted == (primary.namespace, primary.name):
        return without("CanarySameAsPrimary", f"{primary} is named as its own canary")
    if not (written.isascii() and written.isdigit() and int(written) <= 100):
        return without("CanaryInvalidWeight", f"annotation {CANARY_WEIGHT} is {written!r}, not 0..100")
    canary = _attached(world, wanted, record.namespace, "service")
    if isinstance(canary, Condition):
        return without(canary.reason, canary.message)
    weight = int(written)
    shares = (WeightedWaypoint(primary.address, 100 - weight), WeightedWaypoint(canary.address, weight))
    return Binding(primary.address, shares, (bound,), str(primary))


def instance_tunnel(world: World, namespace: str, labels: Mapping[str, str]) -> ApplicationTunnel | None:
    """How a waypoint's own pod wants what is for it; None for other pods."""
    name = labels.get(GATEWAY_NAME, "")
    found = waypoint(world, namespace, name) if name else None
    return found.tunnel if found is not None else None


def _wanted(labels: Mapping[str, str], label: str, namespace: str) -> tuple[str, str] | None:
    name = labels.get(label, "none")
    return None if name in ("none", "") else (labels.get(f"{label}-namespace") or namespace, name)


def _attached(world: World, wanted: tuple[str, str], namespace: str, traffic: str) -> Waypoint | Condition:
    """The waypoint, or why it cannot be had."""
    title = f'waypoint "{wanted[0]}/{wanted[1]}"'
    found = waypoint(world, *wanted)
    if found is None:
        return Condition(BOUND, "False", "WaypointIsNotReady", f"{title} is not ready")
    if not _allows(world, found, namespace):
        why = f"{title} does not let namespace {namespace} attach: allowedRoutes of its listener leave it out"
        return Condition(BOUND, "False", "AttachmentDenied", why)
    if found.traffic not in (traffic, "all"):
        why = f"{title} is for {_TRAFFIC.get(found.traffic, 'no')} traffic ({FOR}: {found.traffic})"
        return Condition(BOUND, "False", "UnsupportedTrafficType", f"{why}, not for {_TRAFFIC[traffic]}")
    return found


def _allows(world: World, found: Waypoint, namespace: str) -> bool:
    match found.listener.allowed:
        case "All":
            return True
        case "Same":
            return namespace == found.namespace
        case "Selector":
            asking = world.namespace(namespace)
            labels = dict(asking.labels) if asking is not None else {}
            return found.listener.namespaces.fits({"kubernetes.io/metadata.name": namespace, **labels})
    return False


def _address(gateway: Gateway, network: str) -> GatewayAddress | None:
    """By name where it has one: names outlive addresses."""
    for assigned in gateway.assigned:
        if assigned.type == "Hostname" and assigned.value:
            return GatewayAddress(NamespacedHostname(gateway.namespace, assigned.value))
    for assigned in gateway.assigned:
        if assigned.type == "IPAddress" and assigned.value:
            return GatewayAddress(NetworkAddress(network, parse_ip(assigned.value)))
    return None


def _tunnel(written: str) -> ApplicationTunnel | None:
    """ "PROXY/15088" or "NONE/15008"; what is written otherwise binds nothing."""
    protocol, _, port = written.partition("/")
    if protocol not in TunnelPreamble.__members__ or (port and not port_number(port)):
        return None
    return ApplicationTunnel(TunnelPreamble[protocol], port_number(port) if port else 0)
