"""AuthorizationPolicy -> Authorization: scopes, rules, what is left out and what the condition says about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.control.derive_rule import translate
from ambient.errors import InvalidInput
from ambient.kube.objects import AuthorizationPolicy, Condition, Records, RefusedObject, parse_object
from ambient.model.decide import judge_naive
from ambient.model.dumped_policies import read_policy
from ambient.model.explain import explain
from ambient.model.fields import Fields
from ambient.model.outcome import Denied
from ambient.model.policy import Action, Authorization, Match, PolicyScope, Rule
from ambient.xds.policies import decode, encode
from tests.support.builders import accounts, connection, networks, pod, raw, records, rule, strings
from tests.support.chosen import Chosen
from ztunnel.admin.dump import policy as dump_policy

WEB = {"selector": {"matchLabels": {"app": "web"}}}
ROOT = "istio-system"


def policy(spec: dict[str, Any], name: str = "p", **metadata: Any) -> dict[str, Any]:
    return raw("AuthorizationPolicy", name, spec, **metadata)


def one(spec: dict[str, Any], *, dry_run: bool = False, **metadata: Any) -> tuple[Authorization | None, Condition]:
    result = Chosen(records(policy(spec, **metadata)), dry_run)
    (condition,) = result.conditions[f"AuthorizationPolicy/{metadata.get('namespace', 'default')}/p"]
    return next(iter(result.policies.values()), None), condition


def sent(spec: dict[str, Any], **metadata: Any) -> Authorization:
    found, _ = one(spec, **metadata)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("spec", "namespace", "scope"),
    [
        ({}, "shop", PolicyScope.NAMESPACE),
        ({}, ROOT, PolicyScope.GLOBAL),
        (WEB, "shop", PolicyScope.WORKLOAD_SELECTOR),
        (WEB, ROOT, PolicyScope.WORKLOAD_SELECTOR),
        ({"selector": {"matchLabels": {}}}, "shop", PolicyScope.NAMESPACE),
    ],
)
def test_scopes(spec: dict[str, Any], namespace: str, scope: PolicyScope) -> None:
    assert sent(spec, namespace=namespace).scope is scope


def test_a_selector_names_the_policy_at_the_pods_it_fits() -> None:
    result = Chosen(
        records(
            policy(WEB, "here", namespace="shop"),
            policy(WEB, "there", namespace="other"),
            policy(WEB, "everywhere", namespace=ROOT),
            policy({}, "all", namespace="shop"),
            policy({"selector": {"matchLabels": {"app": "web", "tier": "x"}}}, "more", namespace="shop"),
            policy({**WEB, "action": "AUDIT"}, "audit", namespace="shop"),
        )
    )
    assert result.selecting(pod(namespace="shop", labels={"app": "web"})) == ("istio-system/everywhere", "shop/here")
    assert result.selecting(pod(namespace=ROOT, labels={"app": "web"})) == ("istio-system/everywhere",)
    assert result.selecting(pod(namespace="shop")) == ()


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def operation(**fields: list[str]) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def when(key: str, *values: str, **rest: list[str]) -> dict[str, Any]:
    return {"when": [{"key": key, "values": list(values), **rest}]}


L4: list[tuple[dict[str, Any], Rule]] = [
    ({}, ()),
    (source(principals=["a", "b*", "*c", "*"]), rule(Match(principals=strings("a", "b*", "*c", "*")))),
    (source(notPrincipals=["a"]), rule(Match(not_principals=strings("a")))),
    (source(namespaces=["a"]), rule(Match(namespaces=strings("a")))),
    (source(notNamespaces=["a*"]), rule(Match(not_namespaces=strings("a*")))),
    (source(serviceAccounts=["x/y", "z"]), rule(Match(service_accounts=accounts("x/y", "shop/z")))),
    (source(notServiceAccounts=["z"]), rule(Match(not_service_accounts=accounts("shop/z")))),
    (source(ipBlocks=["10.0.0.1", "fd00::/8"]), rule(Match(source_ips=networks("10.0.0.1", "fd00::/8")))),
    (source(ipBlocks=["10.1.2.3/8"]), rule(Match(source_ips=networks("10.0.0.0/8")))),
    (source(notIpBlocks=["10.0.0.1"]), rule(Match(not_source_ips=networks("10.0.0.1")))),
    (operation(ports=["80", "443"]), rule(Match(destination_ports=(80, 443)))),
    (operation(notPorts=["80"]), rule(Match(not_destination_ports=(80,)))),
    (when("source.ip", "10.0.0.1"), rule(Match(source_ips=networks("10.0.0.1")))),
    (when("source.ip", notValues=["10.0.0.1"]), rule(Match(not_source_ips=networks("10.0.0.1")))),
    (when("source.namespace", "a*"), rule(Match(namespaces=strings("a*")))),
    (when("source.namespace", notValues=["a"]), rule(Match(not_namespaces=strings("a")))),
    (when("source.principal", "*"), rule(Match(principals=strings("*")))),
    (when("source.principal", notValues=["*"]), rule(Match(not_principals=strings("*")))),
    (when("destination.ip", "10.0.0.1"), rule(Match(destination_ips=networks("10.0.0.1")))),
    (when("destination.ip", notValues=["::/0"]), rule(Match(not_destination_ips=networks("::/0")))),
    (when("destination.port", "80"), rule(Match(destination_ports=(80,)))),
    (when("destination.port", notValues=["80"]), rule(Match(not_destination_ports=(80,)))),
    (
        {**source(namespaces=["a"]), **operation(ports=["80"]), **when("source.principal", "p")},
        rule(Match(destination_ports=(80,)), Match(namespaces=strings("a")), Match(principals=strings("p"))),
    ),
    (
        {"from": [{"source": {"namespaces": ["a"]}}, {"source": {"namespaces": ["b"]}}]},
        ((Match(namespaces=strings("a")), Match(namespaces=strings("b"))),),
    ),
    (source(principals=["p"], namespaces=["n"]), rule(Match(principals=strings("p"), namespaces=strings("n")))),
]


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(
    ("written", "expected"), L4, ids=lambda value: str(value)[:60] if isinstance(value, dict) else ""
)
def test_layer_4_rules(written: dict[str, Any], expected: Rule, action: str) -> None:
    found, condition = one({"action": action, "rules": [written]}, namespace="shop")
    assert found is not None
    assert (found.rules, found.action) == ((expected,), Action[action])
    assert condition == Condition("ZtunnelAccepted", "True", "Accepted", "attached to ztunnel")


L7: list[tuple[str, dict[str, Any]]] = [
    ("hosts", operation(hosts=["x"])),
    ("notHosts", operation(notHosts=["x"])),
    ("methods", operation(methods=["x"])),
    ("notMethods", operation(notMethods=["x"])),
    ("paths", operation(paths=["/x"])),
    ("notPaths", operation(notPaths=["/x"])),
    ("requestPrincipals", source(requestPrincipals=["x"])),
    ("notRequestPrincipals", source(notRequestPrincipals=["x"])),
    ("remoteIpBlocks", source(remoteIpBlocks=["10.0.0.1"])),
    ("notRemoteIpBlocks", source(notRemoteIpBlocks=["10.0.0.1"])),
    ("trustDomains", source(trustDomains=["x"])),
    ("notTrustDomains", source(notTrustDomains=["x"])),
    ("request.headers[x]", when("request.headers[x]", "y")),
    ("request.auth.claims[x]", when("request.auth.claims[x]", "y")),
    ("connection.sni", when("connection.sni", "y")),
    ("remote.ip", when("remote.ip", "10.0.0.1")),
    ("source.serviceAccount", when("source.serviceAccount", "y")),
]


@pytest.mark.parametrize(("name", "written"), L7, ids=[name for name, _ in L7])
def test_a_rule_that_ztunnel_cannot_judge_never_allows(name: str, written: dict[str, Any]) -> None:
    found, condition = one({"rules": [{**source(namespaces=["a"]), **written}, source(namespaces=["b"])]})
    assert found is not None
    assert found.rules == (rule(Match(namespaces=strings("b"))),)
    assert (condition.status, condition.reason) == ("True", "UnsupportedValue")
    assert f"(found: {name})" in condition.message
    assert "rules matching HTTP attributes are omitted" in condition.message


def test_an_allow_policy_of_such_rules_only_allows_nothing() -> None:
    assert isinstance(judge_naive([sent({"rules": [operation(methods=["GET"])]})], (), connection()), Denied)


@pytest.mark.parametrize(("name", "written"), L7, ids=[name for name, _ in L7])
def test_a_deny_policy_of_such_rules_only_says_that_it_has_no_effect(name: str, written: dict[str, Any]) -> None:
    found, condition = one({"action": "DENY", "rules": [written]})
    assert found is not None
    assert found.rules == (rule(Match()),)
    assert (condition.status, condition.reason) == ("True", "UnsupportedValue")
    assert "will have no effect" in condition.message


def test_a_deny_rule_keeps_what_stands_beside_in_the_same_part() -> None:
    found, condition = one({"action": "DENY", "rules": [operation(ports=["80"], methods=["POST"])]})
    assert found is not None
    assert found.rules == (rule(Match(destination_ports=(80,))),)
    assert condition.message.endswith(
        "is enforced without the HTTP rules. This will be more restrictive than requested."
    )


def test_a_deny_policy_names_its_rules_without_effect() -> None:
    spec = {
        "action": "DENY",
        "rules": [source(namespaces=["a"]), {**source(namespaces=["q"]), **operation(methods=["POST"])}],
    }
    found, condition = one(spec)
    assert found is not None
    assert found.rules == (rule(Match(namespaces=strings("a"))), rule(Match(), Match(namespaces=strings("q"))))
    assert condition.message.endswith(
        "This will be more restrictive than requested. But rule 2 has no effect at ztunnel, as nothing else is left of"
        " a part of it: that is less restrictive than requested."
    )


def test_a_deny_policy_with_rules_of_every_kind_says_what_is_more_and_what_is_less_than_was_asked() -> None:
    wider, inert = operation(ports=["80"], methods=["POST"]), operation(paths=["/"])
    _, condition = one({"action": "DENY", "rules": [source(namespaces=["a"]), wider, inert]})
    assert "This will be more restrictive than requested. But rule 3 has no effect" in condition.message
    assert condition.message.endswith("that is less restrictive than requested.")


def test_found_attributes_are_sorted() -> None:
    _, condition = one({"rules": [{**operation(paths=["/"], hosts=["h"]), **when("request.headers[x]", "y")}]})
    assert "(found: hosts, paths, request.headers[x])" in condition.message


@pytest.mark.parametrize("action", ["AUDIT", "CUSTOM"])
def test_other_actions_are_not_sent(action: str) -> None:
    provider = {"provider": {"name": "x"}} if action == "CUSTOM" else {}
    found, condition = one({"action": action, "rules": [{}], **provider})
    assert found is None
    assert condition == Condition(
        "ZtunnelAccepted", "False", "UnsupportedValue", f"ztunnel does not support the {action} action"
    )


def test_a_dry_run_policy_is_only_sent_when_that_is_switched_on() -> None:
    annotations = {"istio.io/dry-run": "true"}
    found, condition = one({"action": "DENY", "rules": [{}]}, annotations=annotations)
    assert (found, condition.status) == (None, "False")
    found, condition = one({"action": "DENY", "rules": [{}]}, dry_run=True, annotations=annotations)
    assert found is not None
    assert (found.dry_run, condition.reason, condition.message) == (True, "Accepted", "attached to ztunnel")


@pytest.mark.parametrize("written", ["1", "t", "T", "true", "True", "TRUE"])
def test_a_dry_run_is_asked_for_in_any_form_of_true(written: str) -> None:
    found, _ = one({"rules": [{}]}, dry_run=True, annotations={"istio.io/dry-run": written})
    assert found is not None
    assert found.dry_run


@pytest.mark.parametrize("rest", [{}, operation(methods=["GET"])])
@pytest.mark.parametrize(("written", "told"), [("false", False), ("0", False), ("F", False), ("yes", True), ("", True)])
def test_anything_else_is_enforced_and_what_is_no_boolean_is_said(written: str, told: bool, rest: Any) -> None:
    found, condition = one({"rules": [rest]}, dry_run=True, annotations={"istio.io/dry-run": written})
    assert found is not None
    assert not found.dry_run
    assert ("which is no boolean: the policy is enforced" in condition.message) is told


@pytest.mark.parametrize(
    ("ref", "reason", "message"),
    [
        ({"kind": "Service", "name": "web"}, "AncestorNotBound", "Service default/web is not bound to a waypoint"),
        ({"kind": "Service", "name": "no"}, "TargetNotFound", "Service default/no was not found"),
        (
            {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "wp"},
            "TargetNotFound",
            "Gateway default/wp was not found",
        ),
    ],
)
def test_a_policy_with_a_target_is_the_waypoints_affair(ref: dict[str, str], reason: str, message: str) -> None:
    web = raw("Service", "web", {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})
    result = Chosen(records(web, policy({"targetRefs": [ref], "rules": [{}]})))
    assert result.policies == {}
    assert result.conditions["AuthorizationPolicy/default/p"] == (
        Condition("WaypointAccepted", "False", reason, message),
    )


# --- what is invalid closes

ERROR = InvalidInput("AuthorizationPolicy.default.p.json", "spec.rules[0]", "is wrong")


def closing(
    raw_object: dict[str, Any], *, stands: bool = False, namespace: str = "default"
) -> tuple[Any, Condition, Any]:
    refused = RefusedObject("AuthorizationPolicy", namespace, "p", ERROR, raw_object, stands)
    result = Chosen(Records(refused=(refused,)))
    (condition,) = result.conditions[refused.key]
    return next(iter(result.policies.values()), None), condition, result


@pytest.mark.parametrize("peer", ["default/client", None])
@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"action": "DENY", "rules": ["wrong"]},
        {"action": "ALLOW", "rules": ["wrong"]},
        {"action": "BLOCK"},
        {"rules": ["wrong"]},
        "not even a mapping",
        None,
    ],
)
def test_an_invalid_policy_without_a_good_version_closes_its_namespace(spec: Any, peer: str | None) -> None:
    policy_, condition, _ = closing({"spec": spec} if spec != {} else {})
    assert policy_.scope is PolicyScope.NAMESPACE
    assert isinstance(judge_naive([policy_], (), connection(peer=peer)), Denied)
    assert condition == Condition(
        "ZtunnelAccepted", "False", "Invalid", "spec.rules[0]: is wrong; what it selects is closed until then"
    )


@pytest.mark.parametrize(
    ("where", "why", "said"),
    [("spec", "is wrong", "spec: is wrong"), ("", "is wrong", "is wrong"), ("spec", "", "spec"), ("", "", "p.json")],
)
def test_what_is_said_of_an_invalid_policy_has_no_empty_parts(where: str, why: str, said: str) -> None:
    refused = RefusedObject("AuthorizationPolicy", "default", "p", InvalidInput("p.json", where, why), {}, True)
    (condition,) = Chosen(Records(refused=(refused,))).conditions[refused.key]
    assert condition.message == f"{said}; its last good version stays in force"


def test_an_invalid_policy_closes_only_what_it_selects() -> None:
    policy_, _, result = closing({"spec": {**WEB, "action": "DENY", "rules": ["wrong"]}})
    assert policy_.scope is PolicyScope.WORKLOAD_SELECTOR
    assert result.selecting(pod(labels={"app": "web"})) == ("default/p",)
    assert result.selecting(pod()) == ()


def test_an_invalid_policy_of_the_root_namespace_closes_the_mesh() -> None:
    assert closing({"spec": {"action": "DENY", "rules": 1}}, namespace=ROOT)[0].scope is PolicyScope.GLOBAL


def test_a_selector_that_cannot_be_read_counts_as_everything() -> None:
    odd: list[Any] = [
        1,
        *({"matchLabels": labels} for labels in (1, {"a": 1}, {1: "a"}, {})),
        {"matchLabel": {"a": "b"}},
    ]
    for selector in odd:
        policy_, _, result = closing({"spec": {"selector": selector}})
        assert policy_.scope is PolicyScope.NAMESPACE
        assert result.selecting(pod()) == ()


def test_where_the_last_good_version_stands_nothing_is_closed() -> None:
    policy_, condition, _ = closing({"spec": {"action": "DENY"}}, stands=True)
    assert policy_ is None
    assert condition.message.endswith("its last good version stays in force")


@pytest.mark.parametrize("spec", [{"action": "AUDIT"}, {"action": "CUSTOM"}, {"targetRef": 1}, {"targetRefs": 1}])
def test_an_invalid_policy_that_ztunnel_would_never_see_closes_nothing(spec: dict[str, Any]) -> None:
    assert closing({"spec": spec})[0] is None


def test_an_invalid_policy_that_was_to_be_a_dry_run_closes_nothing() -> None:
    spec = {"action": "DENY", "rules": ["wrong"]}
    for written, closes in (("true", False), ("1", False), ("false", True), (["true"], True)):
        raw_object = {"metadata": {"annotations": {"istio.io/dry-run": written}}, "spec": spec}
        assert (closing(raw_object)[0] is not None) is closes
    for odd in ({"metadata": 1}, {"metadata": {"annotations": 1}}):
        assert closing({**odd, "spec": spec})[0] is not None


def test_what_is_refused_of_another_kind_is_not_a_policy() -> None:
    refused = RefusedObject("PeerAuthentication", "default", "p", ERROR, {"spec": {}}, False)
    result = Chosen(Records(refused=(refused,)))
    assert (set(result.policies), result.conditions) == ({f"{ROOT}/istio_converted_static_strict"}, {})


def test_a_translation_tells_what_it_left_out_and_which_rules_are_inert() -> None:
    parsed = parse_object(
        policy({"action": "DENY", "rules": [source(namespaces=["a"]), operation(paths=["/"])]}), "test"
    )
    assert isinstance(parsed, AuthorizationPolicy)
    deny, allow = translate(parsed, Action.DENY), translate(parsed, Action.ALLOW)
    assert (deny.numbers, allow.numbers) == ((), (1,))
    assert (deny.unsupported, deny.inert, len(deny.rules)) == (("paths",), (1,), 2)
    assert (allow.unsupported, allow.inert, len(allow.rules)) == (("paths",), (), 1)


def test_rules_are_named_by_their_place_in_the_file_all_the_way_to_explain() -> None:
    spec = {
        "rules": [
            operation(methods=["GET"]),
            source(namespaces=["x"]),
            operation(paths=["/"]),
            operation(ports=["8080"]),
        ]
    }
    policy_ = sent(spec)
    assert policy_.numbers == (2, 4)
    received = decode(encode(policy_).SerializeToString(), lax=False)
    shown = read_policy(Fields(json.loads(json.dumps(dump_policy(received))), "dump"))
    assert explain([shown], (), connection()).text == "allowed: rule 4 of default/p matches"
    assert "nearest is rule 2 of" in explain([shown], (), connection(destination="10.0.0.1:9")).text
