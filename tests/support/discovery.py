"""Model values with every field set, and protobuf messages to break, for tests of protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from ambient.model.policy import (
    Action,
    Authorization,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from ambient.model.workload import (
    ApplicationTunnel,
    AppProtocol,
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
from ambient.xds.wire import message

STRANGE_FIELD = b"\xf2\x07\x03new"
"""Field 126, text: what a newer sender might add."""


def simple_workload(name: str, **changes: Any) -> Workload:
    """A mesh pod `Kubernetes//Pod/ns/<name>` on node n1, with the account `sa-<name>`."""
    workload = Workload(
        uid=f"Kubernetes//Pod/ns/{name}",
        name=name,
        namespace="ns",
        service_account=f"sa-{name}",
        tunnel_protocol=TunnelProtocol.HBONE,
        node="n1",
    )
    return replace(workload, **changes)


def simple_policy(name: str, **changes: Any) -> Authorization:
    policy = Authorization(name=name, namespace="ns", scope=PolicyScope.NAMESPACE, action=Action.DENY)
    return replace(policy, **changes)


def rich_workload(**changes: Any) -> Workload:
    by_name = GatewayAddress(NamespacedHostname("ns", "wp.example"), 15009)
    workload = Workload(
        uid="c1//Pod/ns/full",
        name="full",
        namespace="ns",
        addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
        network="net-1",
        tunnel_protocol=TunnelProtocol.HBONE,
        trust_domain="other.example",
        service_account="sa",
        waypoint=by_name,
        node="n1",
        canonical_name="canon",
        canonical_revision="v2",
        workload_type=WorkloadType.JOB,
        workload_name="owner",
        native_tunnel=True,
        authorization_policies=("ns/a", "root/b"),
        status=Health.UNHEALTHY,
        cluster_id="c1",
        network_gateway=GatewayAddress(NetworkAddress("net-2", ip_address("192.0.2.1"))),
        hostname="h.example",
        services={
            "ns/a.example": (Port(80, 8080, AppProtocol.HTTP2), Port(443, 0, AppProtocol.TLS)),
            "ns/b.example": (),
        },
        application_tunnel=ApplicationTunnel(TunnelPreamble.PROXY, 15088),
        locality=Locality("r", "z", "s"),
        network_mode=NetworkMode.HOST_NETWORK,
        capacity=7,
    )
    return replace(workload, **changes)


def rich_service(**changes: Any) -> Service:
    gateway = GatewayAddress(NamespacedHostname("ns", "wp.example"))
    service = Service(
        name="svc",
        namespace="ns",
        hostname="svc.example",
        addresses=(
            NetworkAddress("net-1", ip_address("10.96.0.1")),
            NetworkAddress("", ip_address("fd00::"), 64),
            NetworkAddress("", ip_address("0.0.0.0"), 0),
        ),
        ports=(Port(80, 8080, AppProtocol.HTTP11),),
        subject_alt_names=("spiffe://cluster.local/ns/a/sa/b",),
        waypoint=gateway,
        load_balancing=LoadBalancing(
            LoadBalancingMode.FAILOVER, (Scope.NETWORK, Scope.REGION, Scope.ZONE), HealthPolicy.ALLOW_ALL
        ),
        ip_families=IpFamilies.DUAL,
        canonical=True,
        weighted_waypoints=(WeightedWaypoint(gateway, 30),),
        visibility=Visibility.NAMESPACE,
    )
    return replace(service, **changes)


def rich_policy(**changes: Any) -> Authorization:
    strings = (
        StringMatch(StringMatchKind.EXACT, "a"),
        StringMatch(StringMatchKind.PREFIX, "b"),
        StringMatch(StringMatchKind.SUFFIX, "c"),
        StringMatch(StringMatchKind.PRESENCE),
    )
    networks = (ip_network("10.0.0.0/8"), ip_network("fc00::/7"), ip_network("0.0.0.0/0"))
    accounts = (ServiceAccountMatch("ns", "sa"),)
    match = Match(
        namespaces=strings,
        not_namespaces=strings,
        principals=strings,
        not_principals=strings,
        service_accounts=accounts,
        not_service_accounts=accounts,
        source_ips=networks,
        not_source_ips=networks,
        destination_ips=networks,
        not_destination_ips=networks,
        destination_ports=(0, 80, 65535),
        not_destination_ports=(81,),
    )
    rules = (((match, Match()), ()), ())
    policy = Authorization(
        name="p", namespace="ns", scope=PolicyScope.GLOBAL, action=Action.DENY, rules=rules, dry_run=True
    )
    return replace(policy, **changes)


def policy_wire() -> Any:
    wire = message("istio.security.Authorization")(name="p", namespace="ns")
    wire.rules.add().clauses.add().matches.add()
    return wire


def workload_wire() -> Any:
    address = message("istio.workload.Address")()
    address.workload.uid = "u"
    address.workload.namespace = "ns"
    return address


def service_wire() -> Any:
    address = message("istio.workload.Address")()
    address.service.namespace, address.service.hostname = "ns", "h"
    return address


def setting_of(path: str, **fields: Any) -> Callable[[Any], None]:
    """Set fields of the message at a dotted path; `[]` adds an element."""

    def change(wire: Any) -> None:
        for step in path.split(".") if path else ():
            wire = getattr(wire, step[:-2]).add() if step.endswith("[]") else getattr(wire, step)
        wire.SetInParent()
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(wire, name).extend(value)
            else:
                setattr(wire, name, value)

    return change
