"""From rows with the names of policies to rows with numbers, and back. Pure.

Numbers are given once and kept: a row of yesterday's table and a count of last year's set mean the same today.
"""

from __future__ import annotations

from collections.abc import Iterable

from ambient.datapath.deny import DenyRow
from ambient.model.deny import Row, Says, Shades
from ambient.model.outcome import DryRun, Effect


class Numbers:
    """`made`: sets of dry-run effects that were numbered since it was last emptied."""

    def __init__(self) -> None:
        self._rules: dict[str, int] = {"": 0}
        self._names: list[str] = [""]
        self._sets: dict[frozenset[DryRun], int] = {frozenset(): 0}
        self._effects: list[frozenset[DryRun]] = [frozenset()]
        self.made: list[int] = []

    def of_rule(self, policy: str) -> int:
        number = self._rules.setdefault(policy, len(self._names))
        if number == len(self._names):
            self._names.append(policy)
        return number

    def rule(self, number: int) -> str:
        """The policy's key; "" for a number that nobody has."""
        return self._names[number] if number < len(self._names) else ""

    def of_set(self, policies: Iterable[str], effect: Effect) -> int:
        effects = frozenset(DryRun(policy, effect) for policy in policies)
        number = self._sets.setdefault(effects, len(self._effects))
        if number == len(self._effects):
            self._effects.append(effects)
            self.made.append(number)
        return number

    def effects(self, number: int) -> frozenset[DryRun]:
        return self._effects[number] if number < len(self._effects) else frozenset()


def enforced(rows: Iterable[Row[Says]], numbers: Numbers) -> list[DenyRow]:
    return [DenyRow(row.port, row.block, row.says.bits, numbers.of_rule(row.says.rule)) for row in rows]


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
