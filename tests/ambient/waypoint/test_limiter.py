"""The service that counts, as a cluster: always there, asked over HTTP/2, and empty where nobody counts."""

from __future__ import annotations

from dataclasses import replace

from ambient.waypoint.ingress import gateway_resources
from ambient.waypoint.limiter import limiter
from ambient.waypoint.resources import Made, resources
from ambient.waypoint.shared_limits import LIMITER
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, Message
from ambient.waypoint.wire import encode
from tests.support.gateway_views import EVERY_DOOR
from tests.support.waypoint_views import COUNTER, EVERY_KIND, TUNNEL

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def told(found: object) -> dict[str, Message]:
    return {url: content for url, name, content in found if name == LIMITER}  # type: ignore[attr-defined]


def test_its_endpoints_have_to_prove_themselves_and_are_spoken_to_in_grpc() -> None:
    made = told(limiter(COUNTER))
    assert made[CLUSTER_TYPE]["name"] == made[ENDPOINT_TYPE]["cluster_name"] == LIMITER
    assert made[CLUSTER_TYPE]["eds_cluster_config"]["service_name"] == LIMITER
    assert (
        "http2_protocol_options"
        in (made[CLUSTER_TYPE]["typed_extension_protocol_options"][HTTP_OPTIONS]["explicit_http_config"])
    )
    (endpoint,) = made[ENDPOINT_TYPE]["endpoints"][0]["lb_endpoints"]
    assert endpoint["metadata"]["filter_metadata"]["ambient"]["san"] == TUNNEL.identity


def test_where_nobody_counts_it_is_there_and_empty() -> None:
    made = told(limiter(None))
    assert made[ENDPOINT_TYPE]["endpoints"][0]["lb_endpoints"] == []
    for url, content in made.items():
        encode(url, LIMITER, content)


def test_waypoints_and_gateways_have_it() -> None:
    for found in (resources(EVERY_KIND), gateway_resources(EVERY_DOOR)):
        assert told(found).keys() == {CLUSTER_TYPE, ENDPOINT_TYPE}
    for found in (
        resources(replace(EVERY_KIND, limiter=COUNTER)),
        gateway_resources(replace(EVERY_DOOR, limiter=COUNTER)),
    ):
        assert told(found)[ENDPOINT_TYPE]["endpoints"][0]["lb_endpoints"]


def test_that_it_comes_or_goes_is_no_change_of_any_listener_and_nothing_is_made_anew() -> None:
    made = Made()
    before = {(url, name): content for url, name, content in resources(EVERY_KIND, made=made)}
    after = {(url, name): content for url, name, content in resources(replace(EVERY_KIND, limiter=COUNTER), made=made)}
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {(CLUSTER_TYPE, LIMITER), (ENDPOINT_TYPE, LIMITER)} or changed == {(ENDPOINT_TYPE, LIMITER)}
    ports = [key for key in before if key[0] == LISTENER_TYPE and key[1].startswith("service|")]
    assert ports
    assert all(before[key] is after[key] for key in ports)
