"""Words that people write, and that they had better not: what random models are drawn from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from ambient.errors import InvalidInput
from ambient.kube.objects import Record, parse_object

T = TypeVar("T")

_SIGNS: Final = (
    "abcABC0189-_./*%{}[]()|\\^$+?#&=;:,'\"<>@!~` \t\u00e9\u4e2d\u212a\u017f\U0001f600\u0301\u200b\ufeff\x7f\x01\r\n\0"
)
_DRAWS: Final = 20
HEADERS: Final = ("x-team", "X-Odd.Name", "cookie", "host", ":authority", ":method", ":path", "x!#$%&'*+-.^_`|~", "a")
PARTS: Final = ("/", "/a", "/v1/x", "/a%20b", "/~u/\u00e9", "/x.y", "/" + "p" * 1000)
_HEX: Final = "[0-9a-fA-F]"
UUID: Final = f"{_HEX}{{8}}-{_HEX}{{4}}-[1-5]{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
EXPRESSIONS: Final = (
    "/a.*", "(?:a|b)+", r"/v\d{1,3}/[^/]+", "^x$", "a+?", r"(?:\d{1,3}\.){3}\d{1,3}", ".*", "[^a-z]*", r"\w{1,1000}",
    "a{1000}", "(?:ab?){500}", ".{0,1000}", r"\S+\.\w{2,}", "(a|b|(c|d)*)*", "x" * 1024, "[\u4e00-\u9fff]{100}",
    UUID, f"/orders/{UUID}", f"/orders/({UUID})(?:/items/({UUID}))?", rf"/[\w-]+/{UUID}/.*",
)  # fmt: skip
HOSTS: Final = ("a.example.com", "*.example.com", "b.example.org", "*.apps.example.com", "x-1.test")


class Words:
    """Drawn from `rng`. `refused` counts what our parsers did not take."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.refused = 0

    def text(self, most: int = 0) -> str:
        rng = self.rng
        longest = most or rng.choice((3, 12, 12, 40, 1024))
        signs = rng.choice((_SIGNS, _SIGNS[:44].replace("*", ""), "abc-", "abc"))
        return "".join(rng.choice(signs) for _ in range(rng.randint(1, longest)))

    def glob(self) -> str:
        text = self.rng.choice(("web", "shop", "k" * 1023, self.text(), self.text().replace("*", "")))
        return self.rng.choice((text, f"{text}*", f"*{text}", "*"))

    def one(self, *choices: T) -> T:
        return self.rng.choice(choices)

    def often(self, share: float) -> bool:
        return self.rng.random() < share

    def several(self, draw: Callable[[], T], *counts: int) -> list[T]:
        """So many as one of `counts`."""
        return [draw() for _ in range(self.rng.choice(counts))]

    def some(self, fields: Mapping[str, Callable[[], Any]], least: int, most: int) -> dict[str, Any]:
        """Of these fields between `least` and `most`, each drawn."""
        chosen = self.rng.sample(sorted(fields), self.rng.randint(least, min(most, len(fields))))
        return {name: fields[name]() for name in chosen}

    def read(self, draw: Callable[[], dict[str, Any]]) -> Iterable[Record]:
        """The first of some draws that is valid, or none."""
        for _ in range(_DRAWS):
            try:
                return (parse_object(without_none(draw()), "model"),)
            except InvalidInput:
                self.refused += 1
        return ()


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
