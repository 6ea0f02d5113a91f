"""Rows "this change makes a valid object invalid, there, for that reason", for tables of validation rules."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import parse_object


@dataclass(frozen=True)
class Bad:
    """`path`: where to put `value` (dots and numbers). `at`: the field that the
    refusal names when it is not that one. `why`: a part of the reason."""

    path: str
    value: Any
    why: str
    at: str = ""


class Remove(Enum):
    """In the place of a value: take the field away."""

    REMOVE = "remove"


REMOVE: Final = Remove.REMOVE


def changed(base: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `base` with one value put (or removed) at a path like "spec.containers.0.name"."""
    result: dict[str, Any] = copy.deepcopy(dict(base))
    at: Any = result
    *parents, last = path.split(".")
    for parent in parents:
        at = at[int(parent)] if isinstance(at, list) else at.setdefault(parent, {})
    key: Any = int(last) if isinstance(at, list) else last
    if value is REMOVE:
        del at[key]
    elif isinstance(at, list) and key == len(at):
        at.append(value)
    else:
        at[key] = value
    return result


def field(path: str) -> str:
    """The path as a refusal writes it: numbers in brackets."""
    parts = path.split(".")
    text = ""
    for part in parts:
        text += f"[{part}]" if part.isdigit() else f".{part}" if text else part
    return text


def refused_exactly(base: Mapping[str, Any], bad: Bad) -> None:
    """As `refused`, and `why` is the whole reason."""
    refused(base, bad)
    with pytest.raises(InvalidInput) as caught:
        parse_object(changed(base, bad.path, bad.value), "file.yaml: document 1")
    assert caught.value.why == bad.why


def refused(base: Mapping[str, Any], bad: Bad) -> None:
    """The base is accepted, the changed one refused where and why the row says."""
    parse_object(base, "file.yaml: document 1")
    with pytest.raises(InvalidInput) as caught:
        parse_object(changed(base, bad.path, bad.value), "file.yaml: document 1")
    error = caught.value
    assert error.what.startswith("file.yaml: document 1")
    assert error.where == (bad.at or field(bad.path))
    assert bad.why in error.why
