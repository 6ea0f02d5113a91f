"""YAML's hazards, each with the reason it is refused, and what goes through unharmed."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube import yaml
from ambient.kube.objects import Namespace
from ambient.kube.yaml import decode_documents, parse_documents, parse_each

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAME}\n"


def namespace(name: str) -> str:
    return NAMESPACE.replace("NAME", name)


def decoded(text: str) -> list[Any]:
    return [value for _, value in decode_documents(text, "f.yaml")]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("a: 1\na: 2", "line 2", "the key 'a' is there twice"),
        ("x: {a: 1, b: 2, a: 3}", "line 1", "the key 'a' is there twice"),
        ("a: 1\n'a': 2", "line 2", "the key 'a' is there twice"),
        ("0x10: a", "line 1", "the key 16 is not a string"),
        ("1.5: a", "line 1", "the key 1.5 is not a string"),
        ("true: a", "line 1", "the key True is not a string"),
        ("null: a", "line 1", "the key None is not a string"),
        ("{[a]: b}", "line 1", "the key [] is not a string"),
        ("? {a: b}\n: c", "line 1", "the key {} is not a string"),
        ("\ta: b", "line 1, column 1", "cannot start any token"),
        ("a:\n\t- b", "line 2, column 1", "cannot start any token"),
        ("a: [", "line 2, column 1", "did not find expected"),
        ("a: 'x", "line 1, column 6", "unexpected end"),
        ("a: b: c", "line 1, column 5", "not allowed in this context"),
        ("<<: {a: b}", "line 1", "merge keys"),
        ("a: *b", "line 1", "the alias *b stands for nothing"),
        ("a: &a [*a]", "line 1", "the alias *a stands for nothing"),
        (BOMB, "line 5", "more than 50000 values"),
        ("[" * 65 + "]" * 65, "line 1", "nested deeper than 64"),
        ("[" * 100_000, "line 1", "nested deeper than 64"),
        ("a: !!python/object/apply:os.system [x]", "line 1", "is not allowed"),
        ("a: !!binary aGk=", "line 1", "is not allowed"),
        ("a: !custom x", "line 1", "is not allowed"),
        ("a: !!set {x}", "line 1", "is not allowed"),
        ("a: !!int x", "line 1", "'x' is not a number"),
        ("a: .inf", "line 1", ".inf is not a number that JSON knows"),
        ("a: .nan", "line 1", ".nan is not a number that JSON knows"),
        ("a: \x00", "", "not allowed"),
        ("a: \udc80", "", "not valid Unicode"),
        ("%TAG ! tag:evil,2000:\n---\na: !x y", "line 3", "is not allowed"),
    ],
)
def test_hazards_are_refused(text: str, where: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decoded(text)
    assert (caught.value.where, why in caught.value.why) == (where, True), str(caught.value)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "MAX_BYTES", 10)
    with pytest.raises(InvalidInput, match="larger than 10 bytes"):
        decoded("a: 12345678")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": True}),
        ("a: 'yes'", {"a": "yes"}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: 2026-01-02T03:04:05Z", {"a": "2026-01-02T03:04:05Z"}),
        ("a: 2026-01-02", {"a": "2026-01-02"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 0x1F", {"a": 31}),
        ("a: 010", {"a": 8}),
        ("a: 1_000", {"a": 1000}),
        ("a: -5", {"a": -5}),
        ("a: 1.5", {"a": 1.5}),
        ("a: !!str 5", {"a": "5"}),
        ("a: '<<'", {"a": "<<"}),
        ("'<<': 1", {"<<": 1}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ('{"json": [1, "two", null, true]}', {"json": [1, "two", None, True]}),
    ],
)
def test_values_are_what_kubernetes_takes_them_for(text: str, value: object) -> None:
    assert decoded(text) == [value]


def test_empty_documents_are_skipped_and_counted() -> None:
    text = f"# nothing\n---\n---\n{namespace('a')}---\n# nothing\n---\n{namespace('b')}..."
    assert [r.name for r in parse_documents(text, "f.yaml")] == ["a", "b"]
    assert [where for where, _ in decode_documents(text, "f.yaml")] == ["f.yaml: document 2", "f.yaml: document 4"]
    assert parse_documents("", "f.yaml") == parse_documents("---\n", "f.yaml") == []


def test_a_list_is_its_items() -> None:
    items = ", ".join("{apiVersion: v1, kind: Namespace, metadata: {name: %s}}" % name for name in "ab")  # noqa: UP031
    text = f"apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems: [{items}]"
    assert [r.name for r in parse_documents(text, "f.yaml")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apiVersion: v1\nkind: List\nitems: 1", "f.yaml: document 1: List: items: expected a list"),
        ("apiVersion: v1\nkind: List\nitems: []\nmore: 1", "f.yaml: document 1: List: more: unknown field"),
        ("apiVersion: v1\nkind: List\nitems: [{kind: X}]", "f.yaml: document 1: items[0]: kind: 'X' is not supported"),
        ("- 1", "f.yaml: document 1: expected a mapping, found a list"),
        ("text", "f.yaml: document 1: expected a mapping, found a string"),
        (
            f"{namespace('a')}---\n{namespace('b')}---\n{namespace('a')}",
            "f.yaml: document 3: Namespace a: the same object stands in f.yaml: document 1",
        ),
    ],
)
def test_documents_that_hold_no_object_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_documents(text, "f.yaml")
    assert str(caught.value).startswith(message)


def test_each_object_is_judged_on_its_own() -> None:
    text = f"{namespace('a')}---\n{namespace('B')}---\n{namespace('c')}---\na: [\n---\n{namespace('d')}"
    outcomes = list(parse_each(text, "f.yaml"))
    assert [one.name if isinstance(one, Namespace) else "refused" for one in outcomes] == [
        "a",
        "refused",
        "c",
        "refused",
    ]


def test_one_bad_object_refuses_the_whole_text() -> None:
    with pytest.raises(InvalidInput, match="document 2"):
        parse_documents(f"{namespace('a')}---\n{namespace('B')}", "f.yaml")


def test_a_whole_number_as_key_is_its_own_text() -> None:
    assert decoded("8080: {mode: STRICT}") == [{"8080": {"mode": "STRICT"}}]
