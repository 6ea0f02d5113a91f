"""Connections that are carried unread: which chain of a port's listener takes one, and where it goes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambient.waypoint.access import tcp_log, tcp_log_options
from ambient.waypoint.exports import NO_EXPORTS, Exports, exported_log
from ambient.waypoint.front import Destination, Front, Stream
from ambient.waypoint.routes import NOWHERE, cluster_name
from ambient.waypoint.typed import Message, typed
from ambient.waypoint.wild import sni_filter, wild_of, wild_streams


def streams_of(front: Front, port: int) -> list[Stream]:
    """Those of a port, the ones that ask for names first; the last takes what is left: where nobody says anything, to
    the service itself."""
    found = [one for one in front.streams if one.port == port]
    named = [one for one in found if one.names]
    rest = [one for one in found if not one.names][:1]
    every = named + (rest or [Stream(port, (Destination(front.hostname, port),))])
    wild = wild_of(front, port)
    return every if wild is None else wild_streams(wild, every)


def stream_chain(front: Front, stream: Stream, number: int, exports: Exports = NO_EXPORTS) -> Message:
    """The chain of one of a port's streams; `number`: which of them."""
    log = tcp_log(front)
    proxy: dict[str, Any] = {
        "stat_prefix": _cluster(stream.destinations[0]) if stream.destinations else NOWHERE,
        "idle_timeout": "3600s",
        "access_log": [log, *exported_log(exports, log)],
        "access_log_options": tcp_log_options(),
        **_leads(stream),
    }
    if any(one.hash_by is not None and one.hash_by.kind == "source" for one in stream.destinations):
        proxy["hash_policy"] = [{"source_ip": {}}]
    wild = wild_of(front, stream.port)
    here = any(one.weight and one.hostname == front.hostname for one in stream.destinations)
    looked_up = [sni_filter(front, wild)] if wild is not None and here else []
    made: Message = {
        "name": f"tcp-{number}" if stream.names else "tcp",
        "filters": [
            *looked_up,
            typed("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", **proxy),
        ],
    }
    if stream.names:
        made["filter_chain_match"] = {"transport_protocol": "tls", "server_names": list(stream.names)}
    return made


def _leads(stream: Stream) -> Mapping[str, Any]:
    chosen = [one for one in stream.destinations if one.weight]
    if len(chosen) < 2:
        return {"cluster": _cluster(chosen[0]) if chosen else NOWHERE}
    return {"weighted_clusters": {"clusters": [{"name": _cluster(one), "weight": one.weight} for one in chosen]}}


def _cluster(one: Destination) -> str:
    return cluster_name(one.hostname, one.port, "tcp", one.subset) if one.hostname else NOWHERE


def tls_inspector() -> Message:
    """Reads which name a TLS connection asks for."""
    return typed("envoy.filters.listener.tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector")
