"""15001: what the pod dials. Ask where it goes, then through a tunnel or straight; never anywhere by default."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Final

from ambient.errors import MeshError
from ambient.model.address import ZTUNNEL_PORTS, Endpoint, IpAddress, canonical
from ambient.model.outcome import Forward, Hop, Passthrough, Plan, Refuse
from ztunnel.addresses import address_of
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import literal
from ztunnel.hbone.message import Answer
from ztunnel.hbone.stream import Stream
from ztunnel.proxy.nested import NestedTunnel
from ztunnel.proxy.pool import ClientTunnel
from ztunnel.proxy.relay import TunnelledEnd, lost_because
from ztunnel.proxy.socket_end import abort_socket
from ztunnel.proxy.straight import Straight
from ztunnel.proxy.tunnel import LOST
from ztunnel.telemetry.baggage import read_baggage
from ztunnel.telemetry.record import Failure, Flag

if TYPE_CHECKING:
    import asyncio

    from ztunnel.proxy.pod import Pod

ROUTE_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 20.0
SILENCE_S: Final = 1.0
"""How long a shared tunnel may be silent after a request before it is probed, and again before it is given up."""
_NEITHER_IS_ZERO: Final = 1 << 64 | 1
"""Of a trace's and a span's number, 128 and 64 bits."""
_STATUS_TEXT: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Outbound:
    """One connection of the pod, from accept to its end. `sock` is owned."""

    __slots__ = (
        "_end",
        "_hop",
        "_key",
        "_nested",
        "_pod",
        "_reads",
        "_record",
        "_request",
        "_retried",
        "_reused",
        "_sock",
        "_straight",
        "_stream",
        "_timer",
        "_tunnel",
        "closed",
    )

    def __init__(self, pod: Pod, sock: socket.socket, source: Endpoint, destination: Endpoint) -> None:
        self._pod = pod
        self._sock = sock
        self._key = (pod.uid, destination.ip, destination.port)
        self._record = pod.plane.recorder.open(pod.uid, source, destination, inbound=False)
        self._record.source_peer = pod.labels
        self._timer: asyncio.TimerHandle | None = None
        self._hop: Hop | None = None
        self._tunnel: ClientTunnel | None = None
        self._request = b""
        """What is asked for inside the gateway's tunnel."""
        self._nested: NestedTunnel | None = None
        self._stream: Stream | None = None
        self._end: TunnelledEnd | None = None
        self._straight: Straight | None = None
        self._reused = False
        self._reads = 0
        self._retried = False
        self.closed = False

    def begin(self) -> None:
        """Decide where the connection goes."""
        pod, destination = self._pod, self._record.destination
        pod.goes_out(self)
        if destination.port in ZTUNNEL_PORTS and pod.is_own(destination):
            self._fail(Failure(Flag.CONNECT, f"loop to ztunnel's own port: {destination}", "loop-to-ztunnel"))
            return
        plan = pod.plane.routes.get(self._key)
        if plan is not None:
            self._planned(plan)
            return
        self._timer = pod.plane.loop.call_later(ROUTE_TIMEOUT_S, self._route_expired)
        pod.plane.routes.ask(self._key, self._planned)

    def _route_expired(self) -> None:
        self._timer = None
        self._pod.plane.routes.leave(self._key, self._planned)
        self._fail(
            Failure(
                Flag.CONNECT,
                f"no route to {self._record.destination} in time: the director does not answer",
                "no-director",
            )
        )

    def _planned(self, plan: Plan | None) -> None:
        self._stop_timer()
        if self.closed:
            return
        match plan:
            case Forward(hops=()):
                self._fail(Failure(Flag.CONNECT, "no healthy upstream", "no-healthy-upstream"))
            case Forward():
                self._record.service = plan.service
                self._forward(plan.hops[0] if len(plan.hops) == 1 else plan.pick(self._pod.plane.random()))
            case Passthrough():
                self._go_straight(self._record.destination)
            case Refuse():
                text = f"{plan.reason}: {plan.detail}" if plan.detail else str(plan.reason)
                self._fail(Failure(Flag.CONNECT, text, str(plan.reason), detail=plan.detail))
            case None:
                why = "destination is not known here and the director does not answer"
                self._fail(Failure(Flag.CONNECT, why, "no-director"))

    def _forward(self, hop: Hop) -> None:
        if not hop.ip:
            self._pod.plane.hosts.find(self._pod, hop.hostname, partial(self._resolved, hop))
            return
        record = self._record
        record.destination_peer = hop.labels
        record.destination_identity = _uri(hop.labels.principal)
        if not hop.authority:
            self._go_straight(Endpoint(address_of(hop.ip), hop.port))
            return
        self._hop = hop
        record.destination = Endpoint(address_of(hop.ip), hop.port)
        record.hbone_target = hop.authority
        record.mutual_tls = True
        record.source_identity = self._pod.identity
        if hop.inner:
            record.doubled = True
        else:
            self._pod.plane.recorder.established(record)
        self._pod.pool.acquire(hop, self)

    def _resolved(self, hop: Hop, addresses: tuple[IpAddress, ...]) -> None:
        """Go to one of the addresses of a hop's name: of the family dialled if there is one, never to ourselves."""
        if self.closed:
            return
        plane, pod = self._pod.plane, self._pod
        families = {ip.version for ip in pod.addresses} or {4, 6}
        fitting = [ip for ip in map(canonical, addresses) if ip.version in families and not _nobodys(ip)]
        same = [ip for ip in fitting if ip.version == self._record.destination.ip.version] or fitting
        if same:
            self._forward(hop.at(same[int(plane.random() * len(same))]))
        else:
            why = f"no address of {hop.hostname} to connect to" + (f" among {len(addresses)}" if addresses else "")
            self._fail(Failure(Flag.CONNECT, why, "unresolved-name", detail=hop.hostname))

    # --- straight

    def _go_straight(self, target: Endpoint) -> None:
        self._record.destination = target
        self._pod.plane.recorder.established(self._record)
        sock = self._sock
        self._straight = Straight(self._pod, sock, self._record, target, None, self.ended)
        self._straight.begin()

    # --- through a tunnel (Applicant)

    def tunnel_ready(self, tunnel: ClientTunnel, *, reused: bool) -> None:
        hop, pod = self._hop, self._pod
        assert hop is not None
        self._tunnel, self._reused = tunnel, reused
        host = f";host={self._record.service.hostname}" if self._record.service.hostname else ""
        trace = f"{pod.plane.random_bits(192) | _NEITHER_IS_ZERO:048x}"
        block = pod.request_prefix(hop.authority) + literal(
            b"forwarded", f'for="{self._record.source_text}"{host}'.encode("ascii", "replace")
        )
        self._record.traceparent = parent = f"00-{trace[:32]}-{trace[32:]}-00"
        block += literal(b"traceparent", parent.encode("ascii"))
        self._reads = tunnel.reads
        if reused:
            self._timer = pod.plane.loop.call_later(SILENCE_S, self._probe)
        else:
            self._timer = pod.plane.loop.call_later(ANSWER_TIMEOUT_S, self._answer_expired)
        if hop.inner:
            network = pod.plane.settings.network.encode("ascii", "replace")
            self._request = block + literal(b"x-forwarded-network", network)
        self._stream = tunnel.core.open(block, self)

    def tunnel_failed(self, failure: Failure) -> None:
        self._fail(failure)

    def _probe(self) -> None:
        """No answer yet on a shared tunnel: is its other end still there at all?"""
        tunnel, plane = self._tunnel, self._pod.plane
        assert tunnel is not None
        if tunnel.reads == self._reads:
            tunnel.core.probe(plane.clock())
        self._timer = plane.loop.call_later(SILENCE_S, self._doubt)

    def _doubt(self) -> None:
        """Not a sign since we asked: leave the tunnel to its keepalive and try a fresh one."""
        tunnel, stream, plane = self._tunnel, self._stream, self._pod.plane
        assert tunnel is not None
        if tunnel.reads != self._reads or self._retried or stream is None or self._hop is None:
            self._timer = plane.loop.call_later(ANSWER_TIMEOUT_S - 2 * SILENCE_S, self._answer_expired)
            return
        tunnel.pooled = False
        self._timer = self._stream = None
        self._retried = True
        plane.recorder.counters.count("hbone_silent_tunnels")
        stream.reset(Code.CANCEL)
        self._pod.pool.acquire(self._hop, self, fresh=True)

    def _answer_expired(self) -> None:
        self._timer = None
        self._fail(Failure(Flag.CONNECT, "peer did not answer CONNECT in time"))

    # --- before the relay stands (Sink)

    def on_answer(self, answer: Answer) -> None:
        self._stop_timer()
        if answer.status != 200:
            reason = _STATUS_TEXT.get(answer.status, "")
            self._fail(Failure(Flag.CONNECT, f"http status: {answer.status} {reason}".rstrip()))
            return
        tunnel, stream, plane = self._tunnel, self._stream, self._pod.plane
        assert tunnel is not None
        assert stream is not None
        nested = self._nested
        if self._request:
            if nested is None:
                self._begin_inner(tunnel, stream)
                return
            self._record.destination_peer = read_baggage(answer.fields, self._record.destination_identity)
            plane.recorder.established(self._record)
        below = nested or tunnel
        end = TunnelledEnd(plane.poller, self._sock, below, stream, self, self._pod.buffers, plane.crashed)
        self._end = end
        self._record.meter = end
        stream.sink = end
        end.start_reading()

    def _begin_inner(self, tunnel: ClientTunnel, stream: Stream) -> None:
        """The gateway carries us: prove to the far end who we are, through it."""
        pod, hop = self._pod, self._hop
        credentials = pod.plane.wallet.get(pod.identity)
        if credentials is None or hop is None:
            self._fail(Failure(Flag.IDENTITY_ERROR, "the certificate has expired"))
            return
        self._stream = None
        self._nested = NestedTunnel(pod.plane, tunnel, stream, credentials, hop.inner, self, pod.buffers.chunks)
        stream.sink = self._nested
        self._nested.begin()

    def inner_ready(self, identity: str) -> None:
        """The far end is who it should be (User of the nested tunnel)."""
        nested = self._nested
        assert nested is not None
        self._record.destination_identity = identity
        self._timer = self._pod.plane.loop.call_later(ANSWER_TIMEOUT_S, self._answer_expired)
        self._stream = nested.core.open(self._request, self)

    def inner_failed(self, error: MeshError | OSError | None) -> None:
        """There is nobody behind the gateway whom we would believe."""
        self._fail(Failure(Flag.TLS_FAILURE, f"inside the gateway's tunnel: {error or 'closed during the handshake'}"))

    def on_data(self, data: memoryview) -> bool:
        """Payload before the answer is refused by the stream itself."""
        return True

    def on_end(self) -> None:
        self._fail(Failure(Flag.CONNECT, "peer ended the stream without an answer"))

    def on_room(self) -> None:
        """Nothing is sent before the answer."""

    def on_reset(self, code: int, *, untouched: bool) -> None:
        self._stop_timer()
        self._stream = None
        again = self._nested is None and not self._retried and (untouched or (code == LOST and self._reused))
        if again and self._hop is not None:
            # Not one octet of the application has left yet, so it may go another way once.
            self._retried = True
            self._pod.plane.recorder.counters.count("hbone_retries")
            self._pod.pool.acquire(self._hop, self, fresh=True)
            return
        if code == LOST:
            tunnel = self._tunnel
            fresh = tunnel is not None and not tunnel.core.settled
            death = f": {tunnel.death}" if tunnel is not None and tunnel.death else ""
            lost = lost_because(tunnel.death if tunnel is not None else None)
            refused = Failure(Flag.TLS_FAILURE, f"peer refused the connection{death}")
            self._fail(refused if fresh and lost.flag is not Flag.CERT_REVOKED else lost)
        else:
            self._fail(Failure(Flag.H2_HANDSHAKE_FAILURE, f"stream reset before an answer: code {code}"))

    # --- ends

    def cut(self, failure: Failure) -> None:
        """End it from outside."""
        if self._end is not None:
            self._end.cut(failure)
        elif self._straight is not None:
            self._straight.cut(failure)
        else:
            self._fail(failure)

    def ended(self, failure: Failure | None) -> None:
        """The relay is over."""
        if not self.closed:
            self.closed = True
            self._pod.came_back(self)
            if self._nested is not None:
                self._nested.shut()
            self._pod.plane.recorder.close(self._record, failure)

    def _fail(self, failure: Failure) -> None:
        if self.closed:
            return
        if failure.reason:
            self._pod.plane.recorder.counters.count(f'outbound_refused{{reason="{failure.reason}"}}')
        self._stop_timer()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(Code.CANCEL)
        if self._nested is not None:
            self._nested.drop()
        abort_socket(self._sock)
        self.ended(failure)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nobodys(ip: IpAddress) -> bool:
    """No endpoint elsewhere has it: a name that says so leads back to the pod."""
    return ip.is_loopback or ip.is_unspecified or ip.is_multicast


def _uri(principal: str) -> str:
    return principal if not principal or principal.startswith("spiffe://") else f"spiffe://{principal}"
