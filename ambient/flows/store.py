"""The last N flows in memory, numbered, so that a follower can ask for what came after the last one it saw.

Pure and bounded: when full the oldest goes, and a follower that was too slow is told how many it missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from ambient.flows.record import Flow


@dataclass(frozen=True, slots=True)
class Batch:
    """`flows` in order; `last` is the sequence to ask from next time; `missed` were dropped before they were read."""

    flows: tuple[Flow, ...]
    last: int
    missed: int = 0


class FlowStore:
    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} is not positive")
        self._flows: deque[Flow] = deque(maxlen=capacity)
        self._last = 0

    def __len__(self) -> int:
        return len(self._flows)

    def add(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            self._last += 1
            self._flows.append(replace(flow, sequence=self._last))

    def lost(self, count: int) -> None:
        """Records that never arrived: they take numbers, so that every follower sees the gap."""
        self._last += count

    def after(self, sequence: int, limit: int = 1000) -> Batch:
        """Up to `limit` flows with a higher number (0: from the oldest that is still here)."""
        held = [flow for flow in self._flows if flow.sequence > sequence]
        chosen = tuple(islice(held, limit))
        last = chosen[-1].sequence if len(chosen) < len(held) else self._last
        expected = last - min(sequence, last) if sequence else len(chosen)
        return Batch(chosen, last, expected - len(chosen))
