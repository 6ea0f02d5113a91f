"""Who selects whom, in both directions, also after things were taken away again."""

from __future__ import annotations

from ambient.control.derive_select import ByLabel, Labelled


def test_selectors_are_found_by_any_label() -> None:
    index = ByLabel()
    index.add("ns", {"a": "1", "b": "2"}, "both")
    index.add("ns", {"b": "2"}, "b")
    index.add("ns", {}, "all")
    index.add("other", {"b": "2"}, "other")
    assert sorted(index.names("ns", {"a": "1", "b": "2", "c": "3"})) == ["all", "b", "both"]
    assert sorted(index.names("ns", {"a": "1"})) == ["all"]
    assert sorted(index.names("none", {"a": "1"})) == []


def test_a_selector_that_is_taken_back_selects_nothing() -> None:
    index = ByLabel()
    for selector in ({"a": "1"}, {"a": "1", "b": "2"}, {}):
        index.add("ns", selector, "x")
        assert list(index.names("ns", {"a": "1", "b": "2"})) == ["x"]
        index.discard("ns", selector, "x")
        assert list(index.names("ns", {"a": "1", "b": "2"})) == []
    index.discard("ns", {"never": "there"}, "x")


def test_labelled_things_are_found_by_any_selector() -> None:
    things = Labelled()
    things.put("ns", {"a": "1", "b": "2"}, "both")
    things.put("ns", {"b": "2"}, "b")
    things.put("other", {"b": "2"}, "other")
    things.put("ns", {}, "bare")
    assert things.selected("ns", {"b": "2"}) == {"both", "b"}
    assert things.selected("ns", {"a": "1", "b": "2"}) == {"both"}
    assert things.selected(None, {"b": "2"}) == {"both", "b", "other"}
    assert things.selected("ns", {}) == {"both", "b", "bare"}
    assert things.selected(None, {}) == {"both", "b", "bare", "other"}
    assert things.selected("ns", {"c": "3"}) == set()


def test_a_thing_that_is_put_again_or_taken_away_is_found_by_its_old_labels_no_more() -> None:
    things = Labelled()
    things.put("ns", {"a": "1"}, "x")
    things.put("ns", {"a": "2"}, "x")
    assert (things.selected("ns", {"a": "1"}), things.selected("ns", {"a": "2"})) == (set(), {"x"})
    things.discard("x")
    things.discard("x")
    assert things.selected(None, {"a": "2"}) == things.selected(None, {}) == set()
