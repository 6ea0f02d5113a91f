"""Where a worker computes TLS handshakes: in a thread beside its loop, so that no octet waits for them.

A step is half a millisecond or more of OpenSSL's arithmetic, in which Python lets other threads run. The thread has two
steps at a time, one of them to go on with; the others wait in the loop, pods in turn, and are taken back when their
connection ends.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

_BEGUN: Final = 2


class Session(Protocol):
    """What has a handshake (ztunnel.tls.session)."""

    def handshake(self) -> bool:
        """Go on with it; True when it is complete. Raises ProtocolError."""


class Shaker(Protocol):
    """Whose session it is."""

    @property
    def session(self) -> Session:
        """With its handshake under way."""

    def shaken(self, outcome: bool | Exception) -> None:
        """What came of a step: what `handshake` returned or raised."""


class Handshakes:
    """Those of one worker. Raises RuntimeError when there is no thread to be had."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: OrderedDict[object, dict[Shaker, None]] = OrderedDict()
        """Whose step is not begun, by pod, the oldest first; whose turn it is comes first."""
        self._begun = 0
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="handshakes")
        self._beside.submit(int).result()  # it starts now, not before some peer

    def go_on(self, pod: object, one: Shaker) -> None:
        """Compute the next step; nobody else may touch the session until `shaken`, which the loop calls later."""
        self._waiting.setdefault(pod, {})[one] = None
        self._next()

    def take_back(self, pod: object, one: Shaker) -> bool:
        """False: it is being computed, or has been, and `shaken` comes. True: it is as if it had not been asked for."""
        mine = self._waiting.get(pod)
        if mine is None or one not in mine:
            return False
        del mine[one]
        if not mine:
            del self._waiting[pod]
        return True

    def waiting(self, pod: object) -> int:
        """Steps of the pod's connections that are not begun."""
        return len(self._waiting.get(pod, ()))

    def _next(self) -> None:
        if self._begun == _BEGUN or not self._waiting:
            return
        pod, mine = next(iter(self._waiting.items()))
        one = next(iter(mine))
        del mine[one]
        if mine:
            self._waiting.move_to_end(pod)
        else:
            del self._waiting[pod]
        self._begun += 1
        self._beside.submit(self._step, one)

    def _step(self, one: Shaker) -> None:
        outcome: bool | Exception
        try:
            outcome = one.session.handshake()
        except Exception as error:
            outcome = error
        with suppress(RuntimeError):  # the loop is closed: the worker has ended
            self._loop.call_soon_threadsafe(self._done, one, outcome)

    def _done(self, one: Shaker, outcome: bool | Exception) -> None:
        self._begun -= 1
        self._next()
        one.shaken(outcome)
