"""Questions to the director and the answers kept: plans, peers and names, each until it is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class AskCache(Generic[K, V]):
    """`send(key)` puts the question; False: there is no director now. Answers come through `answer`.

    While the director is being restarted questions wait (their askers have deadlines); it gets them when it is back.
    At most `limit` answers are kept (the oldest go first) and at most `limit` questions are open.
    """

    __slots__ = ("_answers", "_limit", "_open", "_send")

    def __init__(self, send: Callable[[K], bool], limit: int = 65_536) -> None:
        self._answers: dict[K, V] = {}
        self._open: dict[K, dict[Callable[[V | None], None], int]] = {}
        """Who waits for the answer to each question, and how many times."""
        self._send = send
        self._limit = limit

    def get(self, key: K) -> V | None:
        """The answer if it is known."""
        return self._answers.get(key)

    def ask(self, key: K, callback: Callable[[V | None], None]) -> None:
        """Call back once with the answer, or with None when there are too many questions."""
        known = self._answers.get(key)
        if known is not None:
            callback(known)
            return
        waiting = self._open.get(key)
        if waiting is not None:
            waiting[callback] = waiting.get(callback, 0) + 1
        elif len(self._open) < self._limit:
            self._open[key] = {callback: 1}
            self._send(key)
        else:
            callback(None)

    def leave(self, key: K, callback: Callable[[V | None], None]) -> None:
        """Stop waiting; the callback is not called any more."""
        waiting = self._open.get(key)
        if waiting is None or callback not in waiting:
            return
        waiting[callback] -= 1
        if not waiting[callback]:
            del waiting[callback]
        if not waiting:
            # The next one puts the question again: the answer to this one may never come.
            del self._open[key]

    def answer(self, key: K, value: V) -> None:
        """An answer arrived, asked for or not."""
        if len(self._answers) >= self._limit:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = value
        for callback, times in self._open.pop(key, {}).items():
            for _ in range(times):
                callback(value)

    def forget(self, key: K) -> None:
        self._answers.pop(key, None)

    def forget_all(self) -> None:
        self._answers.clear()

    def director_back(self) -> None:
        """Put every open question to the new director; what is known stays."""
        for key in list(self._open):
            self._send(key)
