"""The config dump's JSON, value for value as Istio's ztunnel writes it (interop 7.3). Pure: values in, data out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from ambient.model.workload import (
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    NetworkMode,
    Port,
    Scope,
    Service,
    TunnelPreamble,
    TunnelProtocol,
    Visibility,
    Workload,
)
from ztunnel.ipc.messages import LiveConnection

Json = dict[str, Any]

_FAMILIES: Final = {IpFamilies.IPV4_ONLY: "IPv4", IpFamilies.IPV6_ONLY: "IPv6", IpFamilies.DUAL: "Dual"}
_SCOPES: Final = {
    PolicyScope.GLOBAL: "Global",
    PolicyScope.NAMESPACE: "Namespace",
    PolicyScope.WORKLOAD_SELECTOR: "WorkloadSelector",
}
_MODES: Final = {
    LoadBalancingMode.STANDARD: "Standard",
    LoadBalancingMode.STRICT: "Strict",
    LoadBalancingMode.FAILOVER: "Failover",
    LoadBalancingMode.PASSTHROUGH: "Passthrough",
}
_MATCH_LISTS: Final = (
    ("namespaces", "namespaces"),
    ("not_namespaces", "notNamespaces"),
    ("principals", "principals"),
    ("not_principals", "notPrincipals"),
    ("service_accounts", "serviceAccounts"),
    ("not_service_accounts", "notServiceAccounts"),
    ("source_ips", "sourceIps"),
    ("not_source_ips", "notSourceIps"),
    ("destination_ips", "destinationIps"),
    ("not_destination_ips", "notDestinationIps"),
    ("destination_ports", "destinationPorts"),
    ("not_destination_ports", "notDestinationPorts"),
)


def render(parts: Mapping[str, Any]) -> bytes:
    """The text of a dump: two blanks of indentation, keys in order."""
    return json.dumps(parts, indent=2, sort_keys=True).encode() + b"\n"


def workload(value: Workload) -> Json:
    """One entry of `workloads`; what equals its default is left out where Istio leaves it out."""
    row: Json = {
        "workloadIps": [str(ip) for ip in value.addresses],
        "protocol": "HBONE" if value.tunnel_protocol is TunnelProtocol.HBONE else "TCP",
        "networkMode": "HostNetwork" if value.network_mode is NetworkMode.HOST_NETWORK else "Standard",
        "name": value.name,
        "namespace": value.namespace,
        "status": value.status.name.title(),
        "clusterId": value.cluster_id,
        "capacity": value.capacity,
        "workloadType": value.workload_type.name.lower(),
    }
    optional: Json = {
        "uid": value.uid,
        "waypoint": _gateway(value.waypoint),
        "networkGateway": _gateway(value.network_gateway),
        "hostname": value.hostname,
        "trustDomain": value.trust_domain,
        "serviceAccount": value.service_account,
        "network": value.network,
        "workloadName": value.workload_name,
        "canonicalName": value.canonical_name,
        "canonicalRevision": value.canonical_revision,
        "node": value.node,
        "nativeTunnel": value.native_tunnel,
        "authorizationPolicies": list(value.authorization_policies),
        "services": sorted(value.services),
        "refused": value.refused,
    }
    row.update((key, content) for key, content in optional.items() if content)
    locality = value.locality
    if locality.region or locality.zone or locality.subzone:
        row["locality"] = {"region": locality.region, "zone": locality.zone, "subzone": locality.subzone}
    tunnel = value.application_tunnel
    if tunnel is not None:
        protocol = "PROXY" if tunnel.protocol is TunnelPreamble.PROXY else "NONE"
        row["applicationTunnel"] = {"protocol": protocol, "port": tunnel.port or None}
    return row


def static_workload(value: Workload) -> Json:
    """One entry of a local file's `workloads`: there, services come with the ports they have at the workload."""
    ports = {key: _ports(found) for key, found in value.services.items()}
    return {**{key: content for key, content in workload(value).items() if key != "services"}, "services": ports}


