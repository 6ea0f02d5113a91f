"""Workers' questions on their way to an answer: those that discovery cannot answer yet wait a limited time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from ambient.model.outcome import NoRoute, PeerLabels, Refuse
from ztunnel.director.answers import Answers
from ztunnel.director.pods import Pods
from ztunnel.director.workers import Worker
from ztunnel.ipc import messages as ipc
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk

PATIENCE_S: Final = 5.0
"""How long a question may wait for discovery's first answer, or for the pod it is about (interop 3.4)."""

MOST_HELD: Final = 1_024
"""Questions of one pod (or about peers) that wait: all that wait are looked at whenever discovery says something."""

Question = ipc.RouteAsk | ipc.PeerAsk | ipc.NameAsk | AuthorityAsk

_Held = tuple[float, Worker, Question]
"""Until when it waits, whose it is, what it is."""


def _asker(ask: Question) -> str:
    return "" if isinstance(ask, ipc.PeerAsk) else ask.uid


class Questions:
    """`unanswerable(question)`: why it must wait, "" when it need not."""

    def __init__(self, answers: Answers, pods: Pods, unanswerable: Callable[[Question], str]) -> None:
        self._answers = answers
        self._pods = pods
        self._unanswerable = unanswerable
        self._held: deque[_Held] = deque()
        """In the order of their deadlines."""
        self._of: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, worker: Worker, ask: Question) -> None:
        """Answer now, or when it is known, or when waiting is of no more use."""
        why = self._unanswerable(ask)
        if not why:
            self._answer(worker, ask)
        elif self._of[_asker(ask)] >= MOST_HELD:
            _give_up(worker, ask, f"{why}, and too many wait for it")
        else:
            self._of[_asker(ask)] += 1
            self._held.append((asyncio.get_running_loop().time() + PATIENCE_S, worker, ask))
            self._wake()

    def again(self) -> None:
        """Something became known."""
        held, self._held = self._held, deque()
        for one in held:
            self._look(one)

    def _overdue(self) -> None:
        """Time has passed."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._held and self._held[0][0] <= now:
            self._look(self._held.popleft())
        self._wake()

    def _look(self, one: _Held) -> None:
        until, worker, ask = one
        why = self._unanswerable(ask)
        if why and until > asyncio.get_running_loop().time():
            self._held.append(one)
            return
        self._of[_asker(ask)] -= 1
        if not self._of[_asker(ask)]:
            del self._of[_asker(ask)]
        if why:
            _give_up(worker, ask, why)
        else:
            self._answer(worker, ask)

    def _wake(self) -> None:
        if self._held and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._held[0][0] + 0.01, self._overdue)

    def left(self, worker: Worker) -> None:
        """Nobody waits for its answers any more."""
        self._held = deque(held for held in self._held if held[1] is not worker)
        self._of = Counter(_asker(ask) for _, _, ask in self._held)

    def _answer(self, worker: Worker, ask: Question) -> None:
        answers, pid = self._answers, worker.pid
        if isinstance(ask, ipc.PeerAsk):
            worker.send(answers.peer(pid, ask))
        else:
            pod = self._pods.get(ask.uid)
            if pod is None:
                _give_up(worker, ask, "the pod is not on this node")
            elif isinstance(ask, ipc.RouteAsk):
                worker.send(answers.route(pid, pod, ask))
            elif isinstance(ask, AuthorityAsk):
                worker.send(answers.authority(pid, pod, ask))
            else:
                worker.send(answers.name(pid, pod, ask))
        forget = answers.overflow(pid)
        if forget is not None:
            worker.send(forget)


def _give_up(worker: Worker, ask: Question, why: str) -> None:
    """Answer so that whoever waits fails with a reason, and have the answer forgotten at once."""
    match ask:
        case ipc.RouteAsk():
            plan = Refuse(NoRoute.UNKNOWN_SOURCE, why)
            worker.send(ipc.RouteAnswer(uid=ask.uid, ip=ask.ip, port=ask.port, plan=plan))
            worker.send(ipc.Forget(routes=((ask.uid, ask.ip, ask.port),)))
        case ipc.PeerAsk():
            worker.send(ipc.PeerAnswer(ip=ask.ip, labels=PeerLabels()))
            worker.send(ipc.Forget(peers=(ask.ip,)))
        case AuthorityAsk():
            worker.send(AuthorityAnswer(uid=ask.uid, authority=ask.authority))
            worker.send(ipc.Forget(authorities=((ask.uid, ask.authority),)))
        case ipc.NameAsk():
            worker.send(ipc.NameAnswer(uid=ask.uid, name=ask.name, qtype=ask.qtype, known=False))
            worker.send(ipc.Forget(names=True))
