"""A worker's event loop: asyncio's own, which waits in the poller of its hot sockets (`ztunnel/proxy/poller.py`).

What is the loop's own (timers, tasks, signals, the director's channel, datagrams) is asyncio's as ever. Bytes do not
pass through it: while nothing of its own is due, it is not gone round at all.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

from ztunnel.proxy.poller import Poller

_Arguments = TypeVarTuple("_Arguments")


class Loop(asyncio.SelectorEventLoop):
    """`poller` has the hot sockets; they must not be given to the loop as well."""

    def __init__(self) -> None:
        others = _Others()
        self.poller = others.poller = Poller(self, others.fileno())
        super().__init__(others)

    # What is asked of the loop while it waits, by a handler of the poller, ends its wait in time. (Other threads and
    # signals write to a descriptor of the loop.)

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self.poller.wake_by(0.0)
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.poller.wake_by(when)
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        self.poller.wake_by(0.0)
        super().stop()


def running() -> Loop:
    """The loop that the caller runs in, which must be one of these."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop


class _Others(selectors.EpollSelector):
    """The loop's own descriptors."""

    poller: Poller

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0) if self.poller.wait(timeout) else []

    def close(self) -> None:
        self.poller.close()
        super().close()
