"""Values of log lines: fields, runs of fields that come again and again, and text that needs no quotes."""

from __future__ import annotations

Field = tuple[str, str | int]


class Run(tuple[Field, ...]):
    """Fields that are written together again and again; they know how they are written in the text form."""

    shown: str


Item = Field | Run


class Bare(str):
    """A text value that is written without quotes in the text form (addresses)."""

    __slots__ = ()


def bare(text: str) -> str:
    """Mark a value to be written without quotes in the text form, if it can be mistaken for nothing else then."""
    return Bare(text) if text.isprintable() and " " not in text else text
