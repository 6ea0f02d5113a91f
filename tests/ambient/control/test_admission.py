"""What the API server is answered: a row per mistake, per warning and per thing that is never refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ambient.control.admission import LONGEST, MOST_WARNINGS, review
from ambient.control.admission_checks import View
from ambient.errors import InvalidInput
from tests.ambient.kube import test_httproutes
from tests.support.admission import BAD, RULE, VIEW, asked, policy
from tests.support.refusals import changed


def answered(content: dict[str, Any], *, seen: View = VIEW, **request: Any) -> dict[str, Any]:
    answer = review(asked(content, **request), seen)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert answer["response"]["uid"] == "u-1"
    found: dict[str, Any] = answer["response"]
    return found


def said(response: dict[str, Any]) -> str:
    return " ".join(response.get("warnings", ()))


REFUSED = [
    ("{rule: []}", "spec.rule", "unknown field", ""),
    ("{action: ALOW}", "spec.action", "'ALOW' is not one of", "action: DENY"),
    ("{action: CUSTOM}", "spec.action", "CUSTOM needs provider.name", "action: DENY"),
    ("{provider: {name: x}}", "spec.provider", "only the action CUSTOM", "action: CUSTOM"),
    ("{rules: {}}", "spec.rules", "expected a list", "rules: ["),
    ("{rules: [{from: []}]}", "spec.rules[0].from", "at least one entry", "from: [{source:"),
    ("{rules: [{to: []}]}", "spec.rules[0].to", "at least one entry", "to: [{operation:"),
    ("{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source", "at least one field", "source: {"),
    ("{rules: [{to: [{operation: {}}]}]}", "spec.rules[0].to[0].operation", "at least one field", "operation: {"),
    (
        "{rules: [{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}]}",
        "spec.rules[0].from[0].source.principals[0]",
        "without spiffe://",
        '["cluster.local/ns/shop/sa/web"]',
    ),
    (
        "{rules: [{from: [{source: {notPrincipals: ['a*b']}}]}]}",
        "spec.rules[0].from[0].source.notPrincipals[0]",
        "a * may stand alone",
        "cluster.local/ns",
    ),
    (
        "{rules: [{from: [{source: {namespaces: ['']}}]}]}",
        "spec.rules[0].from[0].source.namespaces[0]",
        "empty value",
        '["shop"]',
    ),
    (
        "{rules: [{from: [{source: {namespaces: []}}]}]}",
        "spec.rules[0].from[0].source.namespaces",
        "leave it out",
        "from: [{source:",
    ),
    (
        "{rules: [{from: [{source: {ipBlocks: ['10.0.0.0/40']}}]}]}",
        "spec.rules[0].from[0].source.ipBlocks[0]",
        "10.0.0.0/40",
        '["10.1.0.0/16"]',
    ),
    (
        "{rules: [{from: [{source: {serviceAccounts: ['*']}}]}]}",
        "spec.rules[0].from[0].source.serviceAccounts[0]",
        "no wildcards",
        '["shop/web"]',
    ),
    (
        "{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}",
        "spec.rules[0].from[0].source.serviceAccounts",
        "may not stand beside namespaces",
        '["shop/web"]',
    ),
    (
        "{rules: [{to: [{operation: {ports: [8080]}}]}]}",
        "spec.rules[0].to[0].operation.ports[0]",
        "expected a string",
        "a port is quoted",
    ),
    (
        "{rules: [{to: [{operation: {ports: ['70000']}}]}]}",
        "spec.rules[0].to[0].operation.ports[0]",
        "is not a port",
        '["8080"]',
    ),
    (
        "{rules: [{to: [{operation: {methods: []}}]}]}",
        "spec.rules[0].to[0].operation.methods",
        "leave it out",
        "methods: [",
    ),
    ("{rules: [{when: [{key: source.nmespace, values: [a]}]}]}", "spec.rules[0].when[0].key", "not a known", "key: "),
    ("{rules: [{when: [{key: source.namespace}]}]}", "spec.rules[0].when[0]", "needs values", "values: [shop]"),
    ("{selector: {matchLabels: {app: '*'}}}", "spec.selector.matchLabels", "wildcards", "matchLabels: {app: web}"),
    (
        "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: web}]}",
        "spec.targetRefs",
        "may not stand beside",
        "targetRefs: [",
    ),
    ("{targetRef: {kind: Service}}", "spec.targetRef.name", "is required", "targetRefs: ["),
]


@pytest.mark.parametrize(("spec", "field", "reason", "right"), REFUSED)
def test_a_mistake_is_refused_by_field_with_its_reason_and_an_example(
    spec: str, field: str, reason: str, right: str
) -> None:
    response = answered(policy(spec))
    assert response["allowed"] is False
    status = response["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"].startswith("AuthorizationPolicy shop/p: ")
    (cause,) = status["details"]["causes"]
    assert cause["field"].startswith(field)
    assert reason in cause["message"]
    assert reason in status["message"]
    assert right in status["message"]
    assert right in cause["message"]
    assert ("For example" in status["message"]) is bool(right)


OTHER_KINDS = [
    ("PeerAuthentication", "{mtls: {mode: STRIKT}}", "spec.mtls.mode", "mtls: {mode: STRICT}"),
    ("PeerAuthentication", "{portLevelMtls: {'8080': {mode: DISABLE}}}", "spec.portLevelMtls", "selector: {"),
    ("PeerAuthentication", "{mtls: STRICT}", "spec.mtls", "mtls: {mode: STRICT}"),
    ("RequestAuthentication", "{jwtRules: [{}]}", "spec.jwtRules[0]", "jwtRules: ["),
]


@pytest.mark.parametrize(("kind", "spec", "field", "right"), OTHER_KINDS)
def test_other_kinds_are_looked_at_as_well(kind: str, spec: str, field: str, right: str) -> None:
    response = answered(policy(spec, kind=kind))
    assert response["allowed"] is False
    assert response["status"]["details"]["causes"][0]["field"].startswith(field)
    assert right in response["status"]["message"]


def entry(spec: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "s", "namespace": "shop"},
        "spec": yaml.safe_load(spec),
    }


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{ports: [{number: 80, name: http}]}", "spec.hosts"),
        ("{hosts: [a.example], ports: [{number: 0, name: x}]}", "spec.ports[0].number"),
        ("{hosts: [a.example], ports: [{number: 80, name: x}], resolution: NEVER}", "spec.resolution"),
    ],
)
def test_entries_are_looked_at_as_well(spec: str, field: str) -> None:
    response = answered(entry(spec))
    assert response["allowed"] is False
    assert field in response["status"]["message"]


WARNED = [
    (policy(f"{{selector: {{matchLabels: {{app: db}}}}, rules: [{RULE}]}}"), "no pod in namespace shop has the labels"),
    (policy("{selector: {matchLabels: {app: db}}}", namespace="istio-system"), "no pod in any namespace"),
    (policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}"), "rules matching HTTP attributes are omitted"),
    (policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}"), "will have no effect"),
    (policy("{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['80']}}]}]}"), "without the HTTP rules"),
    (policy("{action: AUDIT, rules: [{}]}"), "does not support the AUDIT action"),
    (policy("{action: CUSTOM, provider: {name: x}, rules: [{}]}"), "does not support the CUSTOM action"),
    (policy("{rules: [{}]}", annotations={"istio.io/dry-run": "yes"}), "which is no boolean"),
    (policy("{rules: [{}]}", annotations={"istio.io/dry-run": "true"}), "dry-run"),
    (policy("{action: DENY}"), "denies nothing"),
    (policy("{rules: [{from: [{source: {principals: [other.example/ns/a/sa/b]}}]}]}"), "trust domain 'other.example'"),
    (policy("{rules: [{from: [{source: {namespaces: [shpo]}}]}]}"), "there is no namespace 'shpo' yet"),
    (policy("{rules: [{from: [{source: {serviceAccounts: [wbe]}}]}]}"), "no service account shop/wbe yet"),
    (policy("{rules: [{from: [{source: {serviceAccounts: [other/web]}}]}]}"), "no service account other/web yet"),
    (policy("{targetRefs: [{kind: Service, name: db}], rules: [{}]}"), "there is no Service shop/db yet"),
    (
        policy("{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: gone}], rules: [{}]}"),
        "there is no Gateway shop/gone yet",
    ),
    (
        policy("{targetRefs: [{kind: Service, name: web, namespace: other}], rules: [{}]}"),
        "not in the namespace of the policy",
    ),
    (policy("{mtls: {mode: STRICT}}", kind="PeerAuthentication"), "of several the oldest holds"),
    (
        policy(
            "{selector: {matchLabels: {app: web}}, portLevelMtls: {'80': {mode: DISABLE}}}", kind="PeerAuthentication"
        ),
        "the pods listen on 8080",
    ),
    (policy("{selector: {matchLabels: {app: db}}}", kind="PeerAuthentication"), "no pod in namespace shop"),
    (
        policy("{selector: {matchLabels: {app: db}}, jwtRules: [{issuer: a}]}", kind="RequestAuthentication"),
        "no pod in namespace shop",
    ),
    (
        policy("{jwtRules: [{issuer: a, jwksUri: 'http://a/keys'}]}", kind="RequestAuthentication"),
        "spec.jwtRules[0].jwksUri: keys are fetched by https only",
    ),
]


@pytest.mark.parametrize(("content", "words"), WARNED, ids=[words for _, words in WARNED])
def test_what_may_not_do_what_it_seems_to_is_written_with_a_warning(content: dict[str, Any], words: str) -> None:
    response = answered(content)
    assert response["allowed"] is True
    assert words in said(response)


def labelled(kind: str, labels: dict[str, str], spec: str = "{}") -> dict[str, Any]:
    where = {} if kind == "Namespace" else {"namespace": "shop"}
    metadata = {"name": "x", "labels": labels, **where}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": yaml.safe_load(spec)}


PORTS = "{selector: {app: web}, ports: [{port: 80}]}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (labelled("Namespace", {"istio.io/dataplane-mode": "Ambient"}), "'Ambient' means nothing"),
        (labelled("Namespace", {"istio.io/use-waypoint": "gone"}), "there is no Gateway x/gone"),
        (labelled("Service", {"istio.io/use-waypoint": "gone"}, PORTS), "there is no Gateway shop/gone"),
        (
            labelled(
                "Service", {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "other"}, PORTS
            ),
            "there is no Gateway other/waypoint",
        ),
        (labelled("Service", {}, "{ports: [{port: 0}]}"), "will not understand this object: spec.ports[0].port"),
    ],
)
def test_of_kubernetes_own_kinds_there_are_only_warnings(content: dict[str, Any], words: str) -> None:
    response = answered(content)
    assert response["allowed"] is True
    assert words in said(response)


@pytest.mark.parametrize(
    "content",
    [
        policy(f"{{selector: {{matchLabels: {{app: web}}}}, rules: [{RULE}]}}"),
        policy("{}"),
        policy("{rules: [{from: [{source: {serviceAccounts: [web, shop/web]}}]}]}"),
        policy("{rules: [{from: [{source: {principals: ['*', cluster.local/ns/a/sa/b]}}]}]}"),
        policy("{targetRefs: [{kind: Service, name: web}], rules: [{to: [{operation: {methods: [GET]}}]}]}"),
        policy(
            "{selector: {matchLabels: {app: web}}, portLevelMtls: {'8080': {mode: DISABLE}}}", kind="PeerAuthentication"
        ),
        labelled("Namespace", {"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "none"}),
        labelled("Service", {"istio.io/use-waypoint": "waypoint"}, PORTS),
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}},
    ],
)
def test_what_is_right_passes_without_a_word(content: dict[str, Any]) -> None:
    assert answered(content) == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize(
    "response",
    [
        answered(BAD, operation="DELETE"),
        answered(BAD, operation="CONNECT"),
        answered(BAD, subResource="status", operation="UPDATE"),
        answered({**BAD, "metadata": {**BAD["metadata"], "deletionTimestamp": "2026-05-04T12:00:00Z"}}),
        answered(
            BAD, operation="UPDATE", oldObject={**BAD, "metadata": {**BAD["metadata"], "finalizers": ["example.com/x"]}}
        ),
        answered({**BAD, "status": {"conditions": []}}, operation="UPDATE", oldObject=BAD),
        answered({**BAD, "apiVersion": "security.istio.io/v1beta1"}, operation="UPDATE", oldObject=BAD),
    ],
    ids=["delete", "connect", "status", "deleting", "finalizers", "status in place", "another version of the same"],
)
def test_what_goes_away_or_changes_nothing_of_meaning_is_never_refused(response: dict[str, Any]) -> None:
    assert response == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize(
    "before",
    [
        policy("{action: DENY}"),
        {**BAD, "metadata": {**BAD["metadata"], "labels": {"a": "b"}}},
        {**BAD, "metadata": {**BAD["metadata"], "annotations": {"a": "b"}}},
    ],
)
def test_an_update_that_changes_meaning_is_judged(before: dict[str, Any]) -> None:
    assert answered(BAD, operation="UPDATE", oldObject=before)["allowed"] is False


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease", "ambient-system"])
def test_namespaces_of_the_system_are_never_blocked(namespace: str) -> None:
    response = answered(policy("{action: ALOW}", namespace=namespace))
    assert response["allowed"] is True
    assert "spec.action" in said(response)


def test_a_dry_run_is_answered_like_any_other() -> None:
    assert answered(BAD, dryRun=True)["allowed"] is False


def test_an_object_whose_name_the_server_will_make_up_is_judged_too() -> None:
    content = policy("{rules: [{}]}")
    content["metadata"] = {"generateName": "p-", "namespace": "shop"}
    assert answered(content)["allowed"] is True
    content["spec"] = {"action": "ALOW"}
    assert answered(content)["allowed"] is False


def test_the_namespace_of_the_request_counts_where_the_object_has_none() -> None:
    content = policy("{selector: {matchLabels: {app: web}}, rules: [{}]}")
    del content["metadata"]["namespace"]
    assert "warnings" not in answered(content, namespace="shop")
    assert "namespace other" in said(answered(content, namespace="other"))


def test_before_the_cluster_is_known_only_the_object_itself_is_judged() -> None:
    nothing = View()
    assert answered(policy("{selector: {matchLabels: {app: db}}}"), seen=nothing) == {"uid": "u-1", "allowed": True}
    assert answered(BAD, seen=nothing)["allowed"] is False


def test_warnings_are_few_and_short_enough_to_arrive() -> None:
    sources = [{"source": {"namespaces": [f"{'n' * 50}{number}" for number in range(30)]}}]
    rules = [{"from": sources, "to": [{"operation": {"methods": ["x" * 400]}}]}]
    warned = answered({**policy("{}"), "spec": {"rules": rules}})["warnings"]
    assert len(warned) == MOST_WARNINGS
    assert max(map(len, warned)) <= LONGEST


@pytest.mark.parametrize("body", [None, [], {}, {"request": {}}, {"request": {"uid": 7}}, {"request": "x"}])
def test_what_is_no_review_is_said_to_be_none(body: object) -> None:
    with pytest.raises(InvalidInput, match="admission review"):
        review(body, VIEW)


@pytest.mark.parametrize("content", [None, 7, {"kind": 7}, {"kind": "AuthorizationPolicy"}, {"metadata": []}])
def test_an_object_of_no_form_is_refused_or_none_of_our_business_but_never_an_error(content: Any) -> None:
    request = {"uid": "u-1", "operation": "CREATE", "object": content}
    assert review({"request": request}, VIEW)["response"]["uid"] == "u-1"


def test_a_route_on_a_service_is_refused_by_field_and_one_of_another_controller_is_not_looked_at() -> None:
    ours: Any = changed(test_httproutes.ROUTE, "spec.rules.0.matches.0.method", "get")
    response = answered(ours)
    assert response["allowed"] is False
    assert response["status"]["details"]["causes"][0]["field"] == "spec.rules[0].matches[0].method"
    assert answered(test_httproutes.ROUTE)["allowed"] is True
    for parents in ([{"name": "edge"}], [{"kind": "Gateway", "name": "edge"}], "edge", [1]):
        assert answered(changed(ours, "spec.parentRefs", parents)) == {"uid": "u-1", "allowed": True}
