"""15008: tunnels from other proxies. Who is it, may it come in, then to the application as the original client.

A stream is answered with 200 only when policy allows it and the application has accepted the connection; 400 for what
is not a tunnel to this pod, 401 for what policy denies, 503 for what cannot be reached.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from ambient.errors import MeshError
from ambient.model.address import Endpoint
from ambient.model.identity import Identity
from ambient.model.outcome import Connection, PeerLabels, ServiceLabels
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import response_block
from ztunnel.hbone.message import Answer, Request
from ztunnel.hbone.stream import Sink, Stream
from ztunnel.ipc.authorities import AuthorityAnswer
from ztunnel.proxy.aim import Aim, Miss, proxy_header, take_aim
from ztunnel.proxy.budget import TUNNELS, WAITING
from ztunnel.proxy.passthrough import UNKNOWN_WORKLOAD
from ztunnel.proxy.relay import TunnelledEnd, lost_because
from ztunnel.proxy.straight import AppDial
from ztunnel.proxy.tunnel import LOST, WORK_AT_ONCE, Tunnel
from ztunnel.telemetry.baggage import read_baggage
from ztunnel.telemetry.record import NO_SERVICE, TRACEPARENT_LENGTH, Failure, Flag
from ztunnel.tls.contexts import Credentials
from ztunnel.tls.verify import verify_client

if TYPE_CHECKING:
    import asyncio

    from ztunnel.proxy.pod import Pod

UNKNOWN_TIMEOUT_S: Final = 5.0
_LONGEST_AUTHORITY: Final = 512
"""Octets: one that has more is refused for what is left of it, and logs and flow records keep no more of it."""
_FOR_NOTHING: Final = 24
"""Frames in one piece of work, of 128 or a quarter of that; a refused request counts for eight."""
_AFTER_NOTHING_S: Final = 0.002
UNKNOWN_AUTHORITY: Final = Failure(Flag.CONNECT, "the director does not say what the authority means", "no-director")


class InboundTunnel(Tunnel):
    """A connection that another proxy made to the pod's 15008. `sock` is owned."""

    __slots__ = ("local", "peer", "peer_labels", "peer_text", "source")

    def __init__(
        self, pod: Pod, sock: socket.socket, source: Endpoint, local: Endpoint, credentials: Credentials
    ) -> None:
        super().__init__(pod, sock, credentials.server, server=True)
        self.source = source
        self.local = local
        self.peer: Identity | None = None
        self.peer_text = ""
        pod.tunnels.add(self)
        pod.shakes(self)
        pod.share.add(TUNNELS, 1)
        pod.plane.balance.add(1)
        pod.plane.peers.ask(source.ip, _ignore)

    def verify(self, certificate: dict[str, object] | None) -> None:
        self.peer = verify_client(certificate, self.pod.trust_domain)
        self.peer_text = str(self.peer)

    def on_established(self) -> None:
        self.pod.shook(self)
        if self.plane.draining or self.pod.closing:
            self.core.drain()

    def _give_way(self) -> None:
        """After work for nothing others have the processor, too, and not only the loop: whoever asks for what it may
        not have by the hundred, or floods, waits for its answers."""
        costs = self.core.costs
        patient = costs.for_nothing >= _FOR_NOTHING
        costs.for_nothing = 0
        if patient:
            self.core.work_at_once = WORK_AT_ONCE >> 2
            self.stop_reading()
            self.plane.loop.call_later(_AFTER_NOTHING_S, self._go_on)
        else:
            self.core.work_at_once = WORK_AT_ONCE
            super()._give_way()

    def on_request(self, stream: Stream, request: Request) -> Sink:
        flow = InboundStream(self, stream, request)
        flow.begin()
        # A stream that was refused at once is forgotten by now; one that is up already has another sink.
        return stream.sink or flow

    def on_down(self, error: MeshError | OSError | None) -> None:
        self.pod.tunnels.discard(self)
        self.pod.shook(self)
        self.pod.share.add(TUNNELS, -1)
        self.plane.balance.add(-1)
        if self.peer is None:
            why = str(error) if error else "connection closed during the TLS handshake"
            self.plane.recorder.refused(self.source, str(self.local), "inbound", why)


