"""The node's ledger of what each pod takes (ztunnel.proxy.budget), as the director keeps it: which row is whose.

The director makes the memory and gives every worker a column of its own; the numbers are the workers'.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from typing import Final

from ztunnel.budgets import KINDS
from ztunnel.ipc.messages import PodLedger

ROWS: Final = 1_024
"""Pods of a node that are counted together over all workers; beyond it each worker counts by itself."""
SPARE: Final = 4
"""Columns beyond one for every worker: for those on their way out."""
NO_ROW: Final = -1


class Shares:
    """`workers`: how many there should be. Raises OSError without memory."""

    def __init__(self, workers: int) -> None:
        self._columns = workers + SPARE
        size = 8 * KINDS * ROWS * self._columns
        self.fd = os.memfd_create("ambient-ledger", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self._memory = mmap.mmap(self.fd, size)
        self._cells = memoryview(self._memory).cast("q")
        self._rows: dict[str, int] = {}
        self._free_rows = deque(range(ROWS))
        self._columns_of: dict[int, int] = {}
        self._free_columns = deque(range(self._columns))

    def join(self, pid: int) -> PodLedger | None:
        """What a worker is told, with `fd` beside it; None when too many are there: it counts for itself."""
        if not self._free_columns:
            return None
        self._columns_of[pid] = self._free_columns.popleft()
        return PodLedger(columns=self._columns, column=self._columns_of[pid])

    def left(self, pid: int) -> None:
        """A worker is gone, and with it all it had counted."""
        column = self._columns_of.pop(pid, None)
        if column is not None:
            for at in range(column, len(self._cells), self._columns):
                self._cells[at] = 0
            self._free_columns.append(column)

    def row(self, uid: str) -> int:
        """The pod's row, the same for every worker; NO_ROW when there are too many pods."""
        if uid not in self._rows and self._free_rows:
            self._rows[uid] = self._free_rows.popleft()
        return self._rows.get(uid, NO_ROW)

    def forget(self, uid: str) -> None:
        """The pod is gone; every worker wipes its cells before it hears of the row's next owner."""
        row = self._rows.pop(uid, None)
        if row is not None:
            self._free_rows.append(row)

    def close(self) -> None:
        self._cells.release()
        self._memory.close()
        os.close(self.fd)
