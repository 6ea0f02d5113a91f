"""Workloads that are called by their own addresses, as Envoy's resources. Pure.

One internal listener for all of an account's workloads and each protocol: it carries a connection to the address that
the CONNECT named, and the table of CONNECTs leads to it from the addresses of these workloads alone. So there are as
many resources as accounts, however many pods there are, and nobody gets anywhere else through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ambient.kube.traffic_values import TrafficPolicy
from ambient.waypoint.access import METADATA
from ambient.waypoint.balance import balancing
from ambient.waypoint.front import Called, Direct, Front, FrontPort, Protocol, authority
from ambient.waypoint.resilience import resilience
from ambient.waypoint.routes import cluster_name
from ambient.waypoint.service import RAW, internal, protocol_options
from ambient.waypoint.tunnel import ORIGINAL_DST, ORIGINATE
from ambient.waypoint.typed import Message, filter_state, typed

_NUMBER: Final = 0
"""Stands for any port: no service has it."""
_DIALLED: Final = f"{ORIGINAL_DST}.local_ip"


@dataclass(frozen=True, slots=True)
class Face:
    """What stands for workloads in everything that is judged, where one protocol is spoken. `names`: what CONNECTs to
    them ask for."""

    front: Front
    port: FrontPort
    names: tuple[str, ...]


def faces(direct: Direct) -> Iterator[Face]:
    """One for each protocol."""
    found: dict[Protocol, list[str]] = {}
    for workload in direct.workloads:
        for protocol, names in _names(workload).items():
            found.setdefault(protocol, []).extend(names)
    for protocol, names in sorted(found.items(), key=lambda one: one[0].value):
        port = FrontPort(_NUMBER, protocol)
        front = Front(
            direct.namespace,
            f"{protocol.value}.{direct.account}.{direct.namespace}.workloads",
            (),
            (port,),
            direct.policies,
            tokens=direct.tokens,
            providers=direct.providers,
            unnamed=True,
        )
        yield Face(front, port, tuple(dict.fromkeys(names)))


def _names(workload: Called) -> Mapping[Protocol, list[str]]:
    """The ports whose protocol is known by their numbers, any other by the address alone."""
    found: dict[Protocol, list[str]] = {Protocol.AUTO: []}
    for address in workload.addresses:
        found[Protocol.AUTO].append(f"{authority(address, _NUMBER)[:-1]}*")
        for number, protocol in workload.declared:
            found.setdefault(protocol, []).append(authority(address, number))
    return found


def handed_on(direct: Direct, listener: Message) -> Message:
    """As a service's, but that it tells the tunnel which address was dialled."""
    if not direct.identity:
        return listener
    again = filter_state(_DIALLED, f"%FILTER_STATE({_DIALLED}:PLAIN)%")
    handed = typed("ambient.dialled", "filters.network.set_filter_state.v3.Config", on_new_connection=[again])
    chains = [{**one, "filters": [handed, *one["filters"]]} for one in listener["filter_chains"]]
    return {**listener, "filter_chains": chains}


def direct_cluster(direct: Direct, front: Front, port: FrontPort, kind: str) -> Message:
    """Where connections go: into a tunnel to the address that was dialled, or, to workloads without, straight there."""
    name = cluster_name(front.hostname, port.number, kind)
    made: Message = {"name": name, **resilience(TrafficPolicy()), **protocol_options(port, kind, TrafficPolicy())}
    if not direct.identity:
        return {**made, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "transport_socket": RAW}
    told = {METADATA: {"san": direct.identity}, "istio": {"workload": f";{direct.namespace};;;"}}
    tunnel = {
        "endpoint": {"address": {"envoy_internal_address": {"server_listener_name": ORIGINATE}}},
        "metadata": {"filter_metadata": told},
    }
    return {
        **made,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [tunnel]}]},
        "transport_socket": internal((METADATA,)),
        **balancing(None),
    }
