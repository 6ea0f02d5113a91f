"""The policies that judging is measured with are judged as the definition says, and a missed budget is said."""

from __future__ import annotations

import pytest

from ambient.model.decide import PolicyIndex, judge_naive
from ambient.model.outcome import Allowed, Denied
from bench.judging import KINDS, RULES, Judging, connections, lines, policies
from bench.stats import Ratio


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [10, 200])
def test_the_index_judges_the_measured_connections_as_the_definition_does(count: int, kind: str) -> None:
    made = policies(count, kind)
    assert len(made) == count
    assert all(len(policy.rules) == RULES for policy in made)
    assert len({rule for policy in made for rule in policy.rules}) == count * RULES
    index = PolicyIndex(made)
    verdicts = [index.judge(one) for one in connections(count, kind).values()]
    for one, verdict in zip(connections(count, kind).values(), verdicts, strict=True):
        assert type(verdict) is type(judge_naive(made, (), one))
    assert [type(verdict) for verdict in verdicts[:2]] == [Allowed, Denied]


def test_a_budget_counts_as_held_by_the_bound_of_its_interval_only() -> None:
    held = Judging("principals", "any", 1.0, 1.1, Ratio(1.1, 1.05, 1.19, 7))
    wide = Judging("principals", "any", 1.0, 1.1, Ratio(1.1, 0.9, 1.21, 7))
    slow = Judging("principals", "any", 5.0, 5.1, Ratio(1.02, 1.0, 1.04, 7))
    assert (held.held, wide.held, slow.held) == (True, False, False)
    assert [line.endswith("| held |") for line in lines([held, wide, slow])[-3:]] == [True, False, False]
