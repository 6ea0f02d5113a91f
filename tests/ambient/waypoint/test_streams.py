"""Connections that are carried unread: by weight, by the name that TLS asks for, else to the service itself."""

from __future__ import annotations

from dataclasses import replace

from ambient.kube.traffic_values import HashBy
from ambient.waypoint.front import Destination, Front, FrontPort, Protocol, Stream
from ambient.waypoint.resources import resources
from ambient.waypoint.streams import stream_chain, streams_of
from ambient.waypoint.typed import CLUSTER_TYPE, LISTENER_TYPE, Message
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import TUNNEL, front, view

V1, V2 = "db-v1.shop.svc.cluster.local", "db-v2.shop.svc.cluster.local"
CANARY = Stream(5432, (Destination(V1, 5432, 9), Destination(V2, 5432, 1)))
NAMED = Stream(5432, (Destination(V2, 5432),), ("db.example.com", "*.example.org"))


def behind(*streams: Stream, protocol: Protocol = Protocol.TCP) -> Front:
    port = FrontPort(5432, protocol, (TUNNEL,))
    return replace(front(name="db", ports=(port,)), streams=streams)


def listener_of(one: Front) -> Message:
    other = [front(name=name, ports=(FrontPort(5432, Protocol.TCP, (TUNNEL,)),)) for name in ("db-v1", "db-v2")]
    found = list(resources(replace(view(one), beyond=tuple(other))))
    clusters = {name for url, name, _ in found if url == CLUSTER_TYPE}
    assert {f"inbound-vip|5432|tcp|{to.hostname}" for stream in one.streams for to in stream.destinations} <= clusters
    for url, name, content in found:
        encode(url, name, content)
    (made,) = [content for url, name, content in found if url == LISTENER_TYPE and name.startswith("service|")]
    return made


def proxy(chain: Message) -> Message:
    config: Message = chain["filters"][0]["typed_config"]
    return config


def test_without_a_route_a_connection_goes_to_the_service_itself() -> None:
    (only,) = listener_of(behind())["filter_chains"]
    assert proxy(only)["cluster"] == "inbound-vip|5432|tcp|db.shop.svc.cluster.local"


def test_weights_share_connections() -> None:
    (only,) = listener_of(behind(CANARY))["filter_chains"]
    shares = proxy(only)["weighted_clusters"]["clusters"]
    assert [(one["name"], one["weight"]) for one in shares] == [
        (f"inbound-vip|5432|tcp|{V1}", 9),
        (f"inbound-vip|5432|tcp|{V2}", 1),
    ]


def test_a_name_that_tls_asks_for_has_its_own_chain_and_all_others_the_rest() -> None:
    made = listener_of(behind(CANARY, NAMED))
    named, rest = made["filter_chains"]
    wanted = {"transport_protocol": "tls", "server_names": ["db.example.com", "*.example.org"]}
    assert named["filter_chain_match"] == wanted
    assert "filter_chain_match" not in rest
    assert [one["name"] for one in made["listener_filters"]][1:] == ["envoy.filters.listener.tls_inspector"]
    # Whoever says nothing at first is carried all the same.
    assert made["continue_on_listener_filters_timeout"]


def test_on_a_port_of_unknown_protocol_tls_is_never_read_as_http() -> None:
    made = listener_of(behind(NAMED, protocol=Protocol.AUTO))
    assert [one["name"] for one in made["filter_chains"]] == ["http", "tcp-0", "tcp"]
    assert made["filter_chains"][0]["filter_chain_match"]["transport_protocol"] == "raw_buffer"


def test_what_leads_nowhere_is_closed_and_a_client_may_stay_with_its_endpoint() -> None:
    lost = Stream(5432, (Destination("", 0),))
    assert proxy(stream_chain(behind(), lost, 0))["cluster"] == "nowhere"
    assert streams_of(behind(lost), 5432) == [lost]
    hashed = Stream(5432, (Destination(V1, 5432, hash_by=HashBy("source")),))
    assert proxy(stream_chain(behind(), hashed, 0))["hash_policy"] == [{"source_ip": {}}]
