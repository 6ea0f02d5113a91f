"""DestinationRules: which one counts for a service at a waypoint, and what it says of a port or subset."""

from __future__ import annotations

from typing import Any

from ambient.control.derive_traffic_policy import Rules, policy_of
from ambient.control.derive_waypoint import Waypoint
from ambient.kube.networking import DestinationRule, Listener
from ambient.kube.objects import parse_object
from ambient.kube.traffic_values import Balancer, RetryBudget, TrafficPolicy
from tests.support.builders import raw, service, waypoint

WEB = service(namespace="shop")
WAYPOINT = Waypoint("edge", "w", waypoint("w", "edge"), "service", Listener("mesh", 15008, "HBONE"), None)
RANDOM, ROBIN = {"loadBalancer": {"simple": "RANDOM"}}, {"loadBalancer": {"simple": "ROUND_ROBIN"}}


def rule(name: str, host: str, namespace: str = "shop", created: str = "", **spec: Any) -> DestinationRule:
    made = raw("DestinationRule", name, {"host": host, **spec}, namespace=namespace)
    if created:
        made["metadata"]["creationTimestamp"] = created
    found = parse_object({**made, "apiVersion": "networking.istio.io/v1"}, "test")
    assert isinstance(found, DestinationRule)
    return found


def chosen(*rules: DestinationRule) -> str:
    found = Rules(rules, "istio-system").of(WEB, WAYPOINT.namespace)
    return found.name if found is not None else ""


def test_the_nearer_then_the_more_exact_then_the_older_rule_counts() -> None:
    full = "web.shop.svc.cluster.local"
    near, own, root = rule("near", "*", "edge"), rule("own", "web"), rule("root", full, "istio-system")
    assert chosen(root, own, near) == "near"
    assert chosen(root, own) == "own"
    assert chosen(root) == "root"
    assert chosen(rule("wide", "*.local"), rule("wider", "*"), rule("exact", full)) == "exact"
    assert chosen(rule("wider", "*"), rule("wide", "*.cluster.local")) == "wide"
    old, new = rule("z", "web", created="2025-01-01T00:00:00Z"), rule("a", "web", created="2026-01-01T00:00:00Z")
    assert chosen(new, old) == "z"


def test_a_rule_that_is_kept_at_home_or_is_about_clients_does_not_count() -> None:
    assert chosen(rule("r", "web", exportTo=["."])) == ""
    assert chosen(rule("r", "web", exportTo=["edge"])) == "r"
    assert chosen(rule("r", "web", workloadSelector={"matchLabels": {"a": "b"}})) == ""


def test_a_port_goes_before_the_whole_and_a_subset_before_both() -> None:
    ports = [{"port": {"number": 80}, **ROBIN}]
    budget = {"retryBudget": {"percent": 10.0}}
    subsets = [{"name": "v1", "trafficPolicy": budget}, {"name": "v2", "trafficPolicy": RANDOM}]
    found = rule("r", "web", trafficPolicy={**RANDOM, "portLevelSettings": ports}, subsets=subsets)
    robin, random = Balancer("ROUND_ROBIN"), Balancer("RANDOM")
    assert policy_of(None, 80) == TrafficPolicy()
    assert (policy_of(found, 80).balancer, policy_of(found, 81).balancer) == (robin, random)
    first, second = found.subsets
    assert policy_of(found, 80, first) == TrafficPolicy(robin, retry_budget=RetryBudget(10.0))
    assert policy_of(found, 80, second).balancer == random
