"""What was asked for on demand: once each, bounded, and a miss is given back after a while."""

from __future__ import annotations

from ambient.xds.demand import Demand


def test_each_name_is_asked_for_once_until_it_is_answered() -> None:
    demand = Demand()
    assert demand.ask(["a", "b", "a"]) == ("a", "b")
    assert demand.ask(["a", "c"]) == ("c",)
    assert demand.pending == ("a", "b", "c")
    demand.answered(["a", "alias-of-a"], ["b"])
    assert demand.pending == ("c",)
    assert (demand.decided("a"), demand.decided("b"), demand.decided("c")) == (True, True, False)
    assert demand.ask(["a", "b"]) == ()


def test_an_answer_holds_for_one_to_two_ages_and_only_what_was_missing_is_given_back() -> None:
    demand = Demand()
    demand.ask(["there", "missing"])
    demand.answered(["there"], ["missing"])
    assert demand.age() == ()
    assert demand.decided("missing")
    assert demand.age() == ("missing",)
    assert not demand.decided("missing")
    assert not demand.decided("there")
    assert demand.ask(["missing"]) == ("missing",)


def test_what_nobody_asked_for_decides_nothing() -> None:
    demand = Demand()
    demand.answered(["a"], ["b"])
    assert not demand.decided("a")
    assert not demand.decided("b")


def test_who_asks_for_ever_new_names_leaves_room_for_others() -> None:
    demand = Demand(most=8)
    assert demand.ask([f"a{number}" for number in range(9)], "flood") == ("a0", "a1")
    demand.answered([], ["a0", "a1"])
    assert demand.ask(["a2"], "flood") == ()
    assert demand.ask(["b"], "other") == ("b",)
    demand.age()
    assert demand.ask(["a2"], "flood") == ()
    demand.age()
    assert demand.ask(["a2", "a3", "a4"], "flood") == ("a2", "a3")


def test_a_pod_that_asks_for_ever_new_names_does_not_grow_the_list() -> None:
    demand = Demand(most=3)
    assert demand.ask(["a", "b", "c", "d"]) == ("a", "b", "c")
    demand.answered([], ["a", "b", "c"])
    assert demand.ask(["d"]) == ()
    assert not demand.decided("d")
    demand.age()
    demand.age()
    assert demand.ask(["d"]) == ("d",)
