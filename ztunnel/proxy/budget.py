"""What one pod may take of its node: new connections a second, open connections, TLS handshakes, octets that wait.

The counts are the node's, not a worker's: every worker writes its own cells of a ledger that all of them have in
memory, and adds up everybody's before it takes on more. No locks, no questions: at worst each worker lets one
connection too many in at the same instant.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from ambient.errors import InvalidInput
from ztunnel.budgets import KINDS, Budgets

TAKEN: Final = 0
"""Connections accepted since the pod came."""
OPEN: Final = 1
HANDSHAKES: Final = 2
"""Tunnels to the pod whose TLS handshake is not complete."""
WAITING: Final = 3
"""Octets of memory held for what a socket does not take."""
BUSY: Final = 4
"""When, in whole seconds of the monotonic clock, a connection that the pod began last carried something."""

TUNNELS: Final = 5
"""To the pod, those without a connection in them, too: each has a descriptor and the memory of a TLS session."""

CONTENDED_S: Final = 2.0
"""So long after its last octet a pod counts as one that others must leave room for."""
_BURST_S: Final = 2.0
_SHORTEST_WAIT_S: Final = 0.005
_LONGEST_WAIT_S: Final = 0.1
_PAUSE_S: Final = 0.02
_UNLISTED_ROWS: Final = 1_024
_COMPLAINT_S: Final = 5.0


class Ledger:
    """`cells`: rows of KINDS x `columns` numbers; a row is a pod's, a column a worker's."""

    __slots__ = ("_cells", "column", "columns")

    def __init__(self, cells: memoryview, columns: int, column: int) -> None:
        self._cells = cells
        self.columns = columns
        self.column = column

    @classmethod
    def private(cls) -> Ledger:
        """One for this worker alone, until the director gives the node's."""
        return cls(memoryview(bytearray(8 * KINDS * _UNLISTED_ROWS)).cast("q"), 1, 0)

    @property
    def rows(self) -> int:
        return len(self._cells) // (KINDS * self.columns)

    def row(self, number: int) -> list[memoryview]:
        """The cells of one pod, by kind."""
        start = number * KINDS * self.columns
        return [self._cells[start + kind * self.columns : start + (kind + 1) * self.columns] for kind in range(KINDS)]

    def others_busy(self, number: int, since: float) -> bool:
        """A pod other than this one is at work."""
        width = KINDS * self.columns
        for start in range(BUSY * self.columns, len(self._cells), width):
            if start // width != number and max(self._cells[start : start + self.columns]) >= since:
                return True
        return False


def read_ledger(descriptor: int, columns: int, column: int) -> Ledger:
    """The node's, out of the director's memory file; the caller closes the descriptor. Raises InvalidInput."""
    size = os.fstat(descriptor).st_size
    if not 0 <= column < columns or not size or size % (8 * KINDS * columns):
        raise InvalidInput("not a ledger", "", f"{size} octets, column {column} of {columns}")
    return Ledger(memoryview(mmap.mmap(descriptor, size)).cast("q"), columns, column)


class Ledgers:
    """Where this worker counts: in the ledger that the director gave, or, for pods without a row there, alone."""

    __slots__ = ("_free", "_private", "given")

    def __init__(self) -> None:
        self.given: Ledger | None = None
        self._private = Ledger.private()
        self._free = deque(range(self._private.rows))

    def place(self, row: int) -> tuple[Ledger, int]:
        """Where to count a pod with this row of the director's (negative: none)."""
        if self.given is not None and 0 <= row < self.given.rows:
            return self.given, row
        # The oldest row comes first again: by then its pod is long gone.
        self._free.rotate(-1)
        return self._private, self._free[-1]


