"""What one waypoint stands in front of, as values: services, their ports, endpoints and policies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ambient.kube.jwt_rules import JwtRule
from ambient.kube.mesh_config import Provider
from ambient.kube.policies import PolicyRule
from ambient.kube.routing import HeaderEdit, RouteMatch, RouteRule
from ambient.kube.traffic_values import HashBy, TrafficPolicy
from ambient.model.address import IpAddress
from ambient.model.workload import Locality, Scope
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.exports import NO_EXPORTS, Exports


class Protocol(Enum):
    """What is spoken on a port of a service. AUTO: nobody says; it is found out by looking at the first bytes."""

    HTTP = "http"
    HTTP2 = "http2"
    TCP = "tcp"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a port. `address` and `port` are where the application listens, a name where the proxy looks it
    up; `identity` is the SPIFFE URI that the far end of the tunnel has to prove, "" where there is no tunnel: an
    endpoint outside of the mesh. `through`: the waypoint ("namespace/name") that it is reached through; then the
    address is the service's, or the pod's whose own waypoint it is."""

    address: IpAddress | str
    port: int
    identity: str = ""
    workload: str = ""
    weight: int = 1
    namespace: str = ""
    canonical: str = ""
    revision: str = ""
    cluster: str = ""
    through: str = ""
    node: str = ""
    locality: Locality = Locality()

    @property
    def named(self) -> bool:
        return isinstance(self.address, str)

    @property
    def authority(self) -> str:
        return f"{self.address}:{self.port}" if isinstance(self.address, str) else authority(self.address, self.port)

    @property
    def told(self) -> str:
        """What telemetry says of it, in Istio's form: workload, namespace, canonical service and revision, cluster."""
        return ";".join((self.workload, self.namespace, self.canonical, self.revision, self.cluster))


@dataclass(frozen=True, slots=True)
class Policy:
    """An AuthorizationPolicy that is attached to a service through a targetRef. `action` is ALLOW, DENY, AUDIT or
    CUSTOM; `dry_run`: its verdict is only told. `namespace` is where names of service accounts without one belong.
    `provider`: of a CUSTOM one, who is asked."""

    namespace: str
    name: str
    action: str
    rules: tuple[PolicyRule, ...] = ()
    dry_run: bool = False
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Origination:
    """TLS that the proxy begins with the application itself. `authority`: who vouches for the server, None: nobody is
    asked, because its owner says so. `names`: one of them has to be in the server's certificate. `own`: what the proxy
    proves itself with, if the server asks. `as_asked`: whose name is the one that the client asks for, as far as `sni`
    and `names` say nothing."""

    sni: str
    names: tuple[str, ...] = ()
    authority: Evidence | None = None
    own: Evidence | None = None
    as_asked: bool = False

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(one for one in (self.authority, self.own) if one is not None)


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of a port's endpoints, by the name that routes call them."""

    name: str
    backends: tuple[Backend, ...] = ()
    traffic: TrafficPolicy = TrafficPolicy()
    tls: Origination | None = None


@dataclass(frozen=True, slots=True)
class Wild:
    """A port whose endpoints are whatever its clients ask for: any name below `domain` ("example.com"), looked up and
    called on `port`. `elsewhere`: names below it ("*." at the head: all below) that are other services'."""

    domain: str
    port: int
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FrontPort:
    """`number` is the service's own. `traffic`: what its DestinationRule says of this port. `tls`: what is spoken with
    its endpoints; None: whatever the client speaks. `near`: what endpoints should have in common with a proxy, the most
    important first. `wild`: its endpoints are none that anybody has written down."""

    number: int
    protocol: Protocol
    backends: tuple[Backend, ...] = ()
    traffic: TrafficPolicy = TrafficPolicy()
    subsets: tuple[Subset, ...] = ()
    tls: Origination | None = None
    near: tuple[Scope, ...] = ()
    wild: Wild | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy is."""

    node: str
    locality: Locality = Locality()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a share of a route's requests goes: a port of a service, or a subset of its endpoints. `hostname` "":
    nowhere, they are refused. `namespace`: the service's, "" where it is that of the service that was asked for."""

    hostname: str
    port: int
    weight: int = 1
    subset: str = ""
    namespace: str = ""
    hash_by: HashBy | None = None
    request: HeaderEdit = HeaderEdit()
    response: HeaderEdit = HeaderEdit()


