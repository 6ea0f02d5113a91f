"""Limits that all proxies count together: what is asked of whom, and what becomes of what cannot be counted."""

from __future__ import annotations

from ambient.kube.routing import Limit
from ambient.waypoint.limits import LIMIT_FILTER, limits_of_route
from ambient.waypoint.route_filters import route_filters
from ambient.waypoint.shared_limits import LAX, LIMITER, STRICT, shared_limit_filters, shared_limits_of_route
from ambient.waypoint.typed import PREFIX
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import ROUTE

PER_ROUTE = f"{PREFIX}envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"
ALL = Limit(9, 3600, route=ROUTE)
EACH = Limit(5, 60, per_client=True, route=ROUTE, strict=True)


def test_a_route_without_such_limits_says_nothing() -> None:
    assert shared_limits_of_route((Limit(5, 1), Limit(6, 1, per_client=True))) == {}


def test_what_is_asked_says_everything_there_is_to_know() -> None:
    (asked,) = shared_limits_of_route((ALL,))[LAX]["rate_limits"]
    said = [one["generic_key"] for one in asked["actions"]]
    assert [(one["descriptor_key"], one["descriptor_value"]) for one in said] == [("route", ROUTE), ("rate", "9/3600")]


def test_a_client_is_its_identity_and_whoever_has_none_is_not_asked_about() -> None:
    (asked,) = shared_limits_of_route((EACH,))[STRICT]["rate_limits"]
    extension = asked["actions"][-1]["extension"]["typed_config"]
    assert extension["text"] == 'filter_state["io.istio.peer_principal"]'
    assert "skip_if_error" not in extension


def test_each_limit_is_asked_by_the_filter_that_does_what_its_owner_chose() -> None:
    made = shared_limits_of_route((ALL, EACH))
    assert {name: len(one["rate_limits"]) for name, one in made.items()} == {LAX: 1, STRICT: 1}
    lax, strict = shared_limit_filters()
    assert (lax["name"], lax["typed_config"]["failure_mode_deny"]) == (LAX, False)
    assert (strict["name"], strict["typed_config"]["failure_mode_deny"]) == (STRICT, True)
    for one in (lax, strict):
        service = one["typed_config"]["rate_limit_service"]["grpc_service"]
        assert service["envoy_grpc"]["cluster_name"] == LIMITER
        assert one["typed_config"]["timeout"] == service["timeout"] == "0.5s"


def test_both_stand_in_every_chain_and_whoever_is_over_his_own_limit_is_not_asked_about() -> None:
    names = [one["name"] for one in route_filters(chosen_anew=False)]
    assert names[:3] == [LIMIT_FILTER, LAX, STRICT]


def test_a_proxy_does_not_count_by_itself_what_is_counted_together() -> None:
    assert limits_of_route((ALL, EACH)) == {}
    made = limits_of_route((ALL, EACH, Limit(7, 1)))[LIMIT_FILTER]
    assert made["token_bucket"]["max_tokens"] == 7
    assert "descriptors" not in made


def test_what_is_made_is_a_message_of_its_type() -> None:
    for made in shared_limits_of_route((ALL, EACH)).values():
        encode(PER_ROUTE, "x", {key: value for key, value in made.items() if key != "@type"})
    for one in shared_limit_filters():
        content = dict(one["typed_config"])
        encode(content.pop("@type"), "x", content)
