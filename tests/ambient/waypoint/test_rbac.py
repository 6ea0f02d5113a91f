"""Which filters a service's policies become, where they are judged, and what they decide together."""

from __future__ import annotations

from dataclasses import replace

from ambient.kube.policies import Operation, PolicyRule, Source
from ambient.waypoint.front import FrontPort, Policy, Protocol
from ambient.waypoint.rbac import http_filters, is_layer_4, tunnel_filters
from tests.support.envoy_rbac import Request, allowed
from tests.support.waypoint_views import LAYER_4, front, policy, view

CLIENT = Request("spiffe://cluster.local/ns/shop/sa/client")
STRANGER = Request("spiffe://cluster.local/ns/far/sa/client")
HTTP = FrontPort(80, Protocol.HTTP)
TCP = FrontPort(9000, Protocol.TCP)
AUTO = FrontPort(7000, Protocol.AUTO)
GETS = PolicyRule(operations=(Operation(methods=("GET",)),))
SHOP = PolicyRule(sources=(Source(namespaces=("shop",)),))


def passes(request: Request, *policies: Policy, port: FrontPort = HTTP) -> bool:
    made = front(*policies)
    filters = tunnel_filters if port is TCP else http_filters
    return allowed(filters(view(made), made, port), request)


def test_without_policies_there_is_nothing_to_pass() -> None:
    made = front()
    assert http_filters(view(made), made, HTTP) == {}
    assert passes(STRANGER)


def test_a_deny_goes_before_an_allow() -> None:
    both = (policy("allow", "ALLOW", SHOP), policy("deny", "DENY", GETS))
    assert not passes(CLIENT, *both)
    assert passes(replace(CLIENT, method="POST"), *both)
    assert not passes(replace(STRANGER, method="POST"), *both)


def test_one_of_several_allows_is_enough() -> None:
    both = (policy("one", "ALLOW", SHOP), policy("two", "ALLOW", GETS))
    assert passes(STRANGER, *both)
    assert not passes(replace(STRANGER, method="POST"), *both)


def test_an_allow_without_rules_lets_nobody_in_and_a_deny_without_rules_everybody() -> None:
    assert not passes(CLIENT, policy("nobody", "ALLOW"))
    assert passes(CLIENT, policy("nothing", "DENY"))


def test_what_is_to_be_asked_of_somebody_else_is_refused() -> None:
    assert not passes(CLIENT, policy("ask", "CUSTOM", GETS))
    assert passes(replace(CLIENT, method="POST"), policy("ask", "CUSTOM", GETS))


def test_an_audit_and_a_dry_run_decide_nothing() -> None:
    assert passes(CLIENT, policy("look", "AUDIT", GETS), policy("try", "DENY", GETS, dry_run=True))
    made = front(policy("try", "DENY", GETS, dry_run=True))
    (config,) = http_filters(view(made), made, HTTP).values()
    assert config["rbac"]["shadow_rules"]["policies"]
    assert "rules" not in config["rbac"]


def test_tcp_is_judged_at_its_connect_and_http_rules_never_open_it() -> None:
    assert passes(CLIENT, policy("l4", "ALLOW", SHOP), port=TCP)
    assert not passes(STRANGER, policy("l4", "ALLOW", SHOP), port=TCP)
    assert not passes(CLIENT, policy("l7", "ALLOW", GETS), port=TCP)
    assert not passes(CLIENT, policy("l7", "DENY", GETS), port=TCP)


def test_a_port_of_http_is_judged_request_by_request_alone() -> None:
    made = front(policy("l4", "ALLOW", SHOP))
    assert tunnel_filters(view(made), made, HTTP) == {}


def test_a_port_of_unknown_protocol_is_judged_at_its_connect_where_that_can_be() -> None:
    four, seven = front(policy("l4", "ALLOW", LAYER_4)), front(policy("l7", "ALLOW", GETS))
    assert tunnel_filters(view(four), four, AUTO)
    assert not tunnel_filters(view(seven), seven, AUTO)
    assert http_filters(view(seven), seven, AUTO)


def test_what_only_http_has_makes_a_policy_one_of_layer_7() -> None:
    assert is_layer_4(policy("x", "ALLOW", SHOP))
    assert not is_layer_4(policy("x", "ALLOW", SHOP, GETS))
