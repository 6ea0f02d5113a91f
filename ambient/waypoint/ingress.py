"""Everything that one ingress gateway is told: from its view to Envoy's resources. Pure.

Listeners of one port are one listener of Envoy, told apart by the server name that a client asks for. Routes and
policies are in route configurations, certificates are secrets of their own: a change of these ends no connection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Final

from ambient.waypoint import tls, tunnel
from ambient.waypoint.access import gateway_log, gateway_tls_log
from ambient.waypoint.closed import closed_table
from ambient.waypoint.door import Door, GatewayView, Site
from ambient.waypoint.evidence import secret
from ambient.waypoint.front import Destination, Front, FrontPort, Protocol, View
from ambient.waypoint.limiter import limiter
from ambient.waypoint.origination import asked_for, originating
from ambient.waypoint.rbac import http_filters, network_filters
from ambient.waypoint.route_filters import route_filters
from ambient.waypoint.routes import cluster_name, made_of
from ambient.waypoint.service import cluster, endpoints
from ambient.waypoint.streams import tls_inspector
from ambient.waypoint.through import through_resources
from ambient.waypoint.tokens import token_filters, without_claims
from ambient.waypoint.tunnel import NOBODY_INTERNAL, manager, rbac_filters, router
from ambient.waypoint.typed import (
    ADS,
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    Message,
    http_protocol,
    typed,
)

Named = tuple[str, str, Message]
STATISTICS: Final = "ingress"
_EARLY: Final = 65536
"""Bytes of a client's that wait until it is connected."""
_NO_SITE: Final[Message] = {"match": {"prefix": "/"}, "direct_response": {"status": 421}}
"""RFC 9110, section 15.5.20: asked for over a connection that another listener should have had."""


def gateway_resources(view: GatewayView, refused: frozenset[str] = frozenset()) -> Iterator[Named]:
    """All of them; each name once per type. `refused`: names of those that Envoy did not take; requests that they are
    for are answered 503, and a port is closed whose connections are judged by its listener alone. Endpoints are not
    there whose cluster is refused, or what it proves itself with: Envoy would go on with the one before."""
    yield LISTENER_TYPE, tunnel.ORIGINATE, tunnel.originate()
    inner = View(view.namespace, view.name, view.trust_domains)
    yield CLUSTER_TYPE, tunnel.ORIGINATE, tunnel.originate_cluster(inner)
    yield from limiter(view.limiter)
    for one in view.through:
        yield from through_resources(one, inner)
    asked: set[str] = set()
    for front in view.pools:
        for port in front.ports:
            for pool in _pools(front, port, refused):
                asked.update(asked_for(pool[2]))
                yield pool
    # What nobody asks for would be waited for without end: certificates of listeners that are not served.
    proving = {name for door in view.doors for name in door.evidence}
    yield from ((SECRET_TYPE, one.name, secret(one)) for one in view.evidence if one.name in proving)
    yield from (one for one in originating(view.pools) if one[1] in asked)
    for number, doors in groupby(sorted(view.doors, key=lambda one: one.port), key=lambda one: one.port):
        shared = list(doors)
        for url, name, content in _port(view, number, shared):
            if url == ROUTE_TYPE and {name, _listener_name(number)} & refused:
                yield url, name, closed_table(name)
            elif not (url == LISTENER_TYPE and name in refused and any(one.protocol == "TLS" for one in shared)):
                yield url, name, content


def _pools(front: Front, port: FrontPort, refused: frozenset[str]) -> Iterator[Named]:
    for kind in ("http", "tcp"):
        made = cluster(front, port, kind)
        if {made["name"], *asked_for(made)} & refused:
            continue
        if kind == "http" and port.protocol is not Protocol.HTTP2:
            # What a client speaks with us says nothing of what the application speaks.
            made |= http_protocol(explicit_http_config={"http_protocol_options": {}})
        yield CLUSTER_TYPE, made["name"], made
        if made.get("type") == "EDS":
            yield ENDPOINT_TYPE, made["name"], endpoints(front, port, kind)


def _listener_name(number: int) -> str:
    return f"{STATISTICS}|{number}"


def _port(view: GatewayView, number: int, doors: list[Door]) -> Iterator[Named]:
    name = _listener_name(number)
    chains = []
    for door in doors:
        if door.protocol == "TLS":
            chains += list(_passed(view, door))
        elif door.protocol == "HTTPS":
            table = f"{name}|{door.name}"
            chains.append(_ended(view, door, table))
            yield ROUTE_TYPE, table, _table(view, table, number, door.sites, door.elsewhere)
    plain = [door for door in doors if door.protocol == "HTTP"]
    if plain:
        chains.append({"name": "http", "filters": [_requests(view, name, plain)]})
        sites = [site for door in plain for site in door.sites]
        yield ROUTE_TYPE, name, _table(view, name, number, sites, ())
    if chains:
        # Envoy refuses one that leads nowhere: a port for TLS that nothing is carried from yet.
        yield LISTENER_TYPE, name, _listener(view, name, number, chains, tls=len(plain) != len(doors))


