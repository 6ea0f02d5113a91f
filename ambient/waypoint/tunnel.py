"""The two ends of tunnels in a waypoint: where clients' tunnels end, and where those to endpoints begin.

A client's CONNECT names a service and a port; the table of CONNECT routes leads each to an internal listener of its
own, so what changes for one service never touches connections of another, and what is no service here gets a 404.
Who the client is and what it asked for travel inward as filter state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ambient.model.address import HBONE_PORT
from ambient.waypoint import tls
from ambient.waypoint.access import BAGGAGE, METADATA, PEER, connect_log, failed_tunnel_log
from ambient.waypoint.front import Front, View, authority
from ambient.waypoint.rivals import holder
from ambient.waypoint.typed import ADS, HASHABLE, Message, filter_state, http_protocol, typed

TERMINATE: Final = "connect_terminate"
ORIGINATE: Final = "connect_originate"
CONNECT_ROUTES: Final = "connect"
DENY_FILTER: Final = "ambient.rbac.deny"
ALLOW_FILTER: Final = "ambient.rbac.allow"
AUDIT_FILTER: Final = "ambient.rbac.audit"
LOCAL: Final = "io.istio.local_principal"
TOLD: Final = "ambient.client_cert"
"""What x-forwarded-client-cert says of the client, whether the application is told or not."""
CONNECT_ATTEMPTS: Final = 2
"""A tunnel that is there already may lead to a pod that is gone without a word; nothing was sent through it before it
is open, so another one may be tried. Envoy tries a refused CONNECT again as well: it has no setting for lost ones."""
ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"
NOBODY_INTERNAL: Final[Message] = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}
"""No client is a trusted part of this proxy: what its headers say to Envoy itself (x-envoy-...) is taken away. An empty
list would mean private addresses."""
_ROUTER: Final = typed("envoy.filters.http.router", "filters.http.router.v3.Router")
_RBAC: Final = "filters.http.rbac.v3.RBAC"
_MANAGER: Final = "filters.network.http_connection_manager.v3.HttpConnectionManager"


def rbac_filters() -> list[Message]:
    """Filters without rules of their own: those come with the routes, so a policy change touches no connection."""
    return [typed(name, _RBAC) for name in (AUDIT_FILTER, DENY_FILTER, ALLOW_FILTER)]


def router() -> Message:
    return dict(_ROUTER)


def original_dst_filter() -> Message:
    """Turns the addresses that travel as filter state into those of the connection."""
    return typed(ORIGINAL_DST, "filters.listener.original_dst.v3.OriginalDst")


def manager(**fields: Any) -> Message:
    return typed("envoy.filters.network.http_connection_manager", _MANAGER, **fields)


def terminate(view: View) -> Message:
    """The listener on 15008. Nothing in it depends on services: only its routes do."""
    state = typed(
        "ambient.connect",
        "filters.http.set_filter_state.v3.Config",
        on_request_headers=[
            filter_state(f"{ORIGINAL_DST}.local_ip", "%REQ(:AUTHORITY)%"),
            filter_state(f"{ORIGINAL_DST}.remote_ip", "%DOWNSTREAM_REMOTE_ADDRESS%"),
            filter_state(PEER, "%DOWNSTREAM_PEER_URI_SAN%", factory=HASHABLE),
            filter_state(LOCAL, "%DOWNSTREAM_LOCAL_URI_SAN%", factory=HASHABLE),
            filter_state(BAGGAGE, "%REQ(BAGGAGE)%", factory=HASHABLE),
            filter_state(TOLD, "By=%DOWNSTREAM_LOCAL_URI_SAN%;URI=%DOWNSTREAM_PEER_URI_SAN%", factory=HASHABLE),
        ],
    )
    connections = manager(
        stat_prefix=TERMINATE,
        use_remote_address=True,
        skip_xff_append=True,
        internal_address_config=dict(NOBODY_INTERNAL),
        stream_idle_timeout="0s",
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        http2_protocol_options={
            "allow_connect": True,
            "max_concurrent_streams": 100,
            "connection_keepalive": {"interval": "10s", "timeout": "20s"},
        },
        access_log=[connect_log()],
        rds={"route_config_name": CONNECT_ROUTES, "config_source": dict(ADS)},
        http_filters=[state, *rbac_filters(), router()],
    )
    prefixes = [f"spiffe://{domain}/" for domain in view.trust_domains]
    return {
        "name": TERMINATE,
        "address": {"socket_address": {"address": "::", "port_value": HBONE_PORT, "ipv4_compat": True}},
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [{"transport_socket": tls.downstream(prefixes), "filters": [connections]}],
    }


def inner(front: Front, port: int) -> str:
    """Name of a service's port: of its CONNECT's virtual host, and of the table of its requests' routes."""
    return inner_of(front.hostname, port)


