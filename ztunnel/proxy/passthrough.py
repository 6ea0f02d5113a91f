"""15006: plain text that came to the pod. Judged with no identity, then handed to the application as the client."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ambient.model.address import ZTUNNEL_PORTS, Endpoint
from ambient.model.outcome import Connection, PeerLabels
from ztunnel.proxy.socket_end import abort_socket
from ztunnel.proxy.straight import Straight
from ztunnel.telemetry.record import Failure, Flag

if TYPE_CHECKING:
    import asyncio

    from ztunnel.proxy.pod import Pod

UNKNOWN_WORKLOAD = Failure(Flag.CONNECT, "nothing is known about this workload yet", "unknown-workload")


class PlainInbound:
    """One plain connection to the pod. `sock` is owned."""

    __slots__ = ("_pod", "_record", "_sock", "_straight", "_timer", "closed", "connection")

    def __init__(self, pod: Pod, sock: socket.socket, source: Endpoint, destination: Endpoint) -> None:
        self._pod = pod
        self._sock = sock
        self._record = pod.plane.recorder.open(pod.uid, source, destination, inbound=True)
        self._record.app_is_client = True
        self.connection = Connection(source.ip, destination.ip, destination.port)
        self.closed = False
        self._straight: Straight | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Register, judge, connect."""
        pod, record = self._pod, self._record
        pod.live.register(self)
        pod.plane.peers.ask(record.source.ip, self._peer_known)
        if record.destination.port in ZTUNNEL_PORTS:
            self._fail(
                Failure(Flag.CONNECT, f"refused: {record.destination.port} is a port of ztunnel", "illegal-port")
            )
            return
        if not pod.policy.known:
            self._timer = pod.plane.loop.call_later(5.0, self._expired)
        pod.when_known(self._judge)

    def _peer_known(self, labels: PeerLabels | None) -> None:
        if self._record.source_peer is None and labels is not None:
            self._record.source_peer = labels
            if self._straight is not None and not self.closed:
                self._pod.plane.recorder.established(self._record)

    def _expired(self) -> None:
        self._timer = None
        self._pod.stop_waiting(self._judge)
        self._fail(UNKNOWN_WORKLOAD)

    def _judge(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pod, record = self._pod, self._record
        record.destination_peer = pod.labels
        record.destination_identity = pod.identity
        if pod.policy.services:
            record.service = pod.policy.services[0]
        refused = pod.live.admit(self)
        if refused is not None:
            self._fail(refused)
            return
        if record.source_peer is not None:
            pod.plane.recorder.established(record)
        self._straight = Straight(pod, self._sock, record, record.destination, record.source, self.ended)
        self._straight.begin()

    def cut(self, failure: Failure) -> None:
        """End it from outside (Judged)."""
        if self._straight is not None:
            self._straight.cut(failure)
        else:
            self._fail(failure)

    def ended(self, failure: Failure | None) -> None:
        """The relay is over."""
        if not self.closed:
            self.closed = True
            self._pod.plane.peers.leave(self._record.source.ip, self._peer_known)
            self._pod.live.release(self)
            self._pod.plane.recorder.close(self._record, failure)

    def _fail(self, failure: Failure) -> None:
        if not self.closed:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._pod.stop_waiting(self._judge)
            abort_socket(self._sock)
            self.ended(failure)
