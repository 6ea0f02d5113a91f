"""Warnings, where they must not be: what is there is not called missing, whoever wrote it first."""

from __future__ import annotations

from ambient.control.admission_checks import View, warnings
from ambient.kube.objects import PeerAuthentication, Records, parse_object
from tests.support.admission import VIEW, policy


def told(content: dict[str, object], view: View = VIEW) -> list[str]:
    return list(warnings(parse_object(content, "t"), view))


def test_the_only_policy_of_a_namespace_is_not_its_own_rival() -> None:
    assert told({**policy("{mtls: {mode: STRICT}}", kind="PeerAuthentication", name="default")}) == []


def test_another_name_of_our_trust_domain_is_ours() -> None:
    content = policy("{rules: [{from: [{source: {principals: [old.example/ns/a/sa/b]}}]}]}")
    assert len(told(content)) == 1
    assert told(content, View(trust_domains=frozenset({"cluster.local", "old.example"}))) == []


def test_a_policy_of_the_root_namespace_selects_everywhere() -> None:
    assert told(policy("{selector: {matchLabels: {app: web}}}", namespace="istio-system")) == []


def test_nothing_is_missing_before_the_cluster_is_known() -> None:
    record = parse_object(policy("{selector: {matchLabels: {app: db}}}", kind="PeerAuthentication"), "t")
    assert isinstance(record, PeerAuthentication)
    assert list(warnings(record, View(Records()))) == []


def test_a_dry_run_that_is_served_is_worth_no_warning() -> None:
    content = policy("{rules: [{}]}", annotations={"istio.io/dry-run": "true"})
    assert told(content, View(dry_run=True)) == []
    assert len(told(content, View())) == 1