def inner_of(hostname: str, port: int | str) -> str:
    return f"service|{port}|{hostname}"


def entrance(front: Front, port: int, used: Sequence[str]) -> str:
    """Name of the internal listener of a port that is used so, and of the cluster that leads into it.

    Another use is another listener: TCP is judged at the CONNECT alone, so what carries it unread must not be led to
    before the table of CONNECTs has the rules for that.
    """
    name = inner(front, port)
    return name if tuple(used) == ("http",) else f"{name}|{'+'.join(used)}"


def table_of(name: str) -> str:
    """The table that an internal listener of this name asks for; other names are given back."""
    return "|".join(name.split("|")[:3]) if name.startswith("service|") else name


@dataclass(frozen=True, slots=True)
class Row:
    """One port in the table of CONNECTs. `filters`: what has to be passed (per-filter configuration), None: it is
    closed. `names`: of workloads that are called by their own addresses, "ip:port", or "ip:*" for any other port; ()
    for a service's."""

    front: Front
    port: int
    entrance: str
    filters: Message | None
    names: tuple[str, ...] = ()


def connect_routes(rows: Iterable[Row], unlisted: Collection[str] = frozenset()) -> Message:
    """The table. `unlisted` ports are left out, and nobody else is called by their names. An address of a workload
    is that one's, whoever claims it: so clients' ztunnels have it."""
    rows = list(rows)
    own = {name.rpartition(":")[0] for row in rows for name in row.names}
    table = [(row, list(row.names) or _domains(row.front, row.port, own)) for row in rows]
    claims: dict[str, list[Front]] = {}
    for row, names in table:
        for name in names:
            claims.setdefault(name, []).append(row.front)
    held = {name: holder(found) for name, found in claims.items()}
    return {
        "name": CONNECT_ROUTES,
        "validate_clusters": False,
        "virtual_hosts": [
            {
                "name": inner(row.front, row.port),
                "domains": domains,
                "routes": [_route(row)],
                **({"typed_per_filter_config": row.filters} if row.filters else {}),
            }
            for row, names in table
            if inner(row.front, row.port) not in unlisted
            and (domains := [name for name in names if held[name] is row.front])
        ],
    }


def _route(row: Row) -> Message:
    if row.filters is None:
        return _CLOSED
    route = _connect_to(row.entrance)
    if row.names:
        # A port that is written in another way would be another one to rules about ports.
        plain = {"name": ":authority", "string_match": {"safe_regex": {"regex": ".+:[1-9][0-9]{0,4}"}}}
        route["match"]["headers"] = [plain]
    return route


def _domains(front: Front, port: int, own: Collection[str]) -> list[str]:
    """`own`: addresses that are workloads'."""
    names = [authority(address, port) for address in front.addresses]
    names = [name for name in names if name.rpartition(":")[0] not in own]
    return list(dict.fromkeys([*names, f"{front.hostname}:{port}"]))


_CLOSED: Final[Message] = {"match": {"connect_matcher": {}}, "direct_response": {"status": 503}}


def _connect_to(cluster: str) -> Message:
    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    return {
        "match": {"connect_matcher": {}},
        "route": {"cluster": cluster, "timeout": "0s", "upgrade_configs": [upgrade]},
    }


def originate(name: str = ORIGINATE) -> Message:
    """The internal listener that opens a tunnel to the endpoint it is dialled for, as whom the endpoint has to be.
    `name`: also that of the cluster of tunnels."""
    exact = filter_state("envoy.network.upstream_subject_alt_names", f"%DYNAMIC_METADATA({METADATA}:san)%", shared="")
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=name,
        cluster=name,
        tunneling_config={"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"},
        max_connect_attempts=CONNECT_ATTEMPTS,
        access_log=[failed_tunnel_log()],
    )
    return {
        "name": name,
        "internal_listener": {},
        "listener_filters": [original_dst_filter()],
        "filter_chains": [
            {
                "filters": [
                    typed("ambient.exact", "filters.network.set_filter_state.v3.Config", on_new_connection=[exact]),
                    proxy,
                ]
            }
        ],
    }


def originate_cluster(view: View) -> Message:
    """Where tunnels to endpoints go: port 15008 of whatever address they are for."""
    http2 = {"allow_connect": True, "connection_keepalive": {"interval": "10s", "timeout": "20s"}}
    return {
        "name": ORIGINATE,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "cleanup_interval": "60s",
        "original_dst_lb_config": {"upstream_port_override": HBONE_PORT},
        **http_protocol(
            common_http_protocol_options={"idle_timeout": "3600s"},
            explicit_http_config={"http2_protocol_options": http2},
        ),
        "transport_socket": tls.upstream(f"spiffe://{domain}/" for domain in view.trust_domains),
    }
