"""Which plans lead straight to one pod, so that a node where both pods are may spare the tunnel. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.errors import InvalidInput
from ambient.model.address import Endpoint, parse_endpoint
from ambient.model.outcome import Forward, Plan, ServiceLabels


@dataclass(frozen=True, slots=True)
class StraightHop:
    """The pod's own endpoint, the service that was dialled, if any, and as whom (SPIFFE URIs) the pod is expected."""

    server: Endpoint
    service: ServiceLabels
    expected: tuple[str, ...]


def direct_hop(plan: Plan) -> StraightHop | None:
    """The one pod that the plan leads to, in a tunnel that ends there; None: nobody, several, or by way of others."""
    if not isinstance(plan, Forward) or len(plan.hops) != 1:
        return None
    hop = plan.hops[0]
    if not hop.authority or hop.through_waypoint or hop.inner or hop.hostname:
        return None
    try:
        server = parse_endpoint(hop.authority)
    except InvalidInput:
        return None
    return StraightHop(server, plan.service, hop.expected) if str(server.ip) == hop.ip else None
