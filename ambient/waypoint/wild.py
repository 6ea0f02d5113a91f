"""Ports whose endpoints are whatever their clients ask for, as Envoy's resources: an egress gateway's wildcard hosts.

Three things hold, whatever a client says: the name is below the service's own, the port is the service's own, and the
address is one that the agent beside Envoy has looked at (`ambient.waypoint.agent.names`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.model.forbidden import nowhere_below
from ambient.model.names import wildcards
from ambient.waypoint.bootstrap import ASKED_NAMES_PORT, resolver
from ambient.waypoint.front import Front, FrontPort, Origination, Stream, Wild
from ambient.waypoint.typed import Message, any_of, filter_state, typed

MOST_NAMES: Final = 4096
"""Of one service's that a proxy knows at the same time; the next ones are refused until others are forgotten."""
FORGOTTEN: Final = "60s"
"""After so long that nobody has asked for it a name is: one client can fill the place of all."""
_HOST: Final = "envoy.upstream.dynamic_host"
_PORT: Final = "envoy.upstream.dynamic_port"
_NO_HOST: Final = "no host of this service\n"
_ELSEWHERE: Final = "another service has this host\n"


def wild_of(front: Front, port: int) -> Wild | None:
    """What is said of one of its ports."""
    return next((one.wild for one in front.ports if one.number == port), None)


def wild_filters(front: Front, port: int) -> list[Message]:
    """What requests pass before the last filter. The host that is connected to is the one that was asked for, also
    where a route makes another of it for the server."""
    wild = wild_of(front, port)
    if wild is None:
        return []
    asked = [filter_state(_HOST, "%REQ(:AUTHORITY)%", shared=""), filter_state(_PORT, str(wild.port), shared="")]
    return [
        typed("ambient.asked_host", "filters.http.set_filter_state.v3.Config", on_request_headers=asked),
        typed(
            "envoy.filters.http.dynamic_forward_proxy",
            "filters.http.dynamic_forward_proxy.v3.FilterConfig",
            dns_cache_config=_names(front),
            allow_dynamic_host_from_filter_state=True,
        ),
    ]


def wild_hosts(wild: Wild, number: int, judged: Message) -> list[Message]:
    """The virtual hosts of a port: `judged` for those of the service, and refusals for all others. Envoy asks nobody
    for addresses and for localhost: no request for these gets to where names are looked up."""
    served = not nowhere_below(wild.domain)
    made = [{**judged, "domains": _domains(f"*.{wild.domain}", number)}] if served else []
    made += [
        {"name": f"elsewhere|{one}", "domains": _domains(one, number), "routes": [_answer(421, _ELSEWHERE)]}
        for one in wild.elsewhere
    ]
    return [*made, {"name": "nobody", "domains": ["*"], "routes": [_answer(404, _NO_HOST)]}]


def wild_streams(wild: Wild, streams: Iterable[Stream]) -> list[Stream]:
    """The streams of a port, each for names of the service alone, and no name for two: Envoy refuses that. That for
    names that others have leads nowhere."""
    every, others = list(streams), set(wild.elsewhere)
    found: list[Stream] = []
    taken: set[str] = set()
    for one in every:
        asked = one.names or (f"*.{wild.domain}",)
        names = [name for name in asked if name.endswith(f".{wild.domain}") and others.isdisjoint(wildcards(name))]
        names = [name for name in dict.fromkeys(names) if name not in taken]
        taken.update(names)
        if names:
            leads = () if nowhere_below(wild.domain) else one.destinations
            found.append(Stream(one.port, leads, tuple(names)))
    return [*found, Stream(every[0].port, (), wild.elsewhere)] if wild.elsewhere else found


def sni_filter(front: Front, wild: Wild) -> Message:
    """Looks up the name that TLS asks for, before anything is carried."""
    return typed(
        "envoy.filters.network.sni_dynamic_forward_proxy",
        "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=_names(front),
        port_value=wild.port,
    )


def wild_found(front: Front) -> Message:
    """How a cluster finds its endpoints, as fields of it."""
    return {
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": any_of(
                "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
                dns_cache_config=_names(front),
                # Whom to believe is said by `named` below, or by the transport socket.
                allow_insecure_cluster_options=True,
            ),
        },
    }


def named(port: FrontPort) -> Message:
    """Whose name TLS asks for, and which has to be in the certificate: fields of `upstream_http_protocol_options`."""
    tls: Origination | None = port.tls
    if port.wild is None or tls is None or not tls.as_asked:
        return {}
    made: Message = {}
    if not tls.sni:
        made["auto_sni"] = True
    if not tls.names and tls.authority is not None:
        made["auto_san_validation"] = True
    return {"upstream_http_protocol_options": made} if made else {}


def _domains(host: str, number: int) -> list[str]:
    return [host, f"{host}:{number}"]


def _answer(status: int, body: str) -> Message:
    answer = {"status": status, "body": {"inline_string": body}}
    return {"name": "refused", "match": {"prefix": "/"}, "direct_response": answer}


def _names(front: Front) -> Message:
    """The names that are known of a service. Envoy takes no other settings for a cache of the same name: with other
    settings it has to have another one."""
    return {
        "name": f"asked|{front.namespace}|{front.hostname}",
        "dns_lookup_family": "V4_PREFERRED",
        "max_hosts": MOST_NAMES,
        "host_ttl": FORGOTTEN,
        "typed_dns_resolver_config": resolver(ASKED_NAMES_PORT, search=False),
    }
