"""Workers' questions on their way to an answer: those that discovery cannot answer yet wait a limited time."""

from __future__ import annotations

import asyncio
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

Question = ipc.RouteAsk | ipc.PeerAsk | ipc.NameAsk | AuthorityAsk


class Questions:
    """`unanswerable(question)`: why it must wait, "" when it need not."""

    def __init__(self, answers: Answers, pods: Pods, unanswerable: Callable[[Question], str]) -> None:
        self._answers = answers
        self._pods = pods
        self._unanswerable = unanswerable
        self._held: list[tuple[float, Worker, Question]] = []

    def ask(self, worker: Worker, ask: Question) -> None:
        """Answer now, or when it is known, or when waiting is of no more use."""
        if not self._unanswerable(ask):
            self._answer(worker, ask)
            return
        loop = asyncio.get_running_loop()
        self._held.append((loop.time() + PATIENCE_S, worker, ask))
        loop.call_later(PATIENCE_S + 0.01, self.again)

    def again(self) -> None:
        """Something became known, or time has passed."""
        held, self._held = self._held, []
        now = asyncio.get_running_loop().time()
        for until, worker, ask in held:
            why = self._unanswerable(ask)
            if not why:
                self._answer(worker, ask)
            elif until <= now:
                _give_up(worker, ask, why)
            else:
                self._held.append((until, worker, ask))

    def left(self, worker: Worker) -> None:
        """Nobody waits for its answers any more."""
        self._held = [held for held in self._held if held[1] is not worker]

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
