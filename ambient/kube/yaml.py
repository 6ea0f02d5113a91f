"""YAML text to records, without YAML's hazards.

Built on the parser's events, not on its object construction, so that every limit is ours: size, nesting, number of
values counted *after* aliases are expanded, duplicate and non-string keys, tags, merge keys. Scalars become what the
JSON schema knows; times stay strings (as kubectl treats them), so do YAML 1.1's sexagesimal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from ambient.errors import InvalidInput
from ambient.kube.objects import Record, parse_object

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 50_000
"""Per document, with every alias counted as a copy of what it stands for."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX: Final = "tag:yaml.org,2002:"


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read; `key` waits for its value."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    before: int
    key: str | None = None


@dataclass(slots=True)
class _Document:
    """State while one document is read. `weights` holds how many values an anchor stands for."""

    where: str
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    count: int = 0
    root: Any = None
    empty: bool = True


def decode_documents(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Each document as ("where: document N", JSON-like value); documents without content are skipped.

    Raises InvalidInput when the YAML itself is broken or over a limit; documents before that were yielded.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidInput(where, "", f"larger than {MAX_BYTES} bytes")
    resolver = yaml.resolver.Resolver()
    number = 0
    document = _Document(where)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                number += 1
                document = _Document(f"{where}: document {number}")
            elif isinstance(event, yaml.DocumentEndEvent):
                if document.root is not None:
                    yield document.where, document.root
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                _take(document, event, resolver)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise InvalidInput(document.where if number else where, line, problem) from None
    except UnicodeEncodeError:
        raise InvalidInput(where, "", "not valid Unicode") from None


def _refuse(document: _Document, event: yaml.Event, why: str) -> InvalidInput:
    line = event.start_mark.line + 1 if event.start_mark is not None else 0
    return InvalidInput(document.where, f"line {line}", why)


def _take(document: _Document, event: yaml.Event, resolver: yaml.resolver.Resolver) -> None:
    if isinstance(event, yaml.CollectionEndEvent):
        done = document.stack.pop()
        if done.anchor:
            document.anchors[done.anchor] = (done.value, document.count - done.before)
        return
    weight = 1
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in document.anchors:
            raise _refuse(document, event, f"the alias *{event.anchor} stands for nothing (or for itself)")
        value, weight = document.anchors[event.anchor]
    elif isinstance(event, yaml.ScalarEvent):
        value = _scalar(document, event, resolver)
        if event.anchor:
            document.anchors[event.anchor] = (value, 1)
    else:
        assert isinstance(event, yaml.CollectionStartEvent)
        value = _opened(document, event)
    document.count += weight
    if document.count > MAX_VALUES:
        raise _refuse(document, event, f"more than {MAX_VALUES} values (aliases expanded)")
    _place(document, event, value)
    if isinstance(event, yaml.CollectionStartEvent):
        if len(document.stack) >= MAX_DEPTH:
            raise _refuse(document, event, f"nested deeper than {MAX_DEPTH}")
        document.stack.append(_Open(value, event.anchor, document.count - 1))


def _opened(document: _Document, event: yaml.CollectionStartEvent) -> list[Any] | dict[str, Any]:
    expected = _PREFIX + ("map" if isinstance(event, yaml.MappingStartEvent) else "seq")
    if event.tag not in (None, "!", expected):
        raise _refuse(document, event, f"the tag {event.tag!r} is not allowed")
    return {} if isinstance(event, yaml.MappingStartEvent) else []


def _place(document: _Document, event: yaml.Event, value: Any) -> None:
    """Put a finished or freshly opened value where it belongs."""
    if not document.stack:
        document.root, document.empty = value, False
        return
    parent = document.stack[-1]
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.key is None:
        parent.key = _key(document, event, value, parent.value)
    else:
        parent.value[parent.key] = value
        parent.key = None


def _key(document: _Document, event: yaml.Event, value: Any, mapping: dict[str, Any]) -> str:
    if type(value) is int and isinstance(event, yaml.ScalarEvent) and event.value == str(value):
        value = event.value  # kubectl reads ports as keys (portLevelMtls) without quotes too
    if not isinstance(value, str):
        raise _refuse(document, event, f"the key {value!r} is not a string (quote it)")
    if value == "<<" and isinstance(event, yaml.ScalarEvent) and not event.style:
        raise _refuse(document, event, "merge keys (<<) are not supported")
    if value in mapping:
        raise _refuse(document, event, f"the key {value!r} is there twice")
    return value


def _scalar(document: _Document, event: yaml.ScalarEvent, resolver: yaml.resolver.Resolver) -> Any:
    tag = event.tag
    if tag is None or tag == "!":
        tag = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
    name = tag.removeprefix(_PREFIX)
    text = event.value
    if name in ("str", "timestamp", "merge", "value"):
        return text
    if name == "null":
        return None
    if name == "bool":
        return text.lower() in ("yes", "true", "on")
    if name in ("int", "float"):
        return _number(document, event, text, name)
    raise _refuse(document, event, f"the tag {tag!r} is not allowed")


def _number(document: _Document, event: yaml.Event, text: str, name: str) -> int | float | str:
    if ":" in text:
        return text
    plain = text.replace("_", "").lower()
    try:
        if name == "float":
            number = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
            if number != number or number in (float("inf"), float("-inf")):
                raise _refuse(document, event, f"{text} is not a number that JSON knows")
            return number
        digits = plain.lstrip("+-")
        sign = -1 if plain.startswith("-") else 1
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        return sign * int(digits, 8 if octal else 0)
    except ValueError:
        raise _refuse(document, event, f"{text[:40]!r} is not a number") from None


def _objects(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The document itself, or the items of a `kind: List`."""
    if not isinstance(value, dict) or value.get("kind") != "List" or value.get("apiVersion") != "v1":
        yield where, value
        return
    unknown = value.keys() - {"apiVersion", "kind", "metadata", "items"}
    if unknown:
        raise InvalidInput(f"{where}: List", min(unknown), "unknown field")
    items = value.get("items")
    if not isinstance(items, list):
        raise InvalidInput(f"{where}: List", "items", "expected a list")
    for i, item in enumerate(items):
        yield f"{where}: items[{i}]", item


def parse_each(text: str, where: str) -> Iterator[Record | InvalidInput]:
    """Every object of the text as a record, or as the error that refuses it; the others are not affected.

    Broken YAML ends the sequence with its error (what follows cannot be told apart). An object that is there twice
    is refused where it comes again.
    """
    seen: dict[str, str] = {}
    try:
        for document, value in decode_documents(text, where):
            for place, item in _objects(document, value):
                try:
                    record = parse_object(item, place)
                    if record.key in seen:
                        title = f"{place}: {record.kind} {record.namespace}/{record.name}".replace(" /", " ")
                        raise InvalidInput(title, "", f"the same object stands in {seen[record.key]}")
                    seen[record.key] = place
                    yield record
                except InvalidInput as error:
                    yield error
    except InvalidInput as error:
        yield error


def parse_documents(text: str, where: str) -> list[Record]:
    """All objects of the text; the first thing wrong raises InvalidInput and nothing is returned."""
    records = []
    for outcome in parse_each(text, where):
        if isinstance(outcome, InvalidInput):
            raise outcome
        records.append(outcome)
    return records
