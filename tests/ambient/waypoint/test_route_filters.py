"""What single routes ask of filters: each stands in the chain, and does nothing where nobody asks."""

from __future__ import annotations

from ambient.kube.routing import Cors, Fault, Limit, RouteRule, Session
from ambient.waypoint.route_filters import FAULT_FILTER, of_route, route_filters


def test_a_route_configures_nothing_but_filters_that_stand_in_the_chain() -> None:
    every = RouteRule(fault=Fault(), cors=Cors(), session=Session("s"), limits=(Limit(1, 1),))
    assert of_route(every)["typed_per_filter_config"].keys() == {one["name"] for one in route_filters()}
    assert of_route(RouteRule()) == {}


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
