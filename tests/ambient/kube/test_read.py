"""The cursor over decoded documents."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.kube.read import Field, Object

DOCUMENT = {"text": "x", "number": 3, "flag": True, "list": ["a"], "map": {"k": "v"}, "null": None}
TOP = Field(DOCUMENT, "", "what").open_object()


def test_values_are_read_by_type_with_defaults_for_absent_and_null() -> None:
    assert (TOP.text("text"), TOP.text("no", "d"), TOP.text("null", "d")) == ("x", "d", "d")
    assert (TOP.integer("number", 0, 0, 9), TOP.integer("no", 7, 0, 9)) == (3, 7)
    assert (TOP.flag("flag"), TOP.flag("no"), TOP.flag("no", True)) == (True, False, True)
    assert (TOP.texts("list"), TOP.texts("no")) == (("a",), ())
    assert (TOP.text_map("map"), TOP.text_map("no")) == ({"k": "v"}, {})
    assert TOP.present("text", "null", "no", "map") == ["text", "map"]


@pytest.mark.parametrize(
    ("read", "where"),
    [
        (lambda: TOP.text("number"), "number"),
        (lambda: TOP.integer("flag", 0, 0, 9), "flag"),
        (lambda: TOP.integer("number", 0, 4, 9), "number"),
        (lambda: TOP.flag("number"), "number"),
        (lambda: TOP.texts("map"), "map"),
        (lambda: TOP.texts("text"), "text"),
        (lambda: TOP.text_map("list"), "list"),
        (lambda: TOP.need("null"), "null"),
        (lambda: TOP.need("map").object(("other",)), "map.k"),
        (lambda: TOP.need("list").items()[0].integer(0, 1), "list[0]"),
    ],
)
def test_a_wrong_type_is_refused_at_its_path(read: object, where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read()  # type: ignore[operator]
    assert (caught.value.what, caught.value.where) == ("what", where)


def test_unknown_keys_are_passed_over_only_when_observed() -> None:
    with pytest.raises(InvalidInput):
        Field({"a": 1}, "p", "what").object(("b",))
    observed = Field({"a": {"x": 1}}, "p", "what", True).object(("b",))
    assert isinstance(observed.need("a").object(("y",)), Object)
