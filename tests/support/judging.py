"""The comparison of the index with the definition: random policies and connections, the same verdicts and dry runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from ambient.model.decide import PolicyIndex, dry_run_naive, judge_naive
from ambient.model.outcome import Connection, Reason, Verdict
from ambient.model.policy import Authorization
from tests.support.policies import random_connection, random_policies

SIZES: Final = (0, 1, 2, 3, 3, 5, 5, 8, 20)
"""Policies in a set; each is met with many connections, which costs less than making sets."""
CONNECTIONS: Final = 100


def comparable(verdict: Verdict) -> tuple[object, ...]:
    """Everything but the hint of a refusal because nothing allowed."""
    hint = verdict.reason is Reason.NO_ALLOW_MATCHED
    return type(verdict), verdict.reason, "" if hint else verdict.policy


def disagreement(
    policies: Sequence[Authorization], index: PolicyIndex, connections: Iterable[Connection]
) -> Connection | None:
    """A connection that the index judges otherwise than the definition."""
    for one in connections:
        if comparable(index.judge(one)) != comparable(judge_naive(policies, (), one)):
            return one
    return None


def compare(seed: int, pairs: int) -> Counter[Reason]:
    """Judge `pairs` pairs of policies and connection both ways; the verdicts found. Raises AssertionError."""
    random = Random(seed)
    pool = [random_connection(random) for _ in range(2_000)]
    found: Counter[Reason] = Counter()
    for _ in range(-(-pairs // CONNECTIONS)):
        policies = random_policies(random, random.choice(SIZES))
        index = PolicyIndex(policies)
        for number, one in enumerate(random.sample(pool, CONNECTIONS)):
            verdict, expected = index.judge(one), judge_naive(policies, (), one)
            assert comparable(verdict) == comparable(expected), (verdict, expected, policies, one)
            found[verdict.reason] += 1
            if number % 5 == 0:
                assert set(index.dry_run(one, verdict)) == set(dry_run_naive(policies, one, verdict)), (policies, one)
    return found
