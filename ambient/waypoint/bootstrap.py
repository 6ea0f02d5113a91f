"""What an Envoy is started with: who it is, its agent over a Unix socket, and two listeners that tell how it is.

Everything else comes by discovery. The admin interface is for the agent and for these two listeners alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ambient.waypoint.overload import USUAL, Bearable, overload
from ambient.waypoint.tls import AGENT_CLUSTER
from ambient.waypoint.tunnel import manager, router
from ambient.waypoint.typed import ADS, Message, http_protocol, typed

GATEWAY_HEADER: Final = "ambient-gateway"
"""gRPC metadata of a waypoint's discovery stream: the name of the Gateway that it serves."""
READY_PORT: Final = 15021
STATS_PORT: Final = 15090
METRICS_PORT: Final = 15020
"""Of the agent: Istio's metrics, and what Envoy tells on `STATS_PORT`."""
NAMES_PORT: Final = 15025
"""UDP, on loopback: the agent looks up names that are written, for Envoy."""
ASKED_NAMES_PORT: Final = 15026
"""The same for names that clients choose."""
OWN_PORTS: Final = (READY_PORT, METRICS_PORT, STATS_PORT)
"""No listener of a Gateway has these."""
METRICS_PATH: Final = "/stats/prometheus"
_ADMIN: Final = "admin"
_KEPT: Final = (
    *("istio", "server", "listener_manager", "cluster_manager", "control_plane", "sds"),
    *("http.connect", "http.ingress", "tcp.ingress"),
)
_COUNTED: Final = ("ok", "over_limit", "error", "failure_mode_allowed")
_KEPT_ENDS: Final = (
    *("upstream_rq_total", "upstream_cx_total", "ssl.fail_verify_san", "rbac.denied", "rbac.allowed"),
    *("shadow_denied", "shadow_allowed"),
    # Of limits that all proxies count together, by what becomes of requests that cannot be counted.
    *(f"ratelimit.{kind}.{what}" for kind in ("lax", "strict") for what in _COUNTED),
)


@dataclass(frozen=True, slots=True)
class Identification:
    """Of one proxy: its Gateway, its pod, and its pod's address."""

    namespace: str
    gateway: str
    pod: str
    ip: str
    cluster: str = "Kubernetes"


def bootstrap(who: Identification, *, agent_socket: str, admin_socket: str, most: Bearable = USUAL) -> Message:
    """The whole file. Both sockets are paths of Unix sockets; the admin interface listens on one of them. `most`: what
    it is given to bear."""
    name = f"waypoint~{who.ip}~{who.pod}.{who.namespace}~{who.namespace}.svc.cluster.local"
    discovery = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": AGENT_CLUSTER}}],
    }
    return {
        "node": {
            "id": name,
            "cluster": f"{who.gateway}.{who.namespace}",
            "metadata": {
                "NAMESPACE": who.namespace,
                "NAME": who.pod,
                "GATEWAY": who.gateway,
                "CLUSTER_ID": who.cluster,
            },
        },
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "bootstrap_extensions": [
            # Cannot come by discovery, and without it no internal address is taken.
            typed("envoy.bootstrap.internal_listener", "bootstrap.internal_listener.v3.InternalListener")
        ],
        "layered_runtime": {
            "layers": [
                {"name": "limits", "static_layer": {"re2.max_program_size.error_level": 32768}},
            ]
        },
        "overload_manager": overload(most),
        "typed_dns_resolver_config": resolver(NAMES_PORT, search=True),
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [{"prefix": one} for one in _KEPT] + [{"suffix": one} for one in _KEPT_ENDS]
                }
            }
        },
        "static_resources": {
            "listeners": [
                _told("ready", READY_PORT, "/healthz/ready", "/ready"),
                _told("stats", STATS_PORT, METRICS_PATH, METRICS_PATH),
            ],
            "clusters": [_pipe(AGENT_CLUSTER, agent_socket, http2=True), _pipe(_ADMIN, admin_socket, http2=False)],
        },
        "dynamic_resources": {"ads_config": discovery, "cds_config": dict(ADS), "lds_config": dict(ADS)},
    }


def resolver(port: int, *, search: bool) -> Message:
    """How names are looked up: by the agent, which tells Envoy no address that it is not to dial. `search`: a name may
    be completed."""
    here = {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": port}}
    return typed(
        "envoy.network.dns_resolver.cares",
        "network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        resolvers=[here],
        dns_resolver_options={"no_default_search_domain": not search},
    )


def _told(name: str, port: int, path: str, asked: str) -> Message:
    """One path of the admin interface for everybody, and no other. It is told however many connections there are: a
    proxy that has all that it may have is not one that is to be replaced."""
    route = {"match": {"path": path}, "route": {"cluster": _ADMIN, "prefix_rewrite": asked}}
    connections = manager(
        stat_prefix=name,
        route_config={"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        http_filters=[router()],
    )
    address = {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}}
    made: Message = {"name": name, "address": address, "filter_chains": [{"filters": [connections]}]}
    return {**made, "ignore_global_conn_limit": True}


def _pipe(name: str, path: str, *, http2: bool) -> Message:
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    made: Message = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        made |= http_protocol(explicit_http_config={"http2_protocol_options": {}})
    return made
