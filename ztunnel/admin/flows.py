"""The last flows of this node in memory, and followers of them. Bounded; the oldest go first."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import Final

from ztunnel.ipc.messages import FlowRecord

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
        self._lines: deque[bytes] = deque(maxlen=kept)
        self._followers: set[asyncio.Queue[bytes]] = set()
        self._sequence = 0
        self.lost = 0

    def add(self, records: Iterable[FlowRecord], lost: int = 0) -> None:
        """Keep and pass on; `lost` are flows a worker had to drop."""
        self.lost += lost
        for record in records:
            self._sequence += 1
            row = {k: v for k, v in asdict(record).items() if k in _REQUIRED or v not in _QUIET}
            row["sequence"] = self._sequence
            line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
            self._lines.append(line)
            for follower in self._followers:
                if follower.full():
                    follower.get_nowait()
                    self.lost += 1
                follower.put_nowait(line)

    def recent(self, last: int) -> bytes:
        """The newest `last` flows, oldest first, as JSON lines."""
        return b"".join(list(self._lines)[-last:] if last else ())

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
