"""Rules by headers that come several times, which Envoy joins by commas: whatever closes sees each value."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.policies import PolicyRule, When
from ambient.waypoint.rbac import http_filters
from tests.support.envoy_rbac import Request, allowed
from tests.support.waypoint_views import front, policy, view

PEER = "spiffe://cluster.local/ns/shop/sa/client"


def passes(action: str, text: str, **when: Any) -> bool:
    rule = PolicyRule(when=(When(key="request.headers[X-Team]", **when),))
    told = front(policy("p", action, rule))
    return allowed(http_filters(view(told), told, told.ports[0]), Request(PEER, headers={"x-team": text}))


@pytest.mark.parametrize("text", ["red", "red,blue", "blue,red", "blue, red", "blue,red ,green", " red"])
@pytest.mark.parametrize("value", ["red", "re*", "*ed", "*"])
def test_a_deny_sees_each_value(text: str, value: str) -> None:
    assert not passes("DENY", text, values=(value,))


@pytest.mark.parametrize("text", ["blue", "reddish" * 2, "blue,tired"])
def test_and_no_other(text: str) -> None:
    assert passes("DENY", text, values=("red",))


def test_an_allow_wants_it_alone() -> None:
    assert passes("ALLOW", "red", values=("red",))
    assert not passes("ALLOW", "blue,red", values=("red",))


def test_what_is_not_wanted_is_seen_among_others_by_an_allow_and_by_a_deny_alone() -> None:
    assert passes("ALLOW", "blue", not_values=("red",))
    assert not passes("ALLOW", "blue, red", not_values=("red",))
    assert passes("DENY", "red", not_values=("red",))
    assert not passes("DENY", "blue,red", not_values=("red",))


def test_signs_of_expressions_in_a_value_mean_themselves() -> None:
    assert not passes("DENY", "a.(b)", values=("a.(b)",))
    assert passes("DENY", "axb", values=("a.b",))
