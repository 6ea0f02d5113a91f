"""Workloads and services in the form that Istio's ztunnel shows and reads them (config dump, local file) as values.

A field that is not what it should be is InvalidInput with its place. Keys that are not known are ignored here: a dump
belongs to another program and may be of a newer version; `check_keys` is for files that people write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from ambient.errors import InvalidInput
from ambient.model.address import parse_ip
from ambient.model.fields import Fields
from ambient.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Health,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    Locality,
    NamespacedHostname,
    NetworkAddress,
    NetworkMode,
    Port,
    Scope,
    Service,
    TunnelPreamble,
    TunnelProtocol,
    Visibility,
    WeightedWaypoint,
    Workload,
    WorkloadType,
)

WORKLOAD_KEYS: Final = frozenset(
    (
        *(
            "uid",
            "name",
            "namespace",
            "workloadIps",
            "network",
            "protocol",
            "trustDomain",
            "serviceAccount",
            "waypoint",
        ),
        *("node", "canonicalName", "canonicalRevision", "workloadType", "workloadName", "nativeTunnel", "status"),
        *("authorizationPolicies", "clusterId", "networkGateway", "hostname", "services", "applicationTunnel"),
        *("locality", "networkMode", "capacity"),
    )
)
SERVICE_KEYS: Final = frozenset(
    (
        *("name", "namespace", "hostname", "vips", "cidrVips", "ports", "endpoints", "subjectAltNames", "waypoint"),
        *("loadBalancer", "ipFamilies", "canonical", "weightedWaypoints", "visibility"),
    )
)


def check_keys(fields: Fields, known: Collection[str]) -> None:
    """Raises InvalidInput when there is a key that is not known."""
    unknown = sorted(set(map(str, fields.raw)) - set(known))
    if unknown:
        raise InvalidInput("unknown field", fields.where, ", ".join(unknown))


def read_ports(fields: Fields, key: str) -> tuple[Port, ...]:
    """A map of service port to target port; raises InvalidInput."""
    ports = fields.mapping(key)
    try:
        numbers = sorted((int(service), int(target)) for service, target in ports.items())
        return tuple(Port(service, target) for service, target in numbers)
    except (ValueError, TypeError):
        raise InvalidInput("not a port map", f"{fields.where}.{key}", f"{dict(ports)!r}") from None


def read_workload(fields: Fields, services: Mapping[str, tuple[Port, ...]]) -> Workload:
    """One entry of `workloads`; `services` are kept elsewhere in every form of it. Raises InvalidInput."""
    locality = fields.nested("locality")
    tunnel = fields.nested("applicationTunnel")
    return Workload(
        uid=fields.text("uid"),
        name=fields.text("name"),
        namespace=fields.text("namespace"),
        addresses=tuple(parse_ip(ip) for ip in fields.texts("workloadIps")),
        network=fields.text("network", ""),
        tunnel_protocol=fields.choice("protocol", {"HBONE": TunnelProtocol.HBONE, "TCP": TunnelProtocol.NONE}),
        trust_domain=fields.text("trustDomain", "cluster.local"),
        service_account=fields.text("serviceAccount", "default"),
        waypoint=_gateway(fields.nested("waypoint")),
        node=fields.text("node", ""),
        canonical_name=fields.text("canonicalName", ""),
        canonical_revision=fields.text("canonicalRevision", ""),
        workload_type=fields.choice("workloadType", {t.name.lower(): t for t in WorkloadType}, "pod"),
        workload_name=fields.text("workloadName", ""),
        native_tunnel=fields.boolean("nativeTunnel"),
        authorization_policies=fields.texts("authorizationPolicies"),
        status=fields.choice("status", {h.name.title(): h for h in Health}, "Healthy"),
        cluster_id=fields.text("clusterId", "Kubernetes"),
        network_gateway=_gateway(fields.nested("networkGateway")),
        hostname=fields.text("hostname", ""),
        services=dict(services),
        application_tunnel=None
        if tunnel is None
        else ApplicationTunnel(
            tunnel.choice("protocol", {p.name: p for p in TunnelPreamble}, "NONE"), tunnel.number("port", 0)
        ),
        locality=Locality(locality.text("region", ""), locality.text("zone", ""), locality.text("subzone", ""))
        if locality
        else Locality(),
        network_mode=fields.choice(
            "networkMode", {"Standard": NetworkMode.STANDARD, "HostNetwork": NetworkMode.HOST_NETWORK}, "Standard"
        ),
        capacity=fields.number("capacity", 1),
        refused=fields.text("refused", ""),
    )


def read_service(fields: Fields) -> Service:
    """One entry of `services`; raises InvalidInput."""
    balancing = fields.nested("loadBalancer")
    return Service(
        name=fields.text("name"),
        namespace=fields.text("namespace"),
        hostname=fields.text("hostname"),
        addresses=tuple(_address(text) for text in (*fields.texts("vips"), *_ranges(fields))),
        ports=read_ports(fields, "ports"),
        subject_alt_names=fields.texts("subjectAltNames"),
        waypoint=_gateway(fields.nested("waypoint")),
        load_balancing=_balancing(balancing) if balancing else LoadBalancing(),
        ip_families=fields.choice(
            "ipFamilies",
            {
                "": IpFamilies.AUTOMATIC,
                "IPv4": IpFamilies.IPV4_ONLY,
                "IPv6": IpFamilies.IPV6_ONLY,
                "Dual": IpFamilies.DUAL,
            },
            "",
        ),
        canonical=fields.boolean("canonical"),
        weighted_waypoints=tuple(
            WeightedWaypoint(gateway, entry.number("weight", 1))
            for entry in fields.each("weightedWaypoints")
            if (gateway := _gateway(entry.nested("destination"))) is not None
        ),
        visibility=fields.choice("visibility", {v.name.title(): v for v in Visibility}, "Public"),
        refused=fields.text("refused", ""),
    )


def _balancing(fields: Fields) -> LoadBalancing:
    scopes = {scope.name.title(): scope for scope in Scope} | {"Subzone": Scope.SUBZONE}
    for preference in fields.texts("routingPreferences"):
        if preference not in scopes:
            raise InvalidInput("unknown routing preference", fields.where, repr(preference))
    health = {"OnlyHealthy": HealthPolicy.ONLY_HEALTHY, "AllowAll": HealthPolicy.ALLOW_ALL}
    return LoadBalancing(
        fields.choice("mode", {mode.name.title(): mode for mode in LoadBalancingMode}, "Standard"),
        tuple(scopes[preference] for preference in fields.texts("routingPreferences")),
        fields.choice("healthPolicy", health, "OnlyHealthy"),
    )


def _ranges(fields: Fields) -> tuple[str, ...]:
    entries = fields.raw.get("cidrVips") or []
    return tuple(entry if isinstance(entry, str) else f"{entry['network']}/{entry['cidr']}" for entry in entries)


def _address(text: str) -> NetworkAddress:
    """ "network/ip" or "network/ip/length"; the network may be empty."""
    network, _, rest = text.partition("/")
    ip, _, length = rest.partition("/")
    if length and not length.isdigit():
        raise InvalidInput("not a network address", repr(text), "the prefix length is no number")
    return NetworkAddress(network, parse_ip(ip), int(length) if length else None)


def _gateway(fields: Fields | None) -> GatewayAddress | None:
    if fields is None:
        return None
    text = fields.text("destination")
    first, _, second = text.partition("/")
    try:
        destination: NamespacedHostname | NetworkAddress = NetworkAddress(first, parse_ip(second))
    except InvalidInput:
        destination = NamespacedHostname(first, second)
    return GatewayAddress(destination, fields.number("hboneMtlsPort", 15008))
