"""One worker: does what the director says, tells it what it sees, and goes on without it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ambient.errors import InvalidInput, MeshError
from ztunnel.dns.hosts import Hosts
from ztunnel.dns.upstream import Resolvers
from ztunnel.ipc import messages as m
from ztunnel.ipc.authorities import AuthorityAnswer
from ztunnel.ipc.told import Known
from ztunnel.proxy.asks import AskCache
from ztunnel.proxy.balance import Balance
from ztunnel.proxy.budget import read_ledger
from ztunnel.proxy.loop import Loop
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.sockets import PodSockets
from ztunnel.telemetry.access_log import LogWriter
from ztunnel.telemetry.recorder import Recorder
from ztunnel.worker import heap
from ztunnel.worker.link import Link
from ztunnel.worker.served import MakeSockets, ServedPod

TICK_S: Final = 1.0


class Worker:
    """`finished` is called after Drain when nothing is left to do. `form`: what is told about the modules it runs."""

    def __init__(
        self,
        loop: Loop,
        slot: int,
        path: str,
        finished: Callable[[], None],
        *,
        log_fd: int = 1,
        make_sockets: MakeSockets = PodSockets,
        form: str = "",
    ) -> None:
        self._loop = loop
        self._form = form
        self._slot = slot
        self._finished = finished
        self._make_sockets = make_sockets
        log = LogWriter(log_fd, soon=loop.poller.at_end, later=loop.call_later)
        self.recorder = Recorder(log)
        self._link = Link(loop, path, on_up=self._director_up, on_message=self._on_message, on_down=self._director_down)
        settings = m.Settings(node="", trust_domain="", cluster_id="")
        self.plane = Plane(
            loop,
            self.recorder,
            settings,
            self._link.send,
            balance=Balance(f"{path}.tunnels", slot),
            outgoing=Balance(f"{path}.outgoing", slot, slack=0.25),
        )
        self._pods: dict[str, ServedPod] = {}
        self._known = Known()
        self._resolvers = Resolvers(
            self.plane, AskCache(lambda key: self._link.send(m.NameAsk(uid=key[0], name=key[1], qtype=key[2])))
        )
        self.plane.hosts = Hosts(self.plane, self._resolvers)
        self._deadline: float | None = None
        self._drain_check: asyncio.TimerHandle | None = None
        self._over = False
        self._give_back_at = loop.time() + heap.EVERY_S

    def start(self) -> None:
        """Look for the director and begin the one-second work."""
        self._loop.set_exception_handler(self._escaped)
        self._loop.call_later(TICK_S, self._tick)
        self._link.connect()

    def _escaped(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that reached the loop: one handler's bug, not the worker's end."""
        error = context.get("exception") or RuntimeError(context.get("message", "unknown"))
        self.plane.crashed(str(context.get("message", "callback")), error)

    # --- the director

    def _director_up(self) -> None:
        self._known.clear()
        self.recorder.counters.resend()
        self._link.send(
            m.Hello(
                pid=os.getpid(),
                slot=self._slot,
                pods=tuple(self._pods),
                identities=self.plane.wallet.identities,
                netns=tuple(served.netns_inode for served in self._pods.values()),
                form=self._form,
            )
        )
        self.plane.routes.director_back()
        self.plane.peers.director_back()
        self.plane.authorities.director_back()
        self._resolvers.names.director_back()

    def _director_down(self) -> None:
        self.recorder.log.log("warn", "worker", "director is gone, going on with what is known")

    def _on_message(self, message: object, fds: list[int]) -> None:
        """Handle one message; descriptors that the handler does not take over are closed."""
        owned: Sequence[int] = fds
        try:
            if self._handle(message, fds):
                owned = ()
        except MeshError as error:
            self.recorder.counters.count("director_messages_refused")
            self.recorder.log.log("error", "worker", f"{type(message).__name__} refused: {error}")
        finally:
            for fd in owned:
                os.close(fd)

    def _handle(self, message: object, fds: list[int]) -> bool:
        """True when the descriptors were taken over."""
        plane = self.plane
        match message:
            case m.RouteAnswer():
                plane.routes.answer((message.uid, message.ip, message.port), message.plan)
            case m.PeerAnswer():
                plane.peers.answer(message.ip, message.labels)
            case AuthorityAnswer():
                plane.authorities.answer((message.uid, message.authority), message)
            case m.NameAnswer():
                self._resolvers.names.answer((message.uid, message.name, message.qtype), message)
            case m.Forget():
                self._forget(message)
            case m.Policies():
                self._known.take(message)
            case m.PodUpdate():
                self._update(replace(message, policy=self._known.whole(message.policy)))
            case m.PodUp():
                return self._pod_up(replace(message, policy=self._known.whole(message.policy)), fds)
            case m.PodLedger():
                if len(fds) != 1:
                    raise InvalidInput("ledger", "", f"{len(fds)} descriptors, expected one")
                plane.ledgers.given = read_ledger(fds[0], message.columns, message.column)
            case m.PodRow():
                served = self._pods.get(message.uid)
                if served is not None:
                    served.pod.share.move(*plane.ledgers.place(message.row))
            case m.PodDown():
                self._pod_down(message)
            case m.Certificate():
                if len(fds) != 1:
                    raise InvalidInput("certificate", message.identity, f"{len(fds)} descriptors, expected one")
                plane.wallet.put(message.identity, fds[0], message.roots, message.not_after_unix)
            case m.CertificateGone():
                plane.wallet.drop(message.identity)
            case m.CertificateFailed():
                plane.wallet.fail(message.identity, message.why)
            case m.Revocations():
                plane.revoke(message.keys, unknown=message.unknown)
            case m.AskListeners():
                self._give_listeners(message.uid)
            case m.ReportAsk():
                self._report()
                self._link.send(m.Report(ask=message.ask, connections=self.recorder.live()))
            case m.Settings():
                plane.settings = message
                self.recorder.node = message.node
                self.recorder.counters.limit = message.metrics_series
                self.recorder.log.configure(message.log_format, message.log_level)
            case m.LogLevel():
                self.recorder.log.set_level(message.level)
            case m.Drain():
                self._drain(message)
            case _:
                raise InvalidInput("message not understood", type(message).__name__)
        return False

    def _forget(self, message: m.Forget) -> None:
        plane, names = self.plane, self._resolvers.names
        for key in message.routes:
            plane.routes.forget(key)
        for ip in message.peers:
            plane.peers.forget(ip)
        for asked in message.authorities:
            plane.authorities.forget(asked)
        if message.names or message.everything:
            names.forget_all()
        if message.everything:
            plane.routes.forget_all()
            plane.peers.forget_all()
            plane.authorities.forget_all()

    # --- pods

    def _update(self, message: m.PodUpdate) -> None:
        served = self._pods.get(message.uid)
        if served is not None:
            self._judge_anew(served, message.policy)

    def _judge_anew(self, served: ServedPod, policy: m.PodPolicy) -> bool:
        """Put a new policy into force. Whatever is wrong with it, the old one is void: then the pod takes nothing until
        it comes again, and the director hears of it (False)."""
        try:
            cut = served.pod.update(policy)
        except Exception as error:
            uid = served.pod.uid
            del self._pods[uid]
            served.close()
            self._join_or_leave()
            self.plane.crashed("policy update", error)
            self._link.send(m.PodReady(uid=uid, error=f"policy update failed: {error}"))
            return False
        if cut:
            self.recorder.counters.count("connections_cut_by_policy", cut)
        return True

    def _pod_up(self, message: m.PodUp, fds: list[int]) -> bool:
        old = self._pods.get(message.uid)
        if (
            old is not None
            and fds
            and os.fstat(fds[0]).st_ino == old.netns_inode
            and old.up.identity == message.identity
        ):
            # The same pod once more: only what is known about it may be new.
            old.up = message
            if self._judge_anew(old, message.policy):
                if message.row >= 0:
                    old.pod.share.move(*self.plane.ledgers.place(message.row))
                self._link.send(m.PodReady(uid=message.uid))
            return False
        if old is not None:
            del self._pods[message.uid]
            old.close()
            self._join_or_leave()
        try:
            served = ServedPod(self.plane, message, fds, self._resolvers, self._make_sockets)
        except (MeshError, OSError) as error:
            self.recorder.log.log("error", "worker", f"pod {message.namespace}/{message.name} not served: {error}")
            self._link.send(m.PodReady(uid=message.uid, error=str(error)))
            return False
        self._pods[message.uid] = served
        if self.plane.draining:
            served.drain()
        self._join_or_leave()
        self._link.send(m.PodReady(uid=message.uid))
        return True

    def _pod_down(self, message: m.PodDown) -> None:
        served = self._pods.pop(message.uid, None)
        if served is not None:
            served.close()
        self._join_or_leave()
        self._link.send(m.PodGone(uid=message.uid))

    def _join_or_leave(self) -> None:
        """Other workers let us go first where we have fewer, while there is a pod for which we accept."""
        accepting = bool(self._pods) and not self.plane.draining
        for balance in (self.plane.balance, self.plane.outgoing):
            if accepting:
                balance.join()
            else:
                balance.leave()

    def _give_listeners(self, uid: str) -> None:
        served = self._pods.get(uid)
        if served is None:
            self._link.send(m.PodListeners(uid=uid))
            return
        up = served.up
        answer = m.PodListeners(
            uid=uid,
            name=up.name,
            namespace=up.namespace,
            service_account=up.service_account,
            identity=up.identity,
            dns=up.dns,
        )
        self._link.send(answer, served.listening_fds)

    # --- time

    def _tick(self) -> None:
        if self._over:
            return
        self._loop.call_later(TICK_S, self._tick)
        try:
            self.plane.tick()
            for served in self._pods.values():
                served.tick()
            if self._link.up:
                self._report()
            else:
                self.recorder.count_live()
            self._note_work()
            self._check_drained()
            if self._loop.time() >= self._give_back_at:
                self._give_back_at = self._loop.time() + heap.EVERY_S
                heap.give_back()
        except Exception as error:
            self.plane.crashed("tick", error)

    def _note_work(self) -> None:
        """Which pods are at work, so that others leave room for them: whoever began a connection that moved."""
        local = {ip for served in self._pods.values() for ip in served.pod.addresses}
        for uid in self.recorder.take_moved(local):
            served = self._pods.get(uid)
            if served is not None:
                served.pod.share.worked()

    def _report(self) -> None:
        self.recorder.count_live()
        counters = self.recorder.counters
        report = counters.report(self._gauges)
        if report is not None:
            self._link.send(report)
        for flows in self.recorder.take_flows():
            self._link.send(flows)

    def _gauges(self) -> dict[str, float]:
        inbound = sum(len(served.pod.live) for served in self._pods.values())
        outbound = sum(len(served.pod.outbound) for served in self._pods.values())
        return {
            'istio_tcp_sockets_open{reporter="destination"}': inbound,
            'istio_tcp_sockets_open{reporter="source"}': outbound,
            "worker_tunnels": len(self.plane.tunnels),
            "worker_pods": len(self._pods),
        }

    # --- end

    def close(self) -> None:
        """Cut everything and hang up, without saying so."""
        self._over = True
        for served in self._pods.values():
            served.close()
        self._pods.clear()
        self._join_or_leave()
        self._link.close()

    def _drain(self, message: m.Drain) -> None:
        self.plane.draining = True
        self._join_or_leave()
        self._deadline = self._loop.time() + message.deadline_s
        for served in self._pods.values():
            served.drain(take_queue=not message.handed_over)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._deadline is None or self._over:
            return
        if self._drain_check is not None:
            # One at a time: every tick would begin another row of them.
            self._drain_check.cancel()
        busy = any(served.busy for served in self._pods.values()) or any(
            tunnel.unsent() for tunnel in self.plane.tunnels
        )
        if busy and self._loop.time() < self._deadline:
            self._drain_check = self._loop.call_later(0.05, self._check_drained)
            return
        self._over = True
        for served in self._pods.values():
            served.close()
        self._report()
        self._link.send(m.Drained())
        self._link.close()
        self.recorder.log.flush()
        self._finished()
