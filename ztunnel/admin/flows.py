"""The last flows of this node in memory, and followers of them. Bounded; the oldest go first.

Flows are kept as the workers packed them: nearly all of them leave the ring without ever having been looked at.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ambient.errors import InvalidInput
from ztunnel.ipc.flows import FlowRecord, unpack

KEPT: Final = 10_000
FOLLOWERS: Final = 16
BEHIND: Final = 4096
"""Flows a follower may be behind before the oldest of them are skipped for it."""
HEARTBEAT_S: Final = 5.0

_REQUIRED: Final = frozenset({"event", "time_unix", "node", "direction", "source", "destination"})
_QUIET: Final = ("", 0, "-", "unknown")


class FlowRing:
    """Flow records as JSON lines with a growing `sequence`."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._packs: deque[tuple[int, int, bytes]] = deque()
        """First sequence number, how many, packed."""
        self._held = 0
        self._followers: set[asyncio.Queue[bytes]] = set()
        self._sequence = 0
        self.lost = 0

    def add(self, packed: bytes, count: int, lost: int = 0) -> None:
        """Keep and pass on `count` packed records; `lost` are flows a worker had to drop."""
        self.lost += lost
        if not count:
            return
        first = self._sequence + 1
        self._sequence += count
        self._packs.append((first, count, packed))
        self._held += count
        while self._held - self._packs[0][1] >= self._kept:
            self._held -= self._packs.popleft()[1]
        if self._followers:
            for line in self._lines(first, packed):
                self._pass_on(line)

    def _lines(self, first: int, packed: bytes) -> list[bytes]:
        try:
            return [_line(record, first + at) for at, record in enumerate(unpack(packed))]
        except InvalidInput:
            return []

    def _pass_on(self, line: bytes) -> None:
        for follower in self._followers:
            if follower.full():
                follower.get_nowait()
                self.lost += 1
            follower.put_nowait(line)

    def recent(self, last: int) -> bytes:
        """The newest `last` flows, oldest first, as JSON lines."""
        wanted = min(last, self._kept)
        found: list[bytes] = []
        for first, _, packed in reversed(self._packs):
            if len(found) >= wanted:
                break
            found[:0] = self._lines(first, packed)[len(found) - wanted :]
        return b"".join(found)

    async def follow(self, last: int = 0) -> AsyncIterator[bytes]:
        """The newest `last` flows, then every new one; an empty chunk every few seconds while nothing happens."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(BEHIND)
        self._followers.add(queue)
        try:
            yield self.recent(last)
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        chunk = await queue.get()
                except TimeoutError:
                    yield b""
                    continue
                while not queue.empty():
                    chunk += queue.get_nowait()
                yield chunk
        finally:
            self._followers.discard(queue)

    @property
    def crowded(self) -> bool:
        """No more followers are taken."""
        return len(self._followers) >= FOLLOWERS


def _line(record: FlowRecord, sequence: int) -> bytes:
    fields = msgspec.structs.asdict(record)
    row = {key: value for key, value in fields.items() if key in _REQUIRED or value not in _QUIET}
    row["sequence"] = sequence
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"
