"""What is left of a rule once some facts of a connection are known: boxes of ports and peer addresses.

A rule matches a connection that has the facts exactly when one of its boxes holds the connection's port and source.
Where a fact is unknown (who speaks in a tunnel, and for which port) the boxes are those that hold for every value of
it, or those that hold for some. Who a peer is is judged by the reference algebra; only sets are made here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Final

from ambient.model.address import IpAddress, IpNetwork
from ambient.model.identity import Identity
from ambient.model.matching import NO_FIELDS, in_any, match_matches, principal_of
from ambient.model.outcome import Connection
from ambient.model.policy import Clause, Match, Rule

MOST_BOXES: Final = 256
"""A rule that comes apart into more is not told."""


@dataclass(frozen=True, slots=True)
class Ports:
    """`listed`, or with `others` every port that is not listed."""

    listed: frozenset[int] = frozenset()
    others: bool = False

    def meet(self, other: Ports) -> Ports:
        """Those in both."""
        if self.others and other.others:
            return Ports(self.listed | other.listed, others=True)
        if self.others or other.others:
            some, all_but = (other, self) if self.others else (self, other)
            return Ports(some.listed - all_but.listed)
        return Ports(self.listed & other.listed)

    def __bool__(self) -> bool:
        return self.others or bool(self.listed)

    def __contains__(self, port: int) -> bool:
        return (port in self.listed) != self.others


EVERY_PORT: Final = Ports(others=True)


@dataclass(frozen=True, slots=True)
class Box:
    """Ports, and sources: in one of `within` (None: any), in none of `without`."""

    ports: Ports = EVERY_PORT
    within: tuple[IpNetwork, ...] | None = None
    without: tuple[IpNetwork, ...] = ()


EVERYTHING: Final = Box()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the connections in question: the pod's address, the peer's identity (None: plain text), its
    address where it is known. `tunnel`: identity and port are not known, `unproven`: the identity is not; `certain`
    says how to read that: what holds for all of them (True) or for any."""

    destination: IpAddress
    peer: Identity | None = None
    source: IpAddress | None = None
    tunnel: bool = False
    unproven: bool = False
    certain: bool = True


def boxes_of(rule: Rule, facts: Facts) -> tuple[Box, ...] | None:
    """The boxes of a rule; () when it never matches, None when there are too many to be told."""
    found: tuple[Box, ...] = (EVERYTHING,)
    for clause in rule:
        if not clause:
            continue
        clause_boxes = _clause(clause, facts)
        if len(found) * len(clause_boxes) > MOST_BOXES:
            return None
        found = tuple(box for one in found for other in clause_boxes if (box := _meet(one, other)) is not None)
        if not found:
            return ()
    return found


def _clause(clause: Clause, facts: Facts) -> list[Box]:
    return [box for match in clause if (box := _box(match, facts)) is not None]


def _box(match: Match, facts: Facts) -> Box | None:
    """None: no such connection matches."""
    if match == NO_FIELDS or not _peer_matches(match, facts) or not _destination_matches(match, facts.destination):
        return None
    ports = EVERY_PORT
    if facts.tunnel:
        if facts.certain and (match.destination_ports or match.not_destination_ports):
            return None
    else:
        if match.destination_ports:
            ports = Ports(frozenset(match.destination_ports))
        ports = ports.meet(Ports(frozenset(match.not_destination_ports), others=True))
        if not ports:
            return None
    return _of_sources(match, facts, ports)


def _of_sources(match: Match, facts: Facts, ports: Ports) -> Box | None:
    if facts.source is not None:
        if match.source_ips and not in_any(match.source_ips, facts.source):
            return None
        return None if in_any(match.not_source_ips, facts.source) else Box(ports)
    version = facts.destination.version
    within = tuple(network for network in match.source_ips if network.version == version)
    if match.source_ips and not within:
        return None
    without = tuple(network for network in match.not_source_ips if network.version == version)
    return Box(ports, within if match.source_ips else None, without)


def _peer_matches(match: Match, facts: Facts) -> bool:
    asked = Match(
        namespaces=match.namespaces,
        not_namespaces=match.not_namespaces,
        principals=match.principals,
        not_principals=match.not_principals,
        service_accounts=match.service_accounts,
        not_service_accounts=match.not_service_accounts,
    )
    if asked == NO_FIELDS:
        return True
    if facts.tunnel or facts.unproven:
        return not facts.certain
    connection = Connection(facts.destination, facts.destination, 0, facts.peer)
    return match_matches(asked, connection, principal_of(connection))


def _destination_matches(match: Match, destination: IpAddress) -> bool:
    if match.destination_ips and not in_any(match.destination_ips, destination):
        return False
    return not in_any(match.not_destination_ips, destination)


def _meet(one: Box, other: Box) -> Box | None:
    """What is in both; None when nothing is."""
    ports = one.ports.meet(other.ports)
    if not ports:
        return None
    within = one.within if other.within is None else other.within
    if one.within is not None and other.within is not None:
        within = _inner(one.within, other.within)
        if not within:
            return None
    return Box(ports, within, (*one.without, *other.without))


def _inner(some: tuple[IpNetwork, ...], others: tuple[IpNetwork, ...]) -> tuple[IpNetwork, ...]:
    """Blocks that together hold what is in one of `some` and in one of `others`; all are of one family."""
    found = {_smaller(one, other) for one in some for other in others if one.overlaps(other)}
    return tuple(found)


def _smaller(one: IpNetwork, other: IpNetwork) -> IpNetwork:
    return one if one.prefixlen >= other.prefixlen else other


def ports_named(boxes: Iterable[Box]) -> frozenset[int]:
    """Every port that a box lists, whether to have it or not."""
    return reduce(frozenset.union, (box.ports.listed for box in boxes), frozenset())
