"""What a route changes on the way, and that it leads to no backend whose policies ask about that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ambient.control.derive_backends import Asked, Backends, Judged
from ambient.control.derive_changes import Changes, changes
from ambient.control.derive_traffic_policy import Rules
from ambient.control.waypoints import Waypoints
from ambient.kube.objects import Condition, HTTPRoute, parse_object
from ambient.kube.policies import Operation, PolicyRule, When
from ambient.kube.routing import BackendRef, HeaderEdit, RouteRule
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
    return changes(found)[found.rules[0].backends[0]]


def test_what_a_route_changes() -> None:
    assert of() == of(RESPONSE) == Changes()
    assert of(REWRITE, HEADERS) == Changes(path=True, headers=frozenset({"x-team"}))
    assert of(HOST) == Changes(host=True)


def test_a_backend_of_several_rules_has_what_each_of_them_changes_and_is_told_from_others() -> None:
    made = route(HEADERS)
    (first,) = made["spec"]["rules"]
    copy = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}}}
    made["spec"]["rules"] = [first, {**first, "filters": [HOST, copy]}]
    found = parse_object(made, "x")
    assert isinstance(found, HTTPRoute)
    rules = found.rules
    assert changes(found) == {
        rules[0].backends[0]: Changes(host=True, headers=frozenset({"x-team"})),
        rules[1].mirrors[0].backend: Changes(host=True),
    }


class _Counted:
    """Rules of a route, and how often they were gone through."""

    def __init__(self, rules: Iterable[RouteRule]) -> None:
        self.rules = tuple(rules)
        self.passes = 0

    def __iter__(self) -> Iterator[RouteRule]:
        self.passes += 1
        return iter(self.rules)


def test_a_route_is_gone_through_once_however_many_backends_it_has() -> None:
    refs = [BackendRef("back", 80, weight) for weight in range(200)]
    counted = _Counted([RouteRule(backends=tuple(refs), request=HeaderEdit(remove=("X-Team",)))])
    found = parse_object(route(), "x")
    assert isinstance(found, HTTPRoute)
    many = replace(found, rules=counted)  # type: ignore[arg-type]
    known = derived(scene(BACK))
    back, web = (known.services[f"shop/{name}.shop.svc.cluster.local"] for name in ("back", "web"))
    backends = Backends({("shop", "back"): back}, {}, (), Rules((), "istio-system"), lambda *_: Judged())
    asked = Asked(web, known.waypoints["shop/waypoint"])
    assert {backends.destination(many, ref, asked, 80).hostname for ref in refs} == {back.hostname}
    assert counted.passes == 1


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
    told: dict[str, Any] = {
        "outputPayloadToHeader": "x-payload",
        "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
    }
    both = tokens("idp", TARGET, {"kind": "Service", "name": "back"}, **told)
    resolved = resolution(BACK, route(header), both)
    assert (resolved.status == "True") is (name == "X-Other")
    if name != "X-Other":
        assert (resolved.reason, name.lower() in resolved.message) == ("RefNotPermitted", True)
