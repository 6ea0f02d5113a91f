"""What a route changes on the way, and that it leads to no backend whose policies ask about that."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_changes import Changes, changes
from ambient.control.waypoints import Waypoints
from ambient.kube.objects import Condition, HTTPRoute, parse_object
from ambient.kube.policies import Operation, PolicyRule, When
from tests.support.waypoint_records import TARGET, derived, policy, scene, service, tokens

REWRITE = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/admin"}}}
HOST = {"type": "URLRewrite", "urlRewrite": {"hostname": "other.example.com"}}
HEADERS = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Team", "value": "red"}]}}
RESPONSE = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["x-team"]}}
BACK = service("back", {"name": "http", "port": 80}, ip="10.96.0.5")


def route(*filters: dict[str, Any]) -> dict[str, Any]:
    rule = {"filters": list(filters), "backendRefs": [{"name": "back", "port": 80}]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}], "rules": [rule]},
    }


def of(*filters: dict[str, Any]) -> Changes:
    found = parse_object(route(*filters), "x")
    assert isinstance(found, HTTPRoute)
    return changes(found, found.rules[0].backends[0])


def test_what_a_route_changes() -> None:
    assert of() == of(RESPONSE) == Changes()
    assert of(REWRITE, HEADERS) == Changes(path=True, headers=frozenset({"x-team"}))
    assert of(HOST) == Changes(host=True)


PATHS = PolicyRule(operations=(Operation(not_paths=("/x",)),))
HOSTS = PolicyRule(operations=(Operation(hosts=("a",)),))
TEAM = PolicyRule(when=(When(key="request.headers[X-Team]", values=("red",)),))
AUTHORITY = PolicyRule(when=(When(key="request.headers[:authority]", values=("a",)),))


@pytest.mark.parametrize(
    ("changed", "rule", "concerned"),
    [
        (Changes(path=True), PATHS, True),
        (Changes(path=True), HOSTS, False),
        (Changes(host=True), HOSTS, True),
        (Changes(host=True), AUTHORITY, True),
        (Changes(headers=frozenset({"x-team"})), TEAM, True),
        (Changes(headers=frozenset({"x-other"})), TEAM, False),
        (Changes(True, True, frozenset({"x-team"})), PolicyRule(), False),
    ],
)
def test_which_rules_ask_about_it(changed: Changes, rule: PolicyRule, concerned: bool) -> None:
    assert changed.concern(rule) is concerned


def resolution(*objects: dict[str, Any]) -> Condition:
    """What is said of the backends of the route."""
    found = scene(*objects)
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local")
    made.update(found, derived(found))
    (resolved,) = (one for one in made.with_gateways({})["HTTPRoute/shop/r"] if one.type == "ResolvedRefs")
    return resolved


@pytest.mark.parametrize(("filters", "sent"), [((), True), ((HEADERS,), True), ((REWRITE,), False)])
def test_a_request_is_not_sent_as_another_to_whom_would_have_refused_that(
    filters: tuple[dict[str, Any], ...], sent: bool
) -> None:
    """Both services refuse /admin; the one that is asked judges the path before it is rewritten."""
    deny = [{"to": [{"operation": {"paths": ["/admin"]}}]}]
    target = {"kind": "Service", "name": "back"}
    resolved = resolution(BACK, route(*filters), policy("p", "DENY", TARGET, target, rules=deny))
    assert (resolved.status == "True") is sent
    if not sent:
        assert "changes what policies of Service back ask about" in resolved.message


@pytest.mark.parametrize(("filters", "sent"), [((), True), ((HEADERS,), False), ((REWRITE,), False), ((HOST,), False)])
def test_a_request_is_not_sent_as_another_to_whom_somebody_outside_was_asked_about(
    filters: tuple[dict[str, Any], ...], sent: bool
) -> None:
    """The provider is shown what came; nobody can see what its answer hung on."""
    custom = policy("p", "CUSTOM", TARGET, {"kind": "Service", "name": "back"}, rules=[{}])
    custom["spec"]["provider"] = {"name": "asked"}
    resolved = resolution(BACK, route(*filters), custom)
    assert (resolved.status == "True") is sent
    if not sent:
        assert (resolved.reason, "CUSTOM policy of Service back" in resolved.message) == ("RefNotPermitted", True)


@pytest.mark.parametrize("name", ["X-User", "X-Payload", "X-Other"])
@pytest.mark.parametrize("how", ["set", "add", "remove"])
def test_no_route_writes_what_only_a_token_says_to_another_service(how: str, name: str) -> None:
    edit = {how: [name] if how == "remove" else [{"name": name, "value": "mallory"}]}
    header = {"type": "RequestHeaderModifier", "requestHeaderModifier": edit}
    told = {
        "outputPayloadToHeader": "x-payload",
        "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
    }
    both = tokens("idp", TARGET, {"kind": "Service", "name": "back"}, **told)
    resolved = resolution(BACK, route(header), both)
    assert (resolved.status == "True") is (name == "X-Other")
    if name != "X-Other":
        assert (resolved.reason, name.lower() in resolved.message) == ("RefNotPermitted", True)
