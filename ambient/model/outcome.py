"""The closed sets of outcomes of `decide` and `route`; each member carries its reason, every consumer handles all."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate

from ambient.model.address import Endpoint, IpAddress
from ambient.model.identity import Identity


@dataclass(frozen=True, slots=True)
class Connection:
    """What is judged: the TCP peer (never a header), its mTLS identity if any, the pod address and the final port."""

    source_ip: IpAddress
    destination_ip: IpAddress
    destination_port: int
    peer: Identity | None = None


class Reason(StrEnum):
    """Why a connection was allowed or denied."""

    NO_ALLOW_POLICY = "no-allow-policy"
    ALLOWED_BY = "allowed-by"
    DENIED_BY = "denied-by"
    NO_ALLOW_MATCHED = "no-allow-matched"
    POLICY_NOT_RECEIVED = "policy-not-received"
    NOT_ITS_WAYPOINT = "not-its-waypoint"


@dataclass(frozen=True, slots=True)
class Allowed:
    reason: Reason
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """`policy` is the key of the policy that decided or, for NO_ALLOW_MATCHED, of the nearest one ("" if none)."""

    reason: Reason
    policy: str = ""
    detail: str = ""


Verdict = Allowed | Denied


class Effect(StrEnum):
    """What a dry-run policy would do to a connection if it were enforced."""

    WOULD_ALLOW = "would-allow"
    WOULD_DENY = "would-deny"


@dataclass(frozen=True, slots=True)
class DryRun:
    """`policy` is the key of a dry-run policy."""

    policy: str
    effect: Effect


class NoRoute(StrEnum):
    """Why an outbound connection is refused before it leaves the node."""

    LOOP_TO_ZTUNNEL = "loop-to-ztunnel"
    UNKNOWN_SOURCE = "unknown-source"
    NO_HEALTHY_UPSTREAM = "no-healthy-upstream"
    NO_SERVICE_PORT = "no-service-port"
    UNKNOWN_WAYPOINT = "unknown-waypoint"
    NO_GATEWAY = "no-gateway"
    NOT_IN_REGISTRY = "not-in-registry"
    PAST_A_WAYPOINT = "past-a-waypoint"
    NOT_UNDERSTOOD = "not-understood"


@dataclass(frozen=True, slots=True)
class PeerLabels:
    """What telemetry says about one side; "" means unknown."""

    workload: str = ""
    pod: str = ""
    namespace: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    principal: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class ServiceLabels:
    hostname: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """One possible next hop. With `authority` it is HBONE mTLS to ip:port and CONNECT to the authority, else plain TCP.

    `expected` are the SPIFFE URIs of which the hop must present one. `weight` > 0.
    With `inner` the hop is the gateway of another network: inside its tunnel goes a second one to the same authority,
    whose far end must present one of `inner` (double HBONE).
    `ip` is "" when only `hostname` is known: resolve it, then use `at`.
    """

    ip: str
    port: int
    authority: str = ""
    expected: tuple[str, ...] = ()
    weight: int = 1
    labels: PeerLabels = PeerLabels()
    through_waypoint: bool = False
    inner: tuple[str, ...] = ()
    hostname: str = ""

    def at(self, ip: IpAddress) -> Hop:
        """The hop at one of the addresses of its hostname; a tunnel to it asks for that address, too."""
        authority = self.authority
        if authority and not self.through_waypoint and not self.inner:
            authority = str(Endpoint(ip, int(authority.rpartition(":")[2])))
        return replace(self, ip=str(ip), hostname="", authority=authority)


class _Drawn:
    """What is drawn from a plan with. No field of it: made at the first draw, so that it neither travels nor counts
    when plans are compared."""

    __slots__ = ("_reach",)
    _reach: Sequence[float]
    """The sum of the weights up to each hop and with it."""


@dataclass(frozen=True, slots=True)
class Forward(_Drawn):
    """Send to one of `hops`, drawn by weight for each connection."""

    hops: tuple[Hop, ...]
    service: ServiceLabels = ServiceLabels()

    def pick(self, random: float) -> Hop:
        """The hop for a number in 0 <= random < 1, by weight. There must be one."""
        try:
            reach = self._reach
        except AttributeError:
            reach = array("d", accumulate(hop.weight for hop in self.hops))
            object.__setattr__(self, "_reach", reach)
        # Rounding may bring the point up to the last sum.
        return self.hops[min(bisect_right(reach, random * reach[-1]), len(reach) - 1)]


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Plain TCP to the address the application dialled; `why` says what made it so."""

    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: NoRoute
    detail: str = ""


Plan = Forward | Passthrough | Refuse
