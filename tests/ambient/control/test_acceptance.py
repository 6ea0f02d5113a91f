"""Who has taken which version of a policy, over several replicas with revisions of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambient.control.acceptance import Acceptance, Sight
from ambient.errors import InvalidInput
from ambient.kube.objects import Records, RefusedObject
from tests.support.acceptance import KEY, Stream, records


def said(one: Acceptance, *pages: Mapping[str, Any], silent: bool = False) -> tuple[str, str, str]:
    found = one.verdict(KEY, Sight(pages, silent=silent))
    assert found is not None
    return found.status, found.reason, found.message


def test_a_policy_is_enforced_when_every_node_has_acknowledged_its_revision() -> None:
    one = Acceptance()
    assert one.hear(records(7)) == [KEY]
    assert said(one, one.page([("n1", Stream(7)), ("n2", Stream(6))])) == (
        "Unknown",
        "Pending",
        "accepted by 1 of 2 nodes; waiting for n2",
    )
    assert said(one, one.page([("n1", Stream(7)), ("n2", Stream(9))])) == (
        "True",
        "Accepted",
        "accepted by 2 of 2 nodes",
    )


def test_a_node_has_it_when_all_of_its_streams_have() -> None:
    one = Acceptance()
    one.hear(records(7))
    page = one.page([("n1", Stream(7)), ("n1", Stream(3))])
    assert said(one, page)[2] == "accepted by 0 of 1 nodes; waiting for n1"


def test_what_changes_elsewhere_does_not_ask_for_it_again() -> None:
    one = Acceptance()
    one.hear(records(7))
    assert one.hear(records(8, changed=False)) == []
    assert said(one, one.page([("n1", Stream(7))]))[0] == "True"


def test_replicas_count_for_themselves() -> None:
    one, two = Acceptance(), Acceptance()
    one.hear(records(7))
    two.hear(records(1007))
    ours = one.page([("n1", Stream(7))])
    assert said(one, ours, two.page([("n2", Stream(1006))]))[0] == "Unknown"
    assert said(one, ours, two.page([("n2", Stream(1007))])) == ("True", "Accepted", "accepted by 2 of 2 nodes")


def test_a_replica_that_does_not_know_this_version_yet_has_told_nobody() -> None:
    one, two = Acceptance(), Acceptance()
    one.hear(records(7, generation=2))
    two.hear(records(1007, generation=1))
    pages = (one.page([("n1", Stream(7))]), two.page([("n2", Stream(2000))]))
    assert said(one, *pages)[2] == "accepted by 1 of 2 nodes; waiting for n2"
    two.hear(records(1008, generation=2, uid="another"))
    assert said(one, one.page([("n1", Stream(7))]), two.page([("n2", Stream(2000))]))[0] == "Unknown"


def test_a_replica_that_does_not_answer_leaves_it_open() -> None:
    one = Acceptance()
    one.hear(records(7))
    status, reason, message = said(one, one.page([("n1", Stream(7))]), silent=True)
    assert (status, reason) == ("Unknown", "Pending")
    assert "another replica does not say" in message


def test_who_refuses_it_is_named_with_the_reason() -> None:
    one = Acceptance()
    one.hear(records(7))
    page = one.page([("n1", Stream(7)), ("n2", Stream(7, {"shop/deny": "rule 3: no such port"}))])
    assert said(one, page) == ("False", "Refused", "accepted by 1 of 2 nodes; n2 refuses it: rule 3: no such port")
    other = one.page([("n1", Stream(7)), ("n2", Stream(7, {"shop/other": "no"}))])
    assert said(one, other)[0] == "True"


def test_without_nodes_nothing_is_enforced() -> None:
    one = Acceptance()
    one.hear(records(7))
    assert said(one, one.page([]))[:2] == ("Unknown", "NoNodes")


def test_what_is_gone_or_refused_has_no_verdict() -> None:
    one = Acceptance()
    one.hear(records(7))
    refused = RefusedObject("AuthorizationPolicy", "shop", "deny", InvalidInput("x"), stands=True)
    stands = records(8)
    one.hear(Records(8, stands.by_key, (refused,), changed=frozenset({KEY})))
    assert one.verdict(KEY, Sight([one.page([])])) is None
    one.hear(records(9))
    one.hear(Records(10, {}, changed=frozenset({KEY})))
    assert one.verdict(KEY, Sight([one.page([])])) is None


def test_a_replica_without_nodes_keeps_nobody_waiting() -> None:
    one, two = Acceptance(), Acceptance()
    one.hear(records(7))
    assert said(one, one.page([("n1", Stream(7))]), two.page([]))[0] == "True"
