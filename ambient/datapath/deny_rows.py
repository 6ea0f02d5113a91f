"""From rows with their meaning to rows with numbers, and back. Pure.

Numbers are given once and kept: a row of yesterday's table and a count of last year's set mean the same today.
"""

from __future__ import annotations

from collections.abc import Iterable

from ambient.datapath.deny import DenyRow
from ambient.model.deny import Row, Says, Shades
from ambient.model.outcome import Denied, DryRun, Effect

Meaning = Denied | frozenset[DryRun]
"""What a row refuses with, or the dry-run policies that match."""


class Numbers:
    """`made`: numbers that were given since it was last emptied. 0 means nothing. `after`: the one before the first."""

    def __init__(self, after: int = 0) -> None:
        nothing: Meaning = frozenset()
        self._after = after
        self._numbers: dict[Meaning, int] = {nothing: 0}
        self._meanings: list[Meaning] = [nothing]
        self.made: list[int] = []

    def of(self, meaning: Meaning) -> int:
        following = self._after + len(self._meanings)
        number = self._numbers.setdefault(meaning, following)
        if number == following:
            self._meanings.append(meaning)
            self.made.append(number)
        return number

    def of_set(self, policies: Iterable[str], effect: Effect) -> int:
        return self.of(frozenset(DryRun(policy, effect) for policy in policies))

    def denial(self, number: int) -> Denied | None:
        """None for a number that means something else, or that nobody has."""
        found = self._meaning(number)
        return found if isinstance(found, Denied) else None

    def effects(self, number: int) -> frozenset[DryRun]:
        """Empty for a number that means something else, or that nobody has."""
        found = self._meaning(number)
        return found if isinstance(found, frozenset) else frozenset()

    def _meaning(self, number: int) -> Meaning | None:
        place = number - self._after
        return self._meanings[place] if 0 < place < len(self._meanings) else None


def enforced(rows: Iterable[Row[Says]], numbers: Numbers) -> list[DenyRow]:
    return [
        DenyRow(
            row.port,
            row.block,
            row.says.bits,
            0 if row.says.denial is None else numbers.of(row.says.denial),
        )
        for row in rows
    ]


def shadow(rows: Iterable[Row[Shades]], numbers: Numbers) -> list[DenyRow]:
    return [
        DenyRow(
            row.port,
            row.block,
            rule=numbers.of_set(row.says.denies, Effect.WOULD_DENY),
            allows=numbers.of_set(row.says.allows, Effect.WOULD_ALLOW),
            unmatched=numbers.of_set([row.says.unmatched] if row.says.unmatched else (), Effect.WOULD_DENY),
        )
        for row in rows
    ]