def _came_from_abroad(request: Request, network: str) -> bool:
    """It says so itself, which is good enough for telemetry; "" is a network like any other."""
    for name, value in request.fields:
        if name == b"x-forwarded-network":
            return value.decode("ascii", "replace").lower() != network.lower()
    return False


def _ignore(labels: PeerLabels | None) -> None:
    """The answer is wanted in the cache only."""


class InboundStream:
    """One CONNECT on a tunnel, from request to its end. It is the stream's sink until the relay stands."""

    __slots__ = (
        "_aim",
        "_dial",
        "_early",
        "_early_end",
        "_end",
        "_record",
        "_request",
        "_stream",
        "_timer",
        "_tunnel",
        "closed",
        "connection",
    )

    def __init__(self, tunnel: InboundTunnel, stream: Stream, request: Request) -> None:
        pod = tunnel.pod
        self._tunnel = tunnel
        self._stream = stream
        self._request = request
        self._aim: Aim | None = None
        self._record = record = pod.plane.recorder.open(pod.uid, tunnel.source, tunnel.local, inbound=True)
        record.mutual_tls = True
        record.source_identity = tunnel.peer_text
        if _came_from_abroad(request, pod.plane.settings.network):
            # The address is the gateway's; the other network tells no more of the client than it says itself.
            record.source_peer = read_baggage(request.fields, tunnel.peer_text)
        else:
            record.source_peer = pod.plane.peers.get(tunnel.source.ip)
        record.destination_peer = pod.labels
        record.destination_identity = pod.identity
        record.hbone_target = request.authority[:_LONGEST_AUTHORITY].decode("ascii", "replace")
        trace = request.first(b"traceparent")
        if trace and len(trace) == TRACEPARENT_LENGTH:
            record.traceparent = trace.decode("ascii", "replace")
        self.closed = False
        self._early = bytearray()
        self._early_end = False
        self._dial: AppDial | None = None
        self._end: TunnelledEnd | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Check the request; when it is known what it means here, register and judge."""
        pod = self._tunnel.pod
        self._record.service = self._service()
        if not self._request.connect:
            self._refuse(400, Failure(Flag.CONNECT, "not a CONNECT request", "bad-request"))
        elif pod.share.full():
            self._refuse(503, Failure(Flag.CONNECT, "the pod has as many open connections as it may", "pod-budget"))
        elif pod.policy.known:
            policy = pod.policy
            asked = policy.fronts or policy.application_tunnel is not None
            self._take_aim(pod.plane.authorities.get((pod.uid, self._record.hbone_target)) if asked else None)
        else:
            self._timer = pod.plane.loop.call_later(UNKNOWN_TIMEOUT_S, self._expired)
            pod.when_known(self.begin)

    def _take_aim(self, answer: AuthorityAnswer | None, *, again: bool = False) -> None:
        self._stop_timer()
        pod, tunnel = self._tunnel.pod, self._tunnel
        if self.closed:
            return
        loopback = pod.plane.settings.tuning.local_app_tunnel
        match take_aim(self._record.hbone_target, tunnel.local.ip, pod.policy, answer, loopback=loopback):
            case Aim() as aim:
                self._aim = aim
                self._record.original = aim.judged
                self.connection = Connection(tunnel.source.ip, tunnel.local.ip, aim.judged.port, tunnel.peer)
                pod.live.register(self)
                self._judge()
            case Miss(status, failure):
                self._refuse(status, failure)
            case None if again:
                self._refuse(503, UNKNOWN_AUTHORITY)
            case None:
                self._timer = pod.plane.loop.call_later(UNKNOWN_TIMEOUT_S, self._expired)
                pod.plane.authorities.ask((pod.uid, self._record.hbone_target), self._meant)

    def _meant(self, answer: AuthorityAnswer | None) -> None:
        self._take_aim(answer, again=True)

    def _service(self) -> ServiceLabels:
        """What telemetry calls the destination: the client's hint if it names a service of this pod."""
        services = self._tunnel.pod.policy.services
        self._record.hint = hint = self._request.first(b"forwarded")
        if hint and len(services) > 1:
            _, found, host = hint.partition(b"host=")
            name = host.strip(b'"').decode("ascii", "replace") if found else ""
            for service in services:
                if service.hostname == name:
                    return service
        return services[0] if services else NO_SERVICE

    def _expired(self) -> None:
        self._timer = None
        known = self._tunnel.pod.policy.known
        self._stop_waiting()
        self._refuse(503, UNKNOWN_AUTHORITY if known else UNKNOWN_WORKLOAD)

    def _stop_waiting(self) -> None:
        pod = self._tunnel.pod
        pod.stop_waiting(self.begin)
        pod.plane.authorities.leave((pod.uid, self._record.hbone_target), self._meant)

    def _judge(self) -> None:
        pod, record = self._tunnel.pod, self._record
        if record.source_peer is not None:
            pod.plane.recorder.established(record)
        else:
            pod.plane.peers.ask(self._tunnel.source.ip, self._peer_known)
        refused = pod.live.admit(self)
        if refused is not None:
            self._refuse(401, refused)
            return
        assert self._aim is not None
        speak_for = self._tunnel.source if self._aim.dial == self._aim.judged and not pod.up.own else None
        self._dial = AppDial(pod, self._aim.dial, speak_for, self._connected)
        self._dial.begin()

    def _peer_known(self, labels: PeerLabels | None) -> None:
        if not self.closed and labels is not None:
            self._record.source_peer = labels
            self._tunnel.pod.plane.recorder.established(self._record)

    def _connected(self, sock: socket.socket | None, error: OSError | None) -> None:
        self._dial = None
        pod, tunnel, stream, aim = self._tunnel.pod, self._tunnel, self._stream, self._aim
        assert aim is not None
        if sock is None:
            why = error.strerror or str(error) if error is not None else "unknown"
            self._refuse(503, Failure(Flag.CONNECT, f"connect to {aim.dial}: {why}"))
            return
        plane = pod.plane
        end = TunnelledEnd(plane.poller, sock, tunnel, stream, self, pod.buffers, plane.crashed)
        self._end = end
        self._record.meter = end
        stream.answer(response_block(200, pod.baggage if plane.settings.tuning.response_baggage else b""))
        if self.closed:
            # The tunnel died of the answer itself.
            end.abort()
            return
        stream.sink = end
        end.start_reading()
        if aim.said is not None:
            end.push(proxy_header(tunnel.source, aim.said, tunnel.peer_text))
        early = self._let_go()
        if early and end.on_data(memoryview(early)):
            stream.consumed(len(early))
        if self._early_end:
            end.on_end()

    # --- before the relay stands (Sink)

    def on_answer(self, answer: Answer) -> None:
        """Servers get no answers."""

    def on_data(self, data: memoryview) -> bool:
        self._early += data
        self._tunnel.pod.share.add(WAITING, len(data))
        return False

    def _let_go(self) -> bytearray:
        """What came before the relay stands waits here no longer."""
        early, self._early = self._early, bytearray()
        self._tunnel.pod.share.add(WAITING, -len(early))
        return early

    def on_end(self) -> None:
        self._early_end = True

    def on_room(self) -> None:
        """Nothing is sent before the answer."""

    def on_reset(self, code: int, *, untouched: bool) -> None:
        self._cancel()
        gave_up = Failure(Flag.CONNECT, "client gave up before the answer")
        self.ended(lost_because(self._tunnel.death) if code == LOST else gave_up)

    # --- ends

    def cut(self, failure: Failure) -> None:
        """End it from outside (Judged)."""
        if self._end is not None:
            self._end.cut(failure)
        elif not self.closed:
            self._cancel()
            if failure.flag is Flag.DENY:
                self._refuse(401, failure)
            else:
                self._stream.reset(Code.CANCEL)
                self.ended(failure)

    def ended(self, failure: Failure | None) -> None:
        """Everything is over."""
        if not self.closed:
            self.closed = True
            self._let_go()
            pod, record = self._tunnel.pod, self._record
            if record.source_peer is None:
                record.source_peer = pod.plane.peers.get(self._tunnel.source.ip)
                pod.plane.peers.leave(self._tunnel.source.ip, self._peer_known)
            pod.live.release(self)
            pod.plane.recorder.close(record, failure)

    def _refuse(self, status: int, failure: Failure) -> None:
        if not self.closed:
            self._stop_timer()
            self._stream.answer(response_block(status), end=True)
            # Whatever the client still sends is of no use: tell it so.
            self._stream.reset(Code.NO_ERROR)
            self._tunnel.core.costs.refused()
            self.ended(failure)

    def _cancel(self) -> None:
        self._stop_timer()
        self._stop_waiting()
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
