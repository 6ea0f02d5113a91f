"""What one gateway serves, as values: its listeners, the sites behind them, and what it proves itself with."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.kube.jwt_rules import JwtRule
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Destination, Front, Policy, Route


@dataclass(frozen=True, slots=True)
class Site:
    """What is done with requests for a host name ("*": any, "*.x": any name below x): the first route that fits."""

    hostname: str
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Clients:
    """Who may connect over TLS: `authority` names the certificates that vouch for them; `insecure`: others, too."""

    authority: str
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Door:
    """One listener. `protocol` is HTTP, HTTPS or TLS; `hostname` "" is any.

    `certificates`: names of what it proves itself with (HTTPS). `elsewhere`: hosts that another listener of the port
    serves, so nobody is answered for them here. `destinations`: where the bytes of a TLS listener go, by server name.
    """

    name: str
    port: int
    protocol: str
    hostname: str = ""
    sites: tuple[Site, ...] = ()
    certificates: tuple[str, ...] = ()
    clients: Clients | None = None
    elsewhere: tuple[str, ...] = ()
    destinations: tuple[tuple[str, tuple[Destination, ...]], ...] = ()

    @property
    def evidence(self) -> tuple[str, ...]:
        """Names of what it proves itself with, and knows its clients by."""
        return (*self.certificates, *((self.clients.authority,) if self.clients is not None else ()))


@dataclass(frozen=True, slots=True)
class Through:
    """A waypoint that services are behind: its proxies' addresses, and the SPIFFE URIs one of which it has to prove."""

    name: str
    addresses: tuple[str, ...]
    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """What stands before the gateway: so many proxies whose word on the client's address counts, and whether each
    connection begins with a PROXY header."""

    hops: int = 0
    proxy_protocol: bool = False


@dataclass(frozen=True, slots=True)
class GatewayView:
    """Everything that one gateway is configured from. `pools`: services that routes lead to, with the ports that are
    wanted; of those behind a waypoint that is the one endpoint. `limiter`: as in `View`."""

    namespace: str
    name: str
    trust_domains: tuple[str, ...]
    doors: tuple[Door, ...] = ()
    pools: tuple[Front, ...] = ()
    through: tuple[Through, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    policies: tuple[Policy, ...] = ()
    tokens: tuple[JwtRule, ...] = ()
    topology: Topology = Topology()
    limiter: Front | None = None
