"""What routes ask of a request: in the API's order, and of the client what its certificate says, never it itself."""

from __future__ import annotations

from ambient.kube.routing import PathMatch, RouteMatch, RouteRule, TextMatch
from ambient.waypoint.front import Route
from ambient.waypoint.route_match import ordered, request_match


def test_who_the_client_is_is_never_asked_of_a_header_that_it_can_write() -> None:
    for name in ("x-forwarded-client-cert", "X-Forwarded-Client-Cert"):
        made = request_match(RouteMatch(headers=(TextMatch(name, "By=a;URI=b"), TextMatch("x-a", "1"))))
        assert [one["name"] for one in made["headers"]] == ["x-a"]
        assert made["filter_state"] == [{"key": "ambient.client_cert", "string_match": {"exact": "By=a;URI=b"}}]


def test_a_namespace_is_that_of_the_certificate() -> None:
    (asked,) = request_match(RouteMatch(namespace="a.b"))["filter_state"]
    assert asked["key"] == "io.istio.peer_principal"
    assert asked["string_match"]["safe_regex"]["regex"] == "spiffe://[^/]+/ns/a\\.b/sa/.+"


def test_case_is_passed_over_where_that_is_asked_for() -> None:
    def path(kind: str) -> dict[str, object]:
        return request_match(RouteMatch(PathMatch(kind, "/a", any_case=True)))

    assert path("Exact") == {"path": "/a", "case_sensitive": False}
    assert path("Prefix") == {"prefix": "/a", "case_sensitive": False}
    assert path("RegularExpression") == {"safe_regex": {"regex": "(?i)/a"}}


def test_the_more_exact_match_is_tried_first_then_the_older_route() -> None:
    one = TextMatch("a", "1")
    matches = [
        RouteMatch(PathMatch("Exact", "/a")),
        RouteMatch(PathMatch("PathPrefix", "/a/b")),
        RouteMatch(PathMatch("PathPrefix", "/a"), method="GET"),
        RouteMatch(PathMatch("PathPrefix", "/a"), headers=(one, TextMatch("b", "1"))),
        RouteMatch(PathMatch("PathPrefix", "/a"), headers=(one,), query=(one,)),
        RouteMatch(PathMatch("PathPrefix", "/a"), headers=(one,)),
        RouteMatch(PathMatch("PathPrefix", "/a"), query=(one,)),
        RouteMatch(PathMatch("PathPrefix", "/a")),
        RouteMatch(PathMatch("RegularExpression", "/.*")),
        RouteMatch(headers=(one,)),
        RouteMatch(),
    ]
    given = [Route(f"r{number}", 80, match, RouteRule()) for number, match in enumerate(matches)]
    age = {route.name: ("2026", route.name) for route in given}
    assert ordered(reversed(given), age) == given
    old, new = Route("old", 80, RouteMatch(), RouteRule()), Route("new", 80, RouteMatch(), RouteRule())
    ages = {"old": ("2025-01-01T00:00:00Z", "z"), "new": ("2026-01-01T00:00:00Z", "a")}
    assert ordered([new, old], ages) == [old, new]