def services(values: Iterable[Service], workloads: Iterable[Workload]) -> list[Json]:
    """`services` with the endpoints that workloads say they are."""
    endpoints: dict[str, Json] = {}
    for one in workloads:
        for key, ports in one.services.items():
            entry = {"port": _ports(ports), "status": one.status.name.title(), "workloadUid": one.uid}
            endpoints.setdefault(key, {})[one.uid] = entry
    return [_service(value, endpoints.get(value.key, {})) for value in values]


def policy(value: Authorization) -> Json:
    """One entry of `policies`: rules, clauses, matches as nested lists; `ruleNumbers` (ours) if some are left out."""
    entry: Json = {
        "name": value.name,
        "namespace": value.namespace,
        "scope": _SCOPES[value.scope],
        "action": "Deny" if value.action is Action.DENY else "Allow",
        "rules": [[[_match(match) for match in clause] for clause in rule] for rule in value.rules],
        "dryRun": value.dry_run,
    }
    if value.numbers:
        entry["ruleNumbers"] = list(value.numbers)
    return entry


def pod_state(name: str, namespace: str, account: str, *, up: bool, connections: Iterable[LiveConnection]) -> Json:
    """One entry of `workloadState`."""
    directions: dict[str, list[Json]] = {"inbound": [], "outbound": []}
    for one in connections:
        directions["inbound" if one.direction == "inbound" else "outbound"].append(
            {
                "src": one.src,
                "originalDst": one.original_dst or None,
                "actualDst": one.actual_dst,
                "protocol": one.protocol,
            }
        )
    return {
        "state": "Up" if up else "Pending",
        "info": {"name": name, "namespace": namespace, "serviceAccount": account},
        "connections": directions,
    }


def _service(value: Service, endpoints: Json) -> Json:
    row: Json = {
        "name": value.name,
        "namespace": value.namespace,
        "hostname": value.hostname,
        "vips": [f"{vip.network}/{vip.ip}" for vip in value.addresses if vip.prefix_length is None],
        "ports": _ports(value.ports),
        "endpoints": endpoints,
        "subjectAltNames": list(value.subject_alt_names),
        "visibility": "Namespace" if value.visibility is Visibility.NAMESPACE else "Public",
    }
    ranges = [vip for vip in value.addresses if vip.prefix_length is not None]
    optional: Json = {
        "cidrVips": [{"network": vip.network, "cidr": f"{vip.ip}/{vip.prefix_length}"} for vip in ranges],
        "waypoint": _gateway(value.waypoint),
        "weightedWaypoints": [
            {"destination": _gateway(one.destination), "weight": one.weight} for one in value.weighted_waypoints
        ],
        "ipFamilies": _FAMILIES.get(value.ip_families, ""),
        "canonical": value.canonical,
        "refused": value.refused,
    }
    row.update((key, content) for key, content in optional.items() if content)
    if value.load_balancing != LoadBalancing():
        row["loadBalancer"] = _balancing(value.load_balancing)
    return row


def _balancing(value: LoadBalancing) -> Json:
    return {
        "mode": _MODES[value.mode],
        "routingPreferences": [_scope(scope) for scope in value.routing_preference],
        "healthPolicy": "AllowAll" if value.health_policy is HealthPolicy.ALLOW_ALL else "OnlyHealthy",
    }


def _scope(scope: Scope) -> str:
    return scope.name.title()


def _ports(ports: Iterable[Port]) -> dict[str, int]:
    return {str(port.service_port): port.target_port for port in ports}


def _gateway(gateway: GatewayAddress | None) -> Json | None:
    if gateway is None:
        return None
    return {"destination": str(gateway.destination), "hboneMtlsPort": gateway.hbone_port}


def _match(match: Match) -> Json:
    row: Json = {}
    for attribute, key in _MATCH_LISTS:
        members = getattr(match, attribute)
        if not members:
            continue
        if attribute.endswith("service_accounts"):
            row[key] = [{"namespace": m.namespace, "serviceAccount": m.service_account} for m in members]
        elif attribute.endswith("ports"):
            row[key] = list(members)
        elif attribute.endswith("ips"):
            row[key] = [str(network) for network in members]
        else:
            row[key] = [_string(one) for one in members]
    return row


def _string(match: StringMatch) -> Json:
    if match.kind is StringMatchKind.PRESENCE:
        return {"Presence": []}
    return {match.kind.name.title(): match.value}