def _listener(view: GatewayView, name: str, number: int, chains: list[Message], *, tls: bool) -> Message:
    filters = []
    if view.topology.proxy_protocol:
        filters.append(
            typed("envoy.filters.listener.proxy_protocol", "filters.listener.proxy_protocol.v3.ProxyProtocol")
        )
    if tls:
        filters.append(tls_inspector())
    made: Message = {
        "name": name,
        "address": {"socket_address": {"address": "::", "port_value": number, "ipv4_compat": True}},
        "filter_chains": chains,
    }
    return {**made, "listener_filters": filters} if filters else made


def _ended(view: GatewayView, door: Door, table: str) -> Message:
    """Where TLS ends here."""
    chain: Message = {"name": door.name, "filters": [_requests(view, table, [door])]}
    if door.hostname:
        chain["filter_chain_match"] = {"server_names": [door.hostname]}
    return {**chain, "transport_socket": tls.served(door.certificates, door.clients)}


def _passed(view: GatewayView, door: Door) -> Iterator[Message]:
    """TLS that is carried to where it ends, by the server name that the client asks for."""
    for hostname, destinations in door.destinations:
        chosen = [one for one in destinations if one.weight and one.hostname]
        if not chosen:
            continue
        proxy: Message = {"stat_prefix": f"{STATISTICS}|{door.port}|{door.name}", "idle_timeout": "3600s"}
        if len(chosen) == 1:
            proxy["cluster"] = _tcp(chosen[0])
        else:
            weights = [{"name": _tcp(one), "weight": one.weight} for one in chosen]
            proxy["weighted_clusters"] = {"clusters": weights}
        proxy["access_log"] = [gateway_tls_log(f"{view.namespace}/{view.name}", _names([door]))]
        # Whoever is refused has not been connected to anything yet.
        proxy |= {"upstream_connect_mode": "ON_DOWNSTREAM_DATA", "max_early_data_bytes": _EARLY}
        filters = [
            *network_filters(_outside(view), _judged(view), door.port),
            typed("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", **proxy),
        ]
        chain: Message = {"name": f"{door.name}|{hostname or '*'}", "filters": filters}
        if hostname and hostname != "*":
            chain["filter_chain_match"] = {"server_names": [hostname]}
        yield chain


def _tcp(destination: Destination) -> str:
    return cluster_name(destination.hostname, destination.port, "tcp")


def _requests(view: GatewayView, table: str, doors: list[Door]) -> Message:
    """Everything between a connection and its requests' routes."""
    told: Message = {"forward_client_cert_details": "SANITIZE"}
    clients = doors[0].clients
    proven = clients is not None and not clients.insecure
    if proven:
        # Of clients whom nobody need vouch for nothing is told: a name of theirs could be anybody's.
        told = {
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        }
    early = without_claims(view.tokens)
    return manager(
        stat_prefix=f"{STATISTICS}.{table}",
        server_name="istio-envoy",
        use_remote_address=True,
        **({"xff_num_trusted_hops": view.topology.hops} if view.topology.hops else {}),
        internal_address_config=dict(NOBODY_INTERNAL),
        **told,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD",
        **({"early_header_mutation_extensions": early} if early else {}),
        common_http_protocol_options={"headers_with_underscores_action": "ALLOW"},
        http2_protocol_options={"max_concurrent_streams": 100},
        upgrade_configs=[{"upgrade_type": "websocket"}],
        request_headers_timeout="30s",
        stream_idle_timeout="300s",
        access_log=[gateway_log(f"{view.namespace}/{view.name}", _names(doors), proven=proven)],
        rds={"route_config_name": table, "config_source": dict(ADS)},
        http_filters=[
            *token_filters(view.tokens),
            *rbac_filters(),
            *route_filters(chosen_anew=bool(view.tokens)),
            router(),
        ],
    )


def _names(doors: Iterable[Door]) -> list[str]:
    return [one.name for one in doors]


def _outside(view: GatewayView) -> View:
    return View(view.namespace, view.name, view.trust_domains, outside=True)


def _judged(view: GatewayView) -> Front:
    return Front(view.namespace, "", (), (), view.policies, tokens=view.tokens)


def _table(view: GatewayView, name: str, number: int, sites: Collection[Site], elsewhere: Iterable[str]) -> Message:
    """Where requests of a port go. What each has to pass stands on the virtual hosts: no route has filters that would
    take its place."""
    filters = http_filters(_outside(view), _judged(view), FrontPort(number, Protocol.HTTP))
    judged: Message = {"typed_per_filter_config": filters} if filters else {}
    # A route for many hosts is one object, and is made once.
    made = {key: made_of(one) for key, one in {id(one): one for site in sites for one in site.routes}.items()}
    hosts = [
        {
            "name": site.hostname,
            "domains": [site.hostname],
            "routes": [each for one in site.routes for each in made[id(one)]],
            **judged,
        }
        for site in sites
    ]
    hosts += [{"name": one, "domains": [one], "routes": [_NO_SITE]} for one in elsewhere]
    return {"name": name, "validate_clusters": False, "ignore_port_in_host_matching": True, "virtual_hosts": hosts}