@dataclass(frozen=True, slots=True)
class Route:
    """One match of one rule of a route, on one port of a service; the first that fits decides. `destinations` are
    those of the rule's backends, `mirrors` of its mirrors that can be sent to, with shares of a million as weights."""

    name: str
    port: int
    match: RouteMatch
    rule: RouteRule
    destinations: tuple[Destination, ...] = ()
    mirrors: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """Where connections to a port go that are carried unread. `names`: those whose TLS asks for one of these alone
    ("*." at the head: all below); () for all others."""

    port: int
    destinations: tuple[Destination, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Front:
    """A service behind the waypoint. `routes` in the order in which they are tried; where a port has any, a request
    that none of them fits finds nothing. `rank`: of several that claim one name the lowest has it. `tokens`: whose
    tokens are believed. `streams`: at most one per port and name. `providers`: who its CUSTOM policies ask, as far as
    they are known. `unnamed`: it is no service, but stands for workloads that are called by their own addresses.
    `exports`: what is told of it where it is not what is told of all. `read`: ports that its own namespace's routes
    about requests are on, so that nothing is carried there that is none."""

    namespace: str
    hostname: str
    addresses: tuple[IpAddress, ...]
    ports: tuple[FrontPort, ...]
    policies: tuple[Policy, ...] = ()
    routes: tuple[Route, ...] = ()
    rank: int = 0
    tokens: tuple[JwtRule, ...] = ()
    streams: tuple[Stream, ...] = ()
    providers: tuple[Provider, ...] = ()
    unnamed: bool = False
    exports: Exports | None = None
    read: frozenset[int] = frozenset()

    @property
    def bare(self) -> Front:
        """Without anything that people write of its requests."""
        return Front(self.namespace, self.hostname, self.addresses, self.ports, rank=self.rank, unnamed=self.unnamed)


@dataclass(frozen=True, slots=True)
class Called:
    """A workload that is called by its own addresses. `declared`: what is spoken on ports of it, as its services say;
    of others nobody says."""

    addresses: tuple[IpAddress, ...]
    declared: tuple[tuple[int, Protocol], ...] = ()


@dataclass(frozen=True, slots=True)
class Direct:
    """Workloads of one account that the waypoint stands before when they are called by their own addresses. `identity`:
    the SPIFFE URI that they have to prove, "" where there is no tunnel. `policies`, `tokens` and `providers` as of a
    Front."""

    namespace: str
    account: str
    identity: str
    workloads: tuple[Called, ...]
    policies: tuple[Policy, ...] = ()
    tokens: tuple[JwtRule, ...] = ()
    providers: tuple[Provider, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one waypoint is configured from.

    `trust_domains`: whose peers it takes, its own first. `xfcc`: the application is told who called, in
    x-forwarded-client-cert. `beyond`: services that routes lead to, with the ports that are wanted. `asked`: those that
    providers are. `outside`: clients are connected to us themselves, and nobody of the mesh. `limiter`: the service
    that counts for all proxies, with the one port that is asked. `direct`: workloads that are called by their own
    addresses. `place`: where the one proxy is that it is for, None: it is for all.
    """

    namespace: str
    name: str
    trust_domains: tuple[str, ...]
    fronts: tuple[Front, ...] = ()
    xfcc: bool = False
    beyond: tuple[Front, ...] = ()
    exports: Exports = NO_EXPORTS
    asked: tuple[Front, ...] = ()
    outside: bool = False
    limiter: Front | None = None
    direct: tuple[Direct, ...] = ()
    place: Place | None = None


def authority(address: IpAddress, port: int) -> str:
    """ "ip:port" or "[ip6]:port", as it stands in a CONNECT request."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
