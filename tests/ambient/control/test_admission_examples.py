"""Every example of right is right: what we tell people to write passes our own reading."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ambient.control.admission_examples import example
from ambient.kube.objects import parse_object

POLICY_PARTS = {
    "spec.rules[0].from[0].source.principals[0]": "rules: [{{from: [{{source: {{principals: {0}}}}}]}}]",
    "spec.rules[0].from[0].source.notPrincipals[1]": "rules: [{{from: [{{source: {{notPrincipals: {0}}}}}]}}]",
    "spec.rules[0].from[0].source.requestPrincipals[0]": "rules: [{{from: [{{source: {{requestPrincipals: {0}}}}}]}}]",
    "spec.rules[0].from[0].source.namespaces[0]": "rules: [{{from: [{{source: {{namespaces: {0}}}}}]}}]",
    "spec.rules[0].from[0].source.serviceAccounts[0]": "rules: [{{from: [{{source: {{serviceAccounts: {0}}}}}]}}]",
    "spec.rules[0].from[0].source.ipBlocks[0]": "rules: [{{from: [{{source: {{ipBlocks: {0}}}}}]}}]",
    "spec.rules[0].from[0].source.notRemoteIpBlocks[0]": "rules: [{{from: [{{source: {{notRemoteIpBlocks: {0}}}}}]}}]",
    "spec.rules[0].from[0].source": "rules: [{{from: [{{{0}}}]}}]",
    "spec.rules[0].to[0].operation.methods": "rules: [{{to: [{{operation: {{{0}}}}}]}}]",
    "spec.rules[0].to[0].operation": "rules: [{{to: [{{{0}}}]}}]",
    "spec.rules[0].when[0].key": "rules: [{{when: [{{{0}}}]}}]",
    "spec.rules[0].when[0]": "rules: [{{when: [{0}]}}]",
    "spec.rules[0].from": "rules: [{{{0}}}]",
    "spec.rules[0].to": "rules: [{{{0}}}]",
    "spec.rules": "{0}",
    "spec.action": "{0}",
    "spec.provider": "{0}",
    "spec.selector": "{0}",
    "spec.targetRefs": "{0}",
}


@pytest.mark.parametrize("field", POLICY_PARTS)
def test_what_is_shown_for_a_policy_is_a_policy(field: str) -> None:
    found = example(field)
    assert found
    _right("security.istio.io/v1", "AuthorizationPolicy", POLICY_PARTS[field].format(found))


def test_a_port_is_shown_quoted() -> None:
    assert example("spec.rules[0].to[0].operation.ports[0]").startswith('["8080"]')


@pytest.mark.parametrize(
    ("kind", "group", "field", "spec"),
    [
        ("PeerAuthentication", "security.istio.io/v1", "spec.mtls", "{0}"),
        ("PeerAuthentication", "security.istio.io/v1", "spec.portLevelMtls", "{0}"),
        ("RequestAuthentication", "security.istio.io/v1", "spec.jwtRules[0].issuer", "{0}"),
        ("ServiceEntry", "networking.istio.io/v1", "spec.hosts", "{0}, ports: [{{number: 80, name: http}}]"),
        ("ServiceEntry", "networking.istio.io/v1", "spec.ports[0].number", "hosts: [a.example], {0}"),
        (
            "ServiceEntry",
            "networking.istio.io/v1",
            "spec.resolution",
            "hosts: [a.example], ports: [{{number: 80, name: http}}], {0}",
        ),
        ("WorkloadEntry", "networking.istio.io/v1", "spec.address", "{0}"),
        ("DestinationRule", "networking.istio.io/v1", "spec.host", "{0}"),
        ("Gateway", "gateway.networking.k8s.io/v1", "spec.listeners", "gatewayClassName: istio-waypoint, {0}"),
    ],
)
def test_what_is_shown_for_other_kinds_is_right_too(kind: str, group: str, field: str, spec: str) -> None:
    found = example(field)
    assert found
    _right(group, kind, spec.format(found))


def test_where_we_know_nothing_good_nothing_is_shown() -> None:
    assert example("spec.unheardOf") == ""
    assert example("") == ""


def _right(group: str, kind: str, spec: str) -> None:
    content: dict[str, Any] = yaml.safe_load(f"{{apiVersion: {group}, kind: {kind}, spec: {{{spec}}}}}")
    if "portLevelMtls" in content["spec"]:
        content["spec"]["portLevelMtls"] = {str(k): v for k, v in content["spec"]["portLevelMtls"].items()}
    parse_object({**content, "metadata": {"name": "p", "namespace": "shop"}}, "example")
