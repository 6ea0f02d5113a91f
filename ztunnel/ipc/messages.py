"""The messages between the director and one worker: frozen dataclasses, carried by `ztunnel.ipc.channel`.

File descriptors travel beside a message (SCM_RIGHTS), in the order its docstring names them; the receiver owns
them. The codec builds only the classes listed in its registry (never arbitrary ones, as pickle would).
A worker that loses the director goes on with what it has and reconnects; it then sends `Hello` again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ambient.model.address import IpAddress
from ambient.model.outcome import PeerLabels, Plan, ServiceLabels
from ambient.model.policy import Authorization
from ambient.model.workload import ApplicationTunnel
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk
from ztunnel.ipc.settings import Settings as Settings

# --- worker -> director


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message of a connection. `pods`: uids that this worker already serves (empty on a fresh start), `netns`:
    the inode of each one's namespace, in the same order. `form`: what it runs, see `ztunnel.compiled.Form`.

    `counters` state is kept by the worker; after a reconnect it reports totals since ITS start (see Counters).
    """

    pid: int
    slot: int
    pods: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    netns: tuple[int, ...] = ()
    form: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodListeners:
    """Answer to AskListeners: fds exactly as they came with PodUp (netns first), so that a restarted director hands
    the same sockets to new workers instead of binding again. Without fds: the worker does not serve this pod.

    The other fields are those of the PodUp, so that the director can go on while no node agent is there to tell it.
    """

    uid: str
    name: str = ""
    namespace: str = ""
    service_account: str = ""
    identity: str = ""
    dns: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReady:
    """The worker serves this pod (`error` empty) or could not (`error` says why)."""

    uid: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodGone:
    """The worker has closed everything of this pod after PodDown."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAsk:
    """A destination this worker has no plan for. Answered by RouteAnswer with the same key."""

    uid: str
    ip: IpAddress
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAsk:
    """Labels of the workload that owns `ip` (for inbound telemetry). Answered by PeerAnswer."""

    ip: IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class NameAsk:
    """A DNS question of a pod (lower case, no final dot; qtype "A" or "AAAA"). Answered by NameAnswer."""

    uid: str
    name: str
    qtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """The last failure of a series: its reason, the policy behind it ("" = none) and its trace ("" = unknown)."""

    unix: float
    reason: str = ""
    policy: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One traffic series: label values in the order of `ambient.model.traffic.TRAFFIC`, then totals."""

    labels: tuple[str, ...]
    opened: int
    closed: int
    failed: int
    received: int
    sent: int
    exemplar: Exemplar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Totals since the worker's start of every series that changed since the last report, plus its own gauges.

    `other`: further monotonic counters, `gauges`: current values (summed over workers). Names are metric names without
    `_total`; labels may follow in braces, as in `istio_dns_requests{request_protocol="udp"}`. A name that begins with
    neither `istio_` nor `workload_manager_` is published with the prefix `ambient_`.
    Sent every second when something changed and at once on ReportAsk.
    `forgotten`: series the worker keeps no longer, after this report; should one come back it begins at zero.
    """

    series: tuple[Series, ...]
    other: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    forgotten: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveConnection:
    """One open connection for the config dump; fields as in the dump's workloadState."""

    direction: str
    src: str
    original_dst: str
    actual_dst: str
    protocol: str
    peer: str = ""
    opened_unix: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Answer to ReportAsk: open connections per pod uid."""

    ask: int
    connections: dict[str, list[LiveConnection]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """`count` flow records packed by `ztunnel.ipc.flows.pack`; `lost` more were dropped."""

    packed: bytes
    count: int
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """All connections ended after Drain."""


# --- director -> worker


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPolicy:
    """Everything `decide` needs about one local workload, always whole (never a delta).

    `known` is False until discovery has told us about the workload: then inbound waits or refuses.
    `missing`: keys the workload names that were not received: they refuse.
    `own`: labels of this pod. `addresses`: its IPs as text. `waypoint_principals`: with a non-empty tuple only these
    peers may come in, and no plain text (the pod or its service is behind a waypoint), but for `open_ports`: those of
    its services, where only the pod itself has a waypoint.
    """

    known: bool = False
    policies: tuple[Authorization, ...] = ()
    missing: tuple[str, ...] = ()
    own: PeerLabels = field(default_factory=PeerLabels)
    addresses: tuple[str, ...] = ()
    waypoint_principals: tuple[str, ...] = ()
    services: tuple[ServiceLabels, ...] = ()
    baggage: str = ""
    service_ports: tuple[tuple[str, int, int], ...] = ()
    """(service hostname, service port, this pod's target port): what a tunnel to a host name means here."""
    application_tunnel: ApplicationTunnel | None = None
    fronts: bool = False
    """It is somebody's waypoint: authorities of others may lead here, see AuthorityAsk."""

    open_ports: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()
    """What travels instead of `policies` (ztunnel.ipc.told): those that came under these numbers, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Policies that pods may be told to have by these numbers from here on; those of `gone` are named no more."""

    put: tuple[tuple[int, Authorization], ...] = ()
    gone: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUp:
    """Serve this pod. fds: netns, outbound, plaintext, hbone[, dns_udp_v4, dns_tcp_v4, dns_udp_v6, dns_tcp_v6].

    The dns descriptors are present when `dns` is true (the v6 ones only with Settings.ipv6). Repeated with another
    netns for a uid that was served: the old one is torn down first.
    """

    uid: str
    name: str
    namespace: str
    service_account: str
    identity: str
    policy: PodPolicy
    dns: bool = True
    row: int = -1
    """In the ledger; -1: this worker counts for itself."""
    own: bool = False
    """It is ztunnel's own pod: nobody's address is put on there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLedger:
    """fds: one memory file, rows of `columns` numbers per kind, in which all workers count what pods take; `column` is
    this worker's alone. Comes before the first PodUp."""

    columns: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRow:
    """The row in the ledger of a pod that this worker serves since before its director's time."""

    uid: str
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUpdate:
    """New policy state of a served pod: replace, then judge every live inbound connection of it again."""

    uid: str
    policy: PodPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDown:
    """Let go of the pod: what is still open of it is cut."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """fds: one memfd that holds key, leaf and intermediates as PEM. `roots` is PEM with every trusted root."""

    identity: str
    roots: str
    not_after_unix: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateGone:
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Everything that is revoked now, as `ztunnel.tls.revocation.revocation_key` writes it. `unknown`: nobody can say
    what is, so that no peer can be believed."""

    keys: tuple[bytes, ...] = ()
    unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFailed:
    """No certificate for this identity can be had at the moment; connections waiting for it fail with `why`."""

    identity: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """The plan for (uid, ip, port); cache it until forgotten."""

    uid: str
    ip: IpAddress
    port: int
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAnswer:
    ip: IpAddress
    labels: PeerLabels


@dataclass(frozen=True, slots=True, kw_only=True)
class NameAnswer:
    """`known` False: forward the question upstream. Else answer with `addresses` (maybe none); `canonical` is the
    full name if a search suffix was completed."""

    uid: str
    name: str
    qtype: str
    known: bool
    addresses: tuple[str, ...] = ()
    canonical: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Drop cached plans, peers and names. Empty = of that kind nothing; `everything` = all caches."""

    routes: tuple[tuple[str, IpAddress, int], ...] = ()
    peers: tuple[IpAddress, ...] = ()
    authorities: tuple[tuple[str, str], ...] = ()
    names: bool = False
    everything: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AskListeners:
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAsk:
    ask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLevel:
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Stop accepting everywhere, GOAWAY on tunnels, answer Drained when idle or after `deadline_s`, then exit.

    `handed_over`: another ztunnel accepts from the same sockets, so what waits there is left to it.
    """

    deadline_s: float
    handed_over: bool = False


ToDirector = (
    Hello
    | PodListeners
    | PodReady
    | PodGone
    | RouteAsk
    | PeerAsk
    | NameAsk
    | AuthorityAsk
    | Counters
    | Report
    | Flows
    | Drained
)
ToWorker = (
    Settings
    | Policies
    | PodUp
    | PodLedger
    | PodRow
    | PodUpdate
    | PodDown
    | Certificate
    | CertificateGone
    | CertificateFailed
    | Revocations
    | RouteAnswer
    | PeerAnswer
    | NameAnswer
    | AuthorityAnswer
    | Forget
    | AskListeners
    | ReportAsk
    | LogLevel
    | Drain
)
