"""How often each of many may do something that costs: a few times at once, then at a steady pace. Pure."""

from __future__ import annotations

from collections.abc import Hashable


class Allowance:
    """`burst` times at once, then once in `every_s`. Who has been quiet for long is not remembered."""

    def __init__(self, burst: int, every_s: float) -> None:
        self._burst = burst
        self._every_s = every_s
        self._empty_until: dict[Hashable, float] = {}

    def spend(self, who: Hashable, now_s: float) -> bool:
        """Whether he may once more; if so it is counted."""
        # When his bucket would have been full again if nothing more came: each time moves that by one step.
        full_at = max(self._empty_until.pop(who, now_s), now_s) + self._every_s
        allowed = full_at - now_s <= self._burst * self._every_s
        self._empty_until[who] = full_at if allowed else full_at - self._every_s
        for other, at in list(self._empty_until.items())[:2]:
            if at <= now_s:
                del self._empty_until[other]
        return allowed
