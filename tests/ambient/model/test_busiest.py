"""What is used most has a line of its own, and whatever has none is counted all the same."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.model.busiest import Busiest


@dataclass
class Count:
    key: tuple[str, ...]
    uses: int = 0


def use(found: Busiest[Count], *names: str) -> None:
    for name in names:
        found.at(("a", name)).uses += 1


def lines(found: Busiest[Count]) -> dict[str, int]:
    return {one.key[1]: one.uses for one in found.values()}


def busiest(limit: int) -> Busiest[Count]:
    return Busiest(limit, Count, lambda key: (key[0], "rest"))


def test_what_there_is_no_room_for_is_counted_together() -> None:
    found = busiest(2)
    use(found, "x", "y", "z", "w", "x")
    assert lines(found) == {"x": 2, "y": 1, "rest": 2}
    assert found.overflowed == 2


def test_a_busy_one_takes_the_line_of_a_quiet_one_and_nothing_is_counted_twice() -> None:
    found = busiest(1)
    use(found, "x", "y", "y", "y")
    found.rank()
    use(found, "x", "y")
    assert lines(found) == {"y": 1, "rest": 4}


def test_two_that_are_about_as_busy_do_not_take_turns() -> None:
    found = busiest(1)
    use(found, "x", "y", "y")
    found.rank()
    assert lines(found) == {"x": 1, "rest": 2}


def test_as_many_names_as_anybody_makes_up_take_no_more_room() -> None:
    found = busiest(3)
    use(found, *map(str, range(1000)))
    assert sum(lines(found).values()) == 1000
    assert len(lines(found)) == 4
