"""HTTPRoutes as Envoy's routes: as written down, in the API's order, taken by Envoy, and never in a policy's place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ambient.kube.objects import HTTPRoute, parse_object
from ambient.kube.routing import (
    Answer,
    Cors,
    Fault,
    HeaderEdit,
    PathEdit,
    PathMatch,
    Redirect,
    Retry,
    Rewrite,
    RouteMatch,
    RouteRule,
    Session,
    TextMatch,
)
from ambient.kube.traffic_values import Balancer, HashBy, TrafficPolicy
from ambient.waypoint.front import Destination, Front, FrontPort, Protocol, Route, Subset, View
from ambient.waypoint.preflight import preflights
from ambient.waypoint.resources import resources
from ambient.waypoint.route_filters import route_filters
from ambient.waypoint.routes import routes
from ambient.waypoint.typed import CLUSTER_TYPE, ROUTE_TYPE, Message
from ambient.waypoint.wire import encode
from tests.ambient.kube.test_httproutes import ROUTE
from tests.support.envoy_judge import judged
from tests.support.waypoint_views import LAYER_4, RULE, TUNNEL, front, policy, view

GOLDEN = Path(__file__).parents[2] / "golden" / "waypoint" / "routes.json"
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
V1, V2 = "web-v1.shop.svc.cluster.local", "web-v2.shop.svc.cluster.local"


def every_feature() -> tuple[Route, ...]:
    route = parse_object(ROUTE, "x")
    assert isinstance(route, HTTPRoute)
    first, second = route.rules
    shares = (
        Destination(V1, 80, 90, hash_by=HashBy("cookie", "c", "/", 1500)),
        Destination(V2, 80, 10, "canary", request=HeaderEdit((("x-new", "1"),))),
        Destination("", 0, 5),
    )
    client = (TextMatch("X-Forwarded-Client-Cert", ".*/sa/web", "RegularExpression"),)
    query = (TextMatch("q", "", "Present"),)
    absent = (TextMatch("x-a", "1", absent=True), TextMatch("x-b", "", "Present", absent=True))
    fault = Fault(100, 10_000, 503, abort_share=20_000)
    by_pattern = Rewrite(path=PathEdit("RegularExpression", r"/n/\1", "^/o/(.*)$"))
    return (
        Route("shop/web/0", 80, first.matches[0], first, shares, (Destination(V2, 80, 50_000),)),
        Route("shop/web/1", 80, second.matches[0], second),
        Route("shop/web/2", 80, RouteMatch(PathMatch("RegularExpression", r"/x/\d+")), RouteRule(), shares[:1]),
        Route("shop/web/3", 80, RouteMatch(PathMatch("PathPrefix", "/gone")), RouteRule(), shares[2:]),
        Route(
            "shop/web/4", 80, RouteMatch(PathMatch("Prefix", "/v", True), client), RouteRule(fault=fault), shares[:1]
        ),
        Route("shop/web/5", 80, RouteMatch(headers=absent, query=query), RouteRule(answer=Answer(418, "tea"))),
        Route(
            "shop/web/6", 80, RouteMatch(namespace="edge"), RouteRule(rewrite=by_pattern, retry=Retry(0)), shares[:1]
        ),
        Route("shop/web/7", 80, RouteMatch(), RouteRule(session=Session("s", header=True)), shares[1:2]),
    )


def routed(*policies: Any, found: tuple[Route, ...] = ()) -> View:
    port = FrontPort(80, Protocol.HTTP, (TUNNEL,))
    plain = front(*policies, ports=(port,))
    own = Front(plain.namespace, plain.hostname, plain.addresses, plain.ports, plain.policies, found or every_feature())
    ring = TrafficPolicy(Balancer(hash_by=HashBy("cookie", "c", "/", 1500), ring=64))
    other = replace(port, traffic=ring, subsets=(Subset("canary", (TUNNEL,), TrafficPolicy(Balancer("RANDOM"))),))
    beyond = tuple(front(name=name, ports=(other,)) for name in ("web-v1", "web-v2"))
    return View("shop", "waypoint", ("cluster.local",), (own,), beyond=beyond)


def table(of: View) -> Message:
    (found,) = [one for url, name, one in resources(of) if url == ROUTE_TYPE and name != "connect"]
    return found


def test_they_are_what_is_written_down() -> None:
    """After a change that is meant: write what `routes` gives into the file, and read the difference."""
    assert table(routed()) == json.loads(GOLDEN.read_text())


def test_what_they_lead_to_is_there_once() -> None:
    clusters = [name for url, name, _ in resources(routed()) if url == CLUSTER_TYPE]
    assert len(clusters) == len(set(clusters))
    wanted = {f"inbound-vip|80|http|{V1}", f"inbound-vip|80|http|{V2}", f"inbound-vip|80|http/canary|{V2}"}
    assert wanted <= set(clusters)
    for url, name, content in resources(routed()):
        encode(url, name, content)


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(keys(one) for one in value.values()))
    return set().union(*(keys(one) for one in value)) if isinstance(value, list) else set()


def test_no_route_can_put_anything_in_the_place_of_a_policy() -> None:
    (bare,) = table(view(front(policy("deny", "DENY", RULE), ports=(FrontPort(80, Protocol.HTTP),))))["virtual_hosts"]
    (host,) = table(routed(policy("deny", "DENY", RULE), policy("x", "ALLOW", LAYER_4)))["virtual_hosts"]
    assert "ambient.rbac.deny" in host["typed_per_filter_config"]
    assert bare["typed_per_filter_config"]["ambient.rbac.deny"] == host["typed_per_filter_config"]["ambient.rbac.deny"]
    assert host["domains"] == ["*"]
    judging = {"ambient.rbac.audit", "ambient.rbac.deny", "ambient.rbac.allow", "ambient.jwt"}
    assert not judging & keys(host["routes"])


def test_a_header_value_reads_nothing_of_the_proxy() -> None:
    edited = json.loads(json.dumps(ROUTE).replace('"value": "1"', '"value": "%FILTER_STATE(x)%"'))
    route = parse_object(edited, "x")
    assert isinstance(route, HTTPRoute)
    rule = route.rules[0]
    (made, *_) = routes(routed(found=(Route("r", 80, RouteMatch(), rule, (Destination(V1, 80),)),)).fronts[0], 80)
    assert made["request_headers_to_add"][0]["header"]["value"] == "%%FILTER_STATE(x)%%"


def rewritten(before: str, after: str) -> Message:
    rule = RouteRule(rewrite=Rewrite(path=PathEdit("ReplacePrefixMatch", after)))
    one = Route("r", 80, RouteMatch(PathMatch("PathPrefix", before)), rule, (Destination(V1, 80),))
    action: Message = routes(routed(found=(one,)).fronts[0], 80)[0]["route"]
    return {key: value for key, value in action.items() if key.endswith("rewrite")}


@pytest.mark.parametrize(
    ("before", "after", "made"),
    [
        ("/foo", "/xyz", {"prefix_rewrite": "/xyz"}),
        ("/foo/", "/xyz/", {"prefix_rewrite": "/xyz"}),
        ("/", "/xyz", {"prefix_rewrite": "/xyz/"}),
        ("/foo", "/", {"regex_rewrite": {"pattern": {"regex": "^/foo/*"}, "substitution": "/"}}),
    ],
)
def test_a_prefix_is_replaced_in_whole_segments(before: str, after: str, made: Message) -> None:
    assert rewritten(before, after) == made


def test_a_redirect_names_its_port_unless_that_is_its_schemes() -> None:
    def port(redirect: Redirect) -> int | None:
        one = Route("r", 80, RouteMatch(), RouteRule(redirect=redirect))
        made: Message = routes(routed(found=(one,)).fronts[0], 80)[0]["redirect"]
        return made.get("port_redirect")

    assert port(Redirect("https", "h", 8443)) == 8443
    assert port(Redirect("https", "h", 443)) is None
    assert port(Redirect("", "", 443)) == 443


def test_envoy_takes_them(tmp_path: Path) -> None:
    """Its own check of a whole configuration, with the routes written into a listener."""
    config = table(routed(policy("deny", "DENY", RULE)))
    hosts = [{**one, "typed_per_filter_config": {}} for one in config["virtual_hosts"]]
    anybody = (TextMatch("", ".*", "RegularExpression"),)
    cors = Cors(anybody, methods=("*",), headers=("x-%",), exposed=("%x",), credentials=True, forward=False)
    hosts[0]["routes"][:0] = preflights(Route("r", 80, RouteMatch(), RouteRule(cors=cors)))
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {**config, "virtual_hosts": hosts},
        "http_filters": [
            *route_filters(chosen_anew=False),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"},
            },
        ],
    }
    door = {
        "name": "door",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }

    def accepted() -> tuple[int, str]:
        done = judged({"static_resources": {"listeners": [door]}}, tmp_path)
        return done.returncode, done.stdout + done.stderr

    code, said = accepted()
    assert code == 0, said
    hosts[0]["routes"][0]["request_headers_to_remove"] = ["host"]
    assert accepted()[0] != 0  # what must not be taken is told by it
