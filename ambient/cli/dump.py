"""A ztunnel's `/config_dump` read back into the model, so that the CLI decides with the same functions as ztunnel.

The border for this JSON: a field that is not what Istio's ztunnel writes is InvalidInput with its place. Keys we do
not use are ignored, since the dump belongs to another program and may be of a newer version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ambient.cli.dump_policies import read_policy
from ambient.cli.fields import Fields
from ambient.errors import InvalidInput
from ambient.model.address import parse_ip
from ambient.model.policy import Authorization
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

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dump:
    """One node's view. The `raw_*` lists are the entries as they came, for `-o json`."""

    node: str
    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    policies: tuple[Authorization, ...]
    raw: Json

    def entries(self, key: str) -> list[Json]:
        """The list under a top-level key (an object there counts as the list of its values, as istioctl has it)."""
        return _entries(self.raw, key, self.node)

    @property
    def registry_only(self) -> bool:
        """The node refuses what is in nobody's registry (Istio's ztunnel does not know that, nor say so)."""
        config = Fields(self.raw, f"config dump of {self.node}").nested("config")
        return config is not None and config.boolean("registryOnly")

    @property
    def network(self) -> str:
        """The network that the node is on."""
        config = Fields(self.raw, f"config dump of {self.node}").nested("config")
        return "" if config is None else config.text("network", "")

    @property
    def states(self) -> Mapping[str, Json]:
        """Pod uid -> {state, info, connections}."""
        return Fields(self.raw, f"config dump of {self.node}").mapping("workloadState")


def parse_dump(text: str | bytes, node: str) -> Dump:
    """Read the text of a dump; raises InvalidInput."""
    where = f"config dump of {node}"
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InvalidInput("not JSON", where, str(error)) from None
    if not isinstance(raw, dict):
        raise InvalidInput("not a config dump", where, "expected an object")
    services = [Fields(entry, f"{where}: services[{n}]") for n, entry in enumerate(_entries(raw, "services", node))]
    ports = _ports_by_workload(services)
    workloads = (
        _workload(Fields(entry, f"{where}: workloads[{n}]"), ports)
        for n, entry in enumerate(_entries(raw, "workloads", node))
    )
    policies = (
        read_policy(Fields(entry, f"{where}: policies[{n}]")) for n, entry in enumerate(_entries(raw, "policies", node))
    )
    return Dump(node, tuple(workloads), tuple(_service(entry) for entry in services), tuple(policies), raw)


def _entries(raw: Json, key: str, node: str) -> list[Json]:
    value = raw.get(key) or []
    entries = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidInput("not a config dump", f"config dump of {node}: {key}", "expected a list of objects")
    return entries


def _ports_by_workload(services: Iterable[Fields]) -> dict[str, dict[str, tuple[Port, ...]]]:
    """Workload uid -> service key -> ports: the dump keeps them with the service's endpoints."""
    found: dict[str, dict[str, tuple[Port, ...]]] = {}
    for service in services:
        key = f"{service.text('namespace')}/{service.text('hostname')}"
        endpoints = service.mapping("endpoints")
        for uid in endpoints:
            endpoint = Fields(endpoints[uid], f"{service.where}.endpoints.{uid}")
            found.setdefault(endpoint.text("workloadUid", uid), {})[key] = _ports(endpoint, "port")
    return found


def _ports(fields: Fields, key: str) -> tuple[Port, ...]:
    ports = fields.mapping(key)
    try:
        numbers = sorted((int(service), int(target)) for service, target in ports.items())
        return tuple(Port(service, target) for service, target in numbers)
    except (ValueError, TypeError):
        raise InvalidInput("not a port map", f"{fields.where}.{key}", f"{dict(ports)!r}") from None


def _workload(fields: Fields, ports: Mapping[str, Mapping[str, tuple[Port, ...]]]) -> Workload:
    uid = fields.text("uid")
    locality = fields.nested("locality")
    tunnel = fields.nested("applicationTunnel")
    return Workload(
        uid=uid,
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
        services=dict(ports.get(uid, {})),
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


def _service(fields: Fields) -> Service:
    balancing = fields.nested("loadBalancer")
    return Service(
        name=fields.text("name"),
        namespace=fields.text("namespace"),
        hostname=fields.text("hostname"),
        addresses=tuple(_address(text) for text in (*fields.texts("vips"), *_ranges(fields))),
        ports=_ports(fields, "ports"),
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
