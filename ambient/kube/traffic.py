"""DestinationRule and RequestAuthentication: layer 7's, the waypoints' affair; ztunnels get neither."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.kube import security, syntax
from ambient.kube.entries import SHAPE, exported
from ambient.kube.jwt_rules import read_jwt_rules
from ambient.kube.metadata import read_common
from ambient.kube.networking import DestinationRule, RequestAuthentication, Subset
from ambient.kube.read import Field, Object
from ambient.kube.traffic_policy import read_traffic_policy
from ambient.kube.traffic_values import TrafficPolicy

_MOST_SUBSETS: Final = 128
"""Each is a cluster for every port of the service."""


def parse_destination_rule(top: Object, raw: Mapping[str, Any]) -> DestinationRule:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(("host", "exportTo", "workloadSelector", "trafficPolicy", "subsets"))
    subsets = spec.each("subsets", _subset)
    if len(subsets) > _MOST_SUBSETS:
        raise spec.need("subsets").refuse(f"{len(subsets)} subsets: at most {_MOST_SUBSETS}")
    names: set[str] = set()
    for name in (subset.name for subset in subsets):
        if name in names:
            raise spec.need("subsets").refuse(f"two subsets are called {name!r}")
        names.add(name)
    return DestinationRule(
        **common,
        host=spec.need("host").checked(_host),
        export_to=exported(spec),
        selector=spec.read("workloadSelector", _selector, None),
        traffic=spec.read("trafficPolicy", read_traffic_policy, TrafficPolicy()),
        subsets=subsets,
    )


def parse_request_authentication(top: Object, raw: Mapping[str, Any]) -> RequestAuthentication:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, security.SHAPE, raw)
    spec = top.read("spec", lambda field: field.object(("selector", "targetRef", "targetRefs", "jwtRules")), None)
    if spec is None:
        return RequestAuthentication(**common)
    selector, refs = security.read_targets(spec)
    return RequestAuthentication(**common, selector=selector, target_refs=refs, rules=read_jwt_rules(spec))


def _host(value: str) -> str:
    return "" if value == "*" else syntax.dns_subdomain(value.removeprefix("*.").lower())


def _selector(field: Field) -> Mapping[str, str]:
    return MappingProxyType(field.object(("matchLabels",)).text_map("matchLabels", syntax.label))


def _subset(field: Field) -> Subset:
    entry = field.object(("name", "labels", "trafficPolicy"))
    return Subset(
        entry.need("name").checked(syntax.dns_label),
        MappingProxyType(entry.text_map("labels", syntax.label)),
        entry.read("trafficPolicy", read_traffic_policy, TrafficPolicy()),
    )
