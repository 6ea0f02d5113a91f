"""Policies of a dump become the model's; an unknown field is refused, never skipped."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from ambient.cli.dump import parse_dump
from ambient.errors import InvalidInput
from ambient.model.dumped_policies import read_policy
from ambient.model.fields import Fields
from ambient.model.policy import (
    Action,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from tests.support.cli import GOLDEN

POLICIES = {policy.key: policy for policy in parse_dump(GOLDEN.read_bytes(), "n1").policies}


def test_every_kind_of_match_of_the_golden_dump_is_read() -> None:
    policy = POLICIES["gold/everything"]
    assert policy.scope is PolicyScope.NAMESPACE
    assert policy.action is Action.ALLOW
    assert policy.rules[0][0] == (Match(destination_ports=(80, 443), not_destination_ports=(81,)),)
    assert policy.rules[0][1] == (
        Match(
            namespaces=(StringMatch(StringMatchKind.EXACT, "a"), StringMatch(StringMatchKind.PREFIX, "b-")),
            not_namespaces=(StringMatch(StringMatchKind.EXACT, "c"),),
            not_principals=(StringMatch(StringMatchKind.SUFFIX, "bad"),),
            not_source_ips=(ip_network("10.1.0.0/16"),),
            principals=(
                StringMatch(StringMatchKind.PREFIX, "cluster.local/ns/"),
                StringMatch(StringMatchKind.SUFFIX, "/sa/x"),
                StringMatch(StringMatchKind.EXACT, "exact"),
            ),
            source_ips=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("1.2.3.4/32")),
        ),
        Match(
            not_service_accounts=(ServiceAccountMatch("mesh", "tools"),),
            service_accounts=(ServiceAccountMatch("mesh", "client"), ServiceAccountMatch("gold", "sa2")),
        ),
    )
    assert policy.rules[1] == (), "a rule without clauses matches everything and stays one"


def test_strict_is_a_deny_of_peers_without_principal() -> None:
    strict = POLICIES["istio-system/istio_converted_static_strict"]
    assert strict.action is Action.DENY
    assert strict.rules == (((Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),)),),),)


def test_a_policy_without_rules_stays_without() -> None:
    assert POLICIES["gold/allow-nothing"].rules == ()


def _policy(match: object) -> dict[str, Any]:
    return {"name": "p", "namespace": "n", "scope": "Global", "action": "Deny", "rules": [[[match]]]}


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (_policy({"paths": ["/x"]}), "unknown match: policies[0].rules[0][0][0]: paths"),
        (_policy({"namespaces": [{"Regex": "x"}]}), "unknown string match"),
        (_policy({"namespaces": [{"Exact": "x", "Prefix": "y"}]}), "not a string match"),
        (_policy({"sourceIps": ["10.0.0.1/8"]}), "not an address range"),
        (_policy({"destinationPorts": ["80"]}), "destinationPorts is not a list of numbers"),
        (_policy(7), "not an object"),
        (_policy({}) | {"rules": [[{}]]}, "rules are not nested lists"),
        (_policy({}) | {"action": "Audit"}, "action is not one of Allow, Deny"),
    ],
)
def test_what_we_do_not_understand_is_refused(raw: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_policy(Fields(raw, "policies[0]"))
    assert complaint in str(refused.value)


def test_every_rule_needs_its_number() -> None:
    raw = {**_policy({"namespaces": [{"Exact": "a"}]}), "ruleNumbers": [3]}
    assert read_policy(Fields(raw, "dump")).numbers == (3,)
    with pytest.raises(InvalidInput, match="ruleNumbers"):
        read_policy(Fields({**raw, "ruleNumbers": [3, 4]}, "dump"))
