"""Which Gateways are ours: waypoints by the name of their class, ingress gateways by the controller of theirs. Pure.

A class of that name which is somebody else's (a live istiod has `istio`) is left to him.
"""

from __future__ import annotations

from collections.abc import Collection

from ambient.kube.networking import Gateway, GatewayClass
from ambient.kube.routing import CONTROLLER, GATEWAY_CONTROLLER
from ambient.waypoint.deploy import CLASS


def is_ours(gateway: Gateway, of_class: GatewayClass | None, names: Collection[str]) -> bool:
    """`of_class`: the Gateway's, None where nobody has made it; `names`: ingress classes that are ours whoever has."""
    return gateway.class_name in (CLASS, *names) or (of_class is not None and is_ingress_class(of_class))


def is_ingress_class(of_class: GatewayClass) -> bool:
    return of_class.controller == GATEWAY_CONTROLLER


def is_own_class(of_class: GatewayClass) -> bool:
    """Whether it is ours to say that it is accepted."""
    return is_ingress_class(of_class) or (of_class.name, of_class.controller) == (CLASS, CONTROLLER)
