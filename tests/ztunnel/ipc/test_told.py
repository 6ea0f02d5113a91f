"""Each policy travels once to a worker; a number that means nothing there opens nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.model.policy import Action, Authorization, PolicyScope
from ztunnel.ipc.messages import PodPolicy, Policies
from ztunnel.ipc.told import AT_ONCE, SLACK, Known, Told


def policies(*names: str) -> tuple[Authorization, ...]:
    return tuple(
        Authorization(name=name, namespace="ns", scope=PolicyScope.NAMESPACE, action=Action.DENY) for name in names
    )


class Line:
    """Both ends of a channel."""

    def __init__(self) -> None:
        self.told = Told()
        self.known = Known()
        self.said: list[Policies] = []

    def pod(self, uid: str, have: tuple[Authorization, ...]) -> PodPolicy:
        """What the worker makes of a pod's policy."""
        for news in self.told.news(uid, have):
            self.said.append(news)
            self.known.take(news)
        short = self.told.short(PodPolicy(known=True, policies=have))
        assert short.policies == ()
        return self.known.whole(short)

    @property
    def names(self) -> list[str]:
        return [policy.name for message in self.said for _, policy in message.put]


def test_each_policy_travels_once_however_many_pods_have_it() -> None:
    line, (a, b, c) = Line(), policies("a", "b", "c")
    for n in range(3):
        assert line.pod(f"one{n}", (a, b)).policies == (a, b)
    assert line.pod("two", (c, b)).policies == (c, b)
    assert line.pod("three", (b,)) == PodPolicy(known=True, policies=(b,))
    assert line.names == ["a", "b", "c"]


def test_a_policy_that_is_replaced_travels_again_alone() -> None:
    line, (a, b) = Line(), policies("a", "b")
    line.pod("one", (a, b))
    changed = replace(a, action=Action.ALLOW)
    assert line.pod("one", (changed, b)).policies == (changed, b)
    assert line.pod("two", (a, b)).policies == (a, b), "who has not been told of the change keeps what there was"
    assert line.names == ["a", "b", "a"]


@pytest.mark.parametrize("count", [1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_many_come_in_several_messages(count: int) -> None:
    line, many = Line(), policies(*(f"p{i}" for i in range(count)))
    assert line.pod("one", many).policies == many
    assert max(len(message.put) for message in line.said) <= AT_ONCE


def test_what_nobody_has_any_more_is_forgotten_at_both_ends() -> None:
    line, (stays,) = Line(), policies("stays")
    line.pod("one", (stays,))
    for n in range(10 * SLACK):
        line.pod("two", policies(f"p{n}"))
    assert len(line.told._numbers) == len(line.known._policies) <= 2 * SLACK
    assert line.pod("three", (stays,)).policies == (stays,)
    line.told.forget("one")
    line.told.forget("three")
    for n in range(3 * SLACK):
        line.pod("two", policies(f"q{n}"))
    assert stays not in line.known._policies.values()


def test_a_number_that_means_nothing_counts_as_a_policy_that_is_missing() -> None:
    line, (a, b) = Line(), policies("a", "b")
    line.pod("one", (a,))
    untold = line.told.short(PodPolicy(known=True, policies=(a, b), missing=("ns/x",)))
    assert line.known.whole(untold) == PodPolicy(known=True, policies=(a,), missing=("ns/x", "(number 0)"))
    assert line.pod("one", (a, b)).policies == (a, b), "it is told as soon as it can be"
    line.known.clear()
    assert line.known.whole(line.told.short(PodPolicy(known=True, policies=(a,)))).missing != ()
