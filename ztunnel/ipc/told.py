"""Policies on their way to a worker: each travels once, however many pods of the node it is for, and goes by number.

Whole sets would be thousands of policies times a hundred pods at every change. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import is_
from typing import Final

from ambient.model.policy import Authorization
from ztunnel.ipc.messages import PodPolicy, Policies

AT_ONCE: Final = 16
"""Policies in one message: the largest have a megabyte."""
SLACK: Final = 64
"""So many that nobody has any more are not worth looking for."""
_NEVER_TOLD: Final = 0


class Told:
    """What one worker has been told, at the director. Policies are told apart as objects: discovery replaces those that
    differ and keeps the others."""

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[int, Authorization]] = {}
        self._of: dict[str, tuple[Authorization, ...]] = {}
        self._next = _NEVER_TOLD + 1
        self._look_at = SLACK
        self._last: tuple[tuple[Authorization, ...], tuple[int, ...]] = ((), ())

    def news(self, uid: str, policies: tuple[Authorization, ...]) -> Iterator[Policies]:
        """What has to be said before `short`. Each message counts as told when the next one is asked for."""
        self._of[uid] = policies
        fresh = [policy for policy in policies if id(policy) not in self._numbers]
        for begin in range(0, len(fresh), AT_ONCE):
            numbered = list(enumerate(fresh[begin : begin + AT_ONCE], self._next))
            yield Policies(put=tuple(numbered))
            self._numbers.update((id(policy), (number, policy)) for number, policy in numbered)
            self._next += len(numbered)
        if len(self._numbers) > self._look_at:
            gone = self._unused()
            self._look_at = 2 * len(self._numbers) + SLACK
            if gone:
                yield Policies(gone=gone)

    def short(self, policy: PodPolicy) -> PodPolicy:
        """The same with numbers in the place of policies; what was not told has one that the worker does not know."""
        policies, numbers = self._last
        if len(policies) != len(policy.policies) or not all(map(is_, policies, policy.policies)):
            policies = policy.policies
            numbers = tuple(self._numbers.get(id(one), (_NEVER_TOLD,))[0] for one in policies)
            self._last = (policies, numbers) if _NEVER_TOLD not in numbers else ((), ())
        return replace(policy, policies=(), numbers=numbers)

    def forget(self, uid: str) -> None:
        """The worker has this pod no more."""
        self._of.pop(uid, None)

    def _unused(self) -> tuple[int, ...]:
        used: set[int] = set()
        for policies in self._of.values():
            used.update(map(id, policies))
        gone = [key for key in self._numbers if key not in used]
        if gone:
            self._last = ((), ())
        return tuple(self._numbers.pop(key)[0] for key in gone)


class Known:
    """What the director has told, at a worker."""

    def __init__(self) -> None:
        self._policies: dict[int, Authorization] = {}

    def take(self, message: Policies) -> None:
        self._policies.update(message.put)
        for number in message.gone:
            self._policies.pop(number, None)

    def whole(self, policy: PodPolicy) -> PodPolicy:
        """With the policies in the place of their numbers. A number that is not known counts as a policy that was not
        received: it may be what refuses."""
        if not policy.numbers:
            return policy
        known = self._policies
        found = tuple(known[number] for number in policy.numbers if number in known)
        lost = tuple(f"(number {number})" for number in policy.numbers if number not in known)
        policies, missing = (*policy.policies, *found), (*policy.missing, *lost)
        return replace(policy, policies=policies, missing=missing, numbers=())

    def clear(self) -> None:
        """Another director begins to count anew."""
        self._policies.clear()