class Share:
    """One pod's share, as seen by this worker. `clock` is monotonic and the same for all processes of the node;
    `count` takes names of counters, `say` a sentence for the log now and then."""

    __slots__ = (
        "_cells",
        "_clock",
        "_complained",
        "_contended",
        "_contended_at",
        "_count",
        "_ledger",
        "_mine",
        "_refilled",
        "_say",
        "_seen",
        "_tokens",
        "limits",
        "row",
    )

    def __init__(
        self,
        ledger: Ledger,
        row: int,
        limits: Budgets,
        clock: Callable[[], float],
        count: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._count = count
        self._say = say
        self._mine = [0] * KINDS
        self._complained: dict[str, float] = {}
        self._contended = False
        self._contended_at = 0.0
        self._place(ledger, row)

    def _place(self, ledger: Ledger, row: int) -> None:
        self._ledger = ledger
        self.row = row
        self._cells = ledger.row(row)
        for kind, value in enumerate(self._mine):
            self._cells[kind][ledger.column] = value
        self._refilled = self._clock()
        self._seen = sum(self._cells[TAKEN])
        self._tokens = self.limits.connections_per_second * _BURST_S

    def move(self, ledger: Ledger, row: int) -> None:
        """To another ledger (the director's, or a new director's)."""
        if (ledger, row) != (self._ledger, self.row):
            self._wipe()
            self._place(ledger, row)

    def close(self) -> None:
        """The pod is gone and its row may become another's: what still ends of it is counted nowhere."""
        self._wipe()
        columns = self._ledger.columns
        self._cells = [memoryview(bytearray(8 * columns)).cast("q") for _ in range(KINDS)]

    def _wipe(self) -> None:
        for cells in self._cells:
            cells[self._ledger.column] = 0

    def add(self, kind: int, by: int) -> None:
        """Something more, or less, of this kind is with this worker."""
        self._mine[kind] += by
        self._cells[kind][self._ledger.column] = self._mine[kind]

    @property
    def columns(self) -> int:
        """How many workers are counted together at most."""
        return self._ledger.columns

    def total(self, kind: int) -> int:
        """With all workers of the node."""
        return sum(self._cells[kind])

    def worked(self) -> None:
        """A connection that the pod began has carried octets lately."""
        self._mine[BUSY] = int(self._clock())
        self._cells[BUSY][self._ledger.column] = self._mine[BUSY]

    # --- the budgets

    def pause_before_next(self) -> float:
        """Seconds until the next connection may be accepted, 0.0: now. What waits meanwhile waits in the kernel, and
        what that has no room for is left to the client's retransmission."""
        limits = self.limits
        if limits.waiting and self.total(WAITING) > limits.waiting:
            return self._over("waiting_octets", f"{self.total(WAITING)} octets wait for its peers", _PAUSE_S)
        rate = limits.connections_per_second
        if not rate:
            return 0.0
        now, taken = self._clock(), self.total(TAKEN)
        self._tokens = min(rate * _BURST_S, self._tokens + (now - self._refilled) * rate) - (taken - self._seen)
        self._tokens = max(self._tokens, -rate * _BURST_S)
        self._refilled, self._seen = now, taken
        if self._tokens >= 1.0 or not self._is_contended(now):
            return 0.0
        wait = min(_LONGEST_WAIT_S, max(_SHORTEST_WAIT_S, (1.0 - self._tokens) / rate))
        return self._over("connections_per_second", f"more than {rate:g} new connections a second", wait)

    def pause_before_more_handshakes(self) -> float:
        """For a tunnel to the pod, before all else: it begins with one."""
        if self.shaking_too_many():
            return self._over("handshakes", f"{self.limits.handshakes} TLS handshakes at the same time", _PAUSE_S)
        return 0.0

    def shaking_too_many(self) -> bool:
        """As many handshakes are under way as may be."""
        return bool(self.limits.handshakes) and self.total(HANDSHAKES) >= self.limits.handshakes

    def full(self, kind: int = OPEN) -> bool:
        """It has as many open connections (or TUNNELS) as it may: refuse the next one."""
        most = self.limits.open_connections
        if most and self.total(kind) >= most:
            self._over("open_connections", f"{most} {'tunnels' if kind == TUNNELS else 'open connections'}", 0.0)
            return True
        return False

    def crowded(self) -> bool:
        """Too many octets wait: whoever sends more should wait, too."""
        return bool(self.limits.waiting) and self.total(WAITING) > self.limits.waiting

    def _is_contended(self, now: float) -> bool:
        # Looked up rarely: it walks all pods of the node.
        if now - self._contended_at > 0.2:
            self._contended_at = now
            self._contended = self._ledger.others_busy(self.row, now - CONTENDED_S)
        return self._contended

    def _over(self, budget: str, why: str, wait: float) -> float:
        self._count(f'pod_budget_reached{{budget="{budget}"}}')
        now = self._clock()
        if now - self._complained.get(budget, -_COMPLAINT_S) >= _COMPLAINT_S:
            self._complained[budget] = now
            self._say(f"budget {budget} reached: {why}")
        return wait
