"""What counts as one straight way to a pod."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.model.address import parse_endpoint
from ambient.model.direct import StraightHop, direct_hop
from ambient.model.outcome import Forward, Hop, NoRoute, Passthrough, Plan, Refuse, ServiceLabels

HOP = Hop("10.0.0.5", 15008, authority="10.0.0.5:80", expected=("spiffe://x",))


def test_one_tunnel_that_ends_at_the_pod_is_a_straight_way() -> None:
    service = ServiceLabels("web.shop.svc")
    assert direct_hop(Forward((HOP,), service)) == StraightHop(parse_endpoint("10.0.0.5:80"), service, ("spiffe://x",))


@pytest.mark.parametrize(
    "plan",
    [
        Forward(()),
        Forward((HOP, HOP)),
        Forward((replace(HOP, authority=""),)),
        Forward((replace(HOP, through_waypoint=True),)),
        Forward((replace(HOP, inner=("spiffe://far",)),)),
        Forward((replace(HOP, hostname="web.example"),)),
        Forward((replace(HOP, authority="web.shop.svc:80"),)),
        Forward((replace(HOP, authority="10.0.0.6:80"),)),
        Passthrough("no address of the mesh"),
        Refuse(NoRoute.NO_HEALTHY_UPSTREAM),
    ],
)
def test_nothing_else_is(plan: Plan) -> None:
    assert direct_hop(plan) is None
