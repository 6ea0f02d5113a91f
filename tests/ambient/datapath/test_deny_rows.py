"""Names become numbers that stay, and numbers become names again."""

from __future__ import annotations

from ambient.datapath import deny_rows
from ambient.datapath.deny import DenyRow
from ambient.datapath.deny_rows import Numbers
from ambient.model.deny import ANY_PORT, Bits, Row, Says, Shades
from ambient.model.outcome import Denied, DryRun, Effect, Reason


def test_a_denial_keeps_its_number_and_none_is_nought() -> None:
    numbers = Numbers()
    one, two = Denied(Reason.DENIED_BY, "a/one"), Denied(Reason.NO_ALLOW_MATCHED, "a/one")
    rows = [Row(80, (0, 0), Says(Bits.REFUSES, denial)) for denial in (one, two, one, None)]
    told = deny_rows.enforced(rows, numbers)
    assert [row.rule for row in told] == [1, 2, 1, 0]
    assert told[0] == DenyRow(80, (0, 0), Bits.REFUSES, 1)
    assert [numbers.denial(number) for number in (0, 1, 2, 3)] == [None, one, two, None]
    assert numbers.effects(1) == frozenset()


def test_sets_are_numbered_by_effect_and_the_new_ones_are_told() -> None:
    numbers = Numbers()
    both = frozenset({"a/one", "a/two"})
    rows = [Row(ANY_PORT, (0, 0), Shades(unmatched="a/one")), Row(80, (0, 0), Shades(both, both))]
    any_port, own = deny_rows.shadow(rows, numbers)
    assert (any_port.rule, any_port.allows, any_port.unmatched) == (0, 0, 1)
    assert numbers.made == [1, own.rule, own.allows]
    assert numbers.effects(own.allows) == {DryRun(policy, Effect.WOULD_ALLOW) for policy in both}
    assert numbers.effects(any_port.unmatched) == {DryRun("a/one", Effect.WOULD_DENY)}
    assert deny_rows.shadow(rows, numbers) == [any_port, own]
    assert numbers.effects(99) == frozenset()
