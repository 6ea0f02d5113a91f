"""Service: virtual addresses, ports and who is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Common, Shape, read_common
from ambient.kube.read import Field, Object
from ambient.kube.records import Service, ServicePort
from ambient.model.address import IpAddress, parse_ip

SHAPE: Final = Shape(("v1",), True, syntax.dns_label_1035, ("spec",))

_SPEC: Final = syntax.words(
    "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName externalTrafficPolicy"
    " healthCheckNodePort internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancerClass loadBalancerIP"
    " loadBalancerSourceRanges ports publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig"
    " trafficDistribution type"
)
_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_FAMILIES: Final = ("IPv4", "IPv6")
_POLICIES: Final = ("SingleStack", "PreferDualStack", "RequireDualStack")
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")
_LOCAL: Final = ("Cluster", "Local")


def parse_service(top: Object, raw: Mapping[str, Any]) -> Service:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(_SPEC)
    kind = spec.read("type", lambda field: field.one_of(_TYPES), "ClusterIP")
    selector = MappingProxyType(spec.text_map("selector", syntax.label))
    ports = spec.each("ports", _port)
    _check_ports(spec, ports)
    if kind == "ExternalName":
        return _external(common, spec, selector, ports)
    headless, cluster_ips = _cluster_ips(spec)
    if headless and kind != "ClusterIP":
        raise spec.need("clusterIP").refuse(f"a {kind} service cannot be headless")
    if not ports and not headless:
        raise Field(None, "spec.ports", top.at.what).refuse("a service needs at least one port")
    families = spec.each("ipFamilies", lambda field: field.one_of(_FAMILIES))
    _check_families(spec, families, cluster_ips)
    return Service(
        **common,
        type=kind,
        selector=selector,
        ports=ports,
        headless=headless,
        cluster_ips=cluster_ips,
        ip_families=families,
        ip_family_policy=spec.read("ipFamilyPolicy", lambda field: field.one_of(_POLICIES), ""),
        publish_not_ready=spec.flag("publishNotReadyAddresses"),
        internal_traffic_policy=spec.read("internalTrafficPolicy", lambda f: f.one_of(_LOCAL), "Cluster"),
        external_traffic_policy=spec.read("externalTrafficPolicy", lambda f: f.one_of(_LOCAL), "Cluster"),
        traffic_distribution=spec.read("trafficDistribution", lambda f: f.one_of(_DISTRIBUTIONS), ""),
        session_affinity=spec.read("sessionAffinity", lambda f: f.one_of(("None", "ClientIP")), "None"),
        balanced=_balanced(raw.get("status")) if kind == "LoadBalancer" else (),
    )


def _balanced(status: object) -> tuple[str, ...]:
    """What a load balancer says of it. What is no address is passed over: none of it is the owner's."""
    entries = _below(_below(status, "loadBalancer"), "ingress")
    found = []
    for entry in entries if isinstance(entries, list) else ():
        address, name = _below(entry, "ip"), _below(entry, "hostname")
        if isinstance(address, str) and not syntax.ip(address):
            found.append(address)
        elif isinstance(name, str) and not syntax.dns_subdomain(name):
            found.append(name)
    return tuple(found)


def _below(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None


def _external(common: Common, spec: Object, selector: Mapping[str, str], ports: tuple[ServicePort, ...]) -> Service:
    for forbidden in spec.present("clusterIP", "clusterIPs"):
        if spec.need(forbidden).value not in ("", []):
            raise spec.need(forbidden).refuse("an ExternalName service has no cluster address")
    name = spec.need("externalName").text().removesuffix(".")
    complaint = syntax.dns_subdomain(name)
    if complaint:
        raise spec.need("externalName").refuse(complaint)
    return Service(**common, type="ExternalName", selector=selector, ports=ports, external_name=name)


def _cluster_ips(spec: Object) -> tuple[bool, tuple[IpAddress, ...]]:
    one = spec.text("clusterIP")
    several = spec.texts("clusterIPs")
    if one and several and several[0] != one:
        raise spec.need("clusterIPs").refuse(f"its first entry must equal clusterIP ({one!r})")
    if not several and one:
        several = (one,)
    if "None" in several:
        if len(several) > 1:
            raise spec.need("clusterIPs").refuse("'None' cannot stand beside addresses")
        return True, ()
    if len(several) > 2:
        raise spec.need("clusterIPs").refuse("at most one address of each family")
    where = spec.need("clusterIPs" if spec.get("clusterIPs") else "clusterIP") if several else spec.at
    addresses = []
    for text in several:
        if syntax.ip(text):
            raise where.refuse(f"{text!r} is not an IP address (or 'None')")
        addresses.append(parse_ip(text))
    if len({address.version for address in addresses}) < len(addresses):
        raise where.refuse("the two addresses must be of different families")
    return False, tuple(addresses)


def _check_families(spec: Object, families: tuple[str, ...], addresses: tuple[IpAddress, ...]) -> None:
    if len(set(families)) != len(families):
        raise spec.need("ipFamilies").refuse("a family may be named once")
    if spec.text("ipFamilyPolicy") == "SingleStack" and (len(families) > 1 or len(addresses) > 1):
        raise spec.need("ipFamilyPolicy").refuse("SingleStack allows one family only")
    for family, address in zip(families, addresses, strict=False):
        if family != f"IPv{address.version}":
            raise spec.need("ipFamilies").refuse(f"{family} does not fit the address {address}")


def _port(field: Field) -> ServicePort:
    entry = field.object(("port", "targetPort", "name", "protocol", "appProtocol", "nodePort"))
    number = entry.need("port").port()
    target = entry.get("targetPort")
    return ServicePort(
        number,
        _target(target) if target else number,
        entry.read("name", lambda f: f.checked(syntax.dns_label), ""),
        entry.read("protocol", lambda f: f.one_of(("TCP", "UDP", "SCTP")), "TCP"),
        entry.read("appProtocol", lambda f: f.checked(syntax.qualified_name), ""),
        entry.integer("nodePort", 0, 0, 65535),
    )


def _target(field: Field) -> int | str:
    if isinstance(field.value, str):
        return field.checked(syntax.port_name)
    return field.port()


def _check_ports(spec: Object, ports: tuple[ServicePort, ...]) -> None:
    if len(ports) > 1 and any(not port.name for port in ports):
        raise spec.need("ports").refuse("with several ports every one needs a name")
    names = [port.name for port in ports]
    pairs = [(port.port, port.protocol) for port in ports]
    for i, port in enumerate(ports):
        if port.name and port.name in names[:i]:
            raise spec.need("ports").refuse(f"two ports are called {port.name!r}")
        if pairs[i] in pairs[:i]:
            raise spec.need("ports").refuse(f"port {port.port}/{port.protocol} is there twice")
