"""What single routes ask of filters: each stands in the chain, and does nothing where nobody asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ambient.kube.jwt_rules import JwtRule
from ambient.kube.mesh_config import Provider
from ambient.kube.routing import Cors, Fault, Limit, RouteRule, Session
from ambient.waypoint.front import Front
from ambient.waypoint.route_filters import CORS_FILTER, FAULT_FILTER, of_route, route_filters
from ambient.waypoint.service import listener
from ambient.waypoint.tunnel import ALLOW_FILTER, AUDIT_FILTER, DENY_FILTER
from tests.support.waypoint_views import RULE, front, policy

LIMITS = (Limit(1, 1), Limit(1, 1, route="r"), Limit(1, 1, per_client=True, route="r", strict=True))


def test_a_route_configures_nothing_but_filters_that_stand_in_the_chain() -> None:
    every = RouteRule(fault=Fault(), cors=Cors(), session=Session("s"), limits=LIMITS)
    assert of_route(every)["typed_per_filter_config"].keys() == {one["name"] for one in route_filters(chosen_anew=True)}
    assert of_route(RouteRule()) == {}


def test_no_request_passes_a_filter_that_its_route_does_not_configure() -> None:
    assert all(one["disabled"] is True for one in route_filters(chosen_anew=False))


def chain(told: Front) -> dict[str, dict[str, Any]]:
    """Filters of a service's requests by name."""
    made = listener(told, told.ports[0], ("http",), xfcc=False)
    (manager,) = made["filter_chains"][0]["filters"]
    return {one["name"]: one for one in manager["typed_config"]["http_filters"]}


def test_where_a_token_or_an_answer_may_have_the_route_chosen_anew_every_request_passes_them_all() -> None:
    idle = {one["name"] for one in route_filters(chosen_anew=False)}
    rule = JwtRule(issuer="https://issuer", keys='{"keys": []}')
    asked = Provider(name="me", kind="grpc", hostname="authz.shop", port=9000)
    for told, disabled in (
        (front(), idle),
        (replace(front(), tokens=(rule,)), set()),
        (replace(front(), providers=(asked,)), set()),
    ):
        found = chain(told)
        assert idle <= found.keys()
        assert {name for name, one in found.items() if "disabled" in one} == disabled


def test_what_judges_is_never_disabled() -> None:
    found = chain(front(policy("deny", "DENY", RULE)))
    assert not any("disabled" in found[name] for name in (AUDIT_FILTER, DENY_FILTER, ALLOW_FILTER))


def test_a_fault_is_a_delay_an_answer_or_both_for_a_share() -> None:
    def made(fault: Fault) -> dict[str, object]:
        found: dict[str, object] = of_route(RouteRule(fault=fault))["typed_per_filter_config"][FAULT_FILTER]
        return {key: value for key, value in found.items() if key != "@type"}

    share = {"numerator": 500_000, "denominator": "MILLION"}
    delay = {"delay": {"fixed_delay": "2s", "percentage": share}}
    assert made(Fault(2000, 500_000)) == delay
    assert made(Fault(status=503, abort_share=500_000)) == {"abort": {"http_status": 503, "percentage": share}}
    assert made(Fault(2000, 500_000, grpc=14, abort_share=500_000)) == {
        **delay,
        "abort": {"grpc_status": 14, "percentage": share},
    }


def test_every_method_is_written_out_where_a_star_would_be_a_name() -> None:
    def methods(credentials: bool) -> str:
        made = of_route(RouteRule(cors=Cors(methods=("*",), credentials=credentials)))
        return str(made["typed_per_filter_config"][CORS_FILTER]["allow_methods"])

    assert methods(False) == "*"
    assert methods(True).split(",")[:2] == ["GET", "HEAD"]
