"""The key sets that RequestAuthentications name by URL: fetched, fetched again while they are wanted, and given up.

A set that was never had is empty, so every token that it would have to judge is refused. One that cannot be fetched any
more goes on for a day, and is then as if it was never had: keys are taken out of a set to end what they sign.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from ambient.errors import MeshError
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.objects import Condition
from ambient.waking import woken

FETCHED: Final = "ambient.mesh/KeysFetched"
MOST: Final = 500
MOST_AT_ONCE: Final = 8
LONGEST_S: Final = 24 * 3600.0
_FIRST_AGAIN_S: Final = 1.0
_MOST_AGAIN_S: Final = 60.0

_log = logging.getLogger("ambient.control.keys")


@dataclass(slots=True)
class _Set:
    """`due`: when it is to be fetched next. `why`: why it cannot be had at the moment."""

    due: float
    keys: str = ""
    had: float = 0.0
    failures: int = 0
    why: str = "not fetched yet"


class KeySets:
    """`want` with each snapshot, `run` until cancelled. `changed(urls)`: these have other keys, or another state."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[str]],
        *,
        refresh_s: float,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._fetch = fetch
        self._refresh_s = refresh_s
        self._clock = clock
        self._draw = draw
        self._sets: dict[str, _Set] = {}
        self._left_out: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self.changed: Callable[[frozenset[str]], None] = lambda urls: None

    def keys(self, url: str) -> str:
        """The key set as JSON, "" when there is none to judge by."""
        found = self._sets.get(url)
        return found.keys if found is not None else ""

    def trouble(self, url: str) -> str:
        """Why it is not what it should be, "" when it is."""
        if url in self._left_out:
            return f"more than {MOST} key sets are not fetched"
        found = self._sets.get(url)
        return found.why if found is not None else "not fetched yet"

    def want(self, urls: Mapping[str, Collection[str]]) -> None:
        """Those, by namespace, and no others. Of too many every namespace has one in its turn, first what is had."""
        turns = [
            (turn, self._worth(url), namespace, url)
            for namespace, own in urls.items()
            for turn, url in enumerate(sorted(set(own), key=lambda url: (self._worth(url), url)))
        ]
        wanted = list(dict.fromkeys(url for *_, url in sorted(turns)))
        self._left_out = frozenset(wanted[MOST:])
        kept = wanted[:MOST]
        if self._sets.keys() != set(kept):
            now = self._clock()
            self._sets = {url: self._sets.get(url) or _Set(now) for url in kept}
            self._wake.set()

    def _worth(self, url: str) -> int:
        """0: it is had, 1: it is tried, 2: it is new."""
        found = self._sets.get(url)
        return 2 if found is None else 0 if found.keys else 1

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            left = (
                min((one.due for one in self._sets.values()), default=self._clock() + self._refresh_s) - self._clock()
            )
            await woken(self._wake, max(left, 0.05))
            self._wake.clear()

    async def step(self) -> None:
        """Fetch what is due."""
        slots = asyncio.Semaphore(MOST_AT_ONCE)
        now = self._clock()

        async def one(url: str) -> bool:
            async with slots:
                return await self._one(url)

        due = [url for url, found in self._sets.items() if found.due <= now]
        told = await asyncio.gather(*map(one, due))
        if news := frozenset(url for url, new in zip(due, told, strict=True) if new):
            self.changed(news)

    async def _one(self, url: str) -> bool:
        """Whether there is anything new about it."""
        keys, why = "", ""
        try:
            keys = await self._fetch(url)
        except MeshError as error:
            why = str(error)
        found, now = self._sets.get(url), self._clock()
        if found is None:
            return False
        before = (found.keys, found.why)
        if not why:
            found.keys, found.had, found.failures = keys, now, 0
            found.due = now + self._refresh_s * (0.9 + 0.2 * self._draw())
        else:
            found.failures += 1
            again = min(_FIRST_AGAIN_S * 2 ** min(found.failures, 10), _MOST_AGAIN_S, self._refresh_s)
            found.due = now + again * (0.9 + 0.2 * self._draw())
            if found.keys and now - found.had > LONGEST_S:
                found.keys = ""
            _log.warning("%s", why)
        found.why = why
        return (found.keys, found.why) != before


def fetched(rules: Mapping[int, JwtRule], sets: KeySets) -> Condition:
    """What is to be said of a RequestAuthentication whose rules (by number) name key sets."""
    wrong = {number: why for number, rule in rules.items() if (why := sets.trouble(rule.keys_url))}
    if not wrong:
        return Condition(FETCHED, "True", "Fetched", "every key set was fetched")
    told = []
    for number, why in wrong.items():
        rule = rules[number]
        then = "the keys from before are used" if sets.keys(rule.keys_url) else f"tokens of {rule.issuer} are refused"
        told.append(f"spec.jwtRules[{number}].jwksUri: {why}: {then} by this rule")
    return Condition(FETCHED, "False", "NotFetched", "; ".join(told)[:1000])
