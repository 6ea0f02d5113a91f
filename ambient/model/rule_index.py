"""Finds the first matching rule among very many without looking at all of them.

A tree over what rules demand of a connection (principal, namespace, port, ...), built by `rule_split`. Every node is
a hash table over one demand; a look-up follows only the buckets that fit the connection and judges the few rules found
there with the reference algebra, so the tree can only leave out what cannot match. CIDRs, prefixes and suffixes are
hash tables too, one for each length in use: what a look-up costs depends on how many different kinds of rules there
are, never on how many rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ambient.model.matching import rule_matches
from ambient.model.networks import address_number
from ambient.model.outcome import Connection
from ambient.model.policy import Rule


class Demand(IntEnum):
    """What a rule can be found by, cheapest first; the value is its place in the facts of a connection."""

    PRINCIPAL = 0
    NAMESPACE = 1
    NAME = 2
    """Of the service account alone."""
    PORT = 3
    ACCOUNT = 4
    """Namespace and name of the service account."""
    SOURCE = 5
    DESTINATION = 6


Fact = str | int | None
Facts = tuple[Fact, ...]
"""What a connection offers for each Demand; None where nothing can fit or where nobody asks."""

_ACCOUNT: Final = 1 << Demand.ACCOUNT
_SOURCE: Final = 1 << Demand.SOURCE
_DESTINATION: Final = 1 << Demand.DESTINATION
_CHEAP: Final = (1 << Demand.ACCOUNT) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule or one alternative of it. `order` is its policy's position."""

    order: int
    rule: Rule


class Node:
    """A leaf with entries in ascending order, or a split by one demand.

    `exact`: by the fact itself. `prefixes` and `suffixes`: (length, by the first or last `length` letters of the fact).
    `blocks`: (shift, by the number without its lowest `shift` bits). `present`: any fact but "". `rest`: no demand.
    """

    __slots__ = ("blocks", "demand", "entries", "exact", "prefixes", "present", "rest", "suffixes", "wide")

    def __init__(self, entries: Sequence[Entry] = (), demand: Demand | None = None) -> None:
        self.entries = tuple(entries)
        self.demand = None if demand is None else int(demand)
        self.exact: Mapping[Fact, Node] = {}
        self.prefixes: tuple[tuple[int, Mapping[str, Node]], ...] = ()
        self.suffixes: tuple[tuple[int, Mapping[str, Node]], ...] = ()
        self.blocks: tuple[tuple[int, Mapping[int, Node]], ...] = ()
        self.present: Node | None = None
        self.rest: Node | None = None
        self.wide = False
        """There is anything but `exact` and `rest`."""

    def reached(self, value: str | int, found: list[Node]) -> None:
        """Append the children of a wide node, but for `exact` and `rest`, that a connection with this fact may fit."""
        if isinstance(value, str):
            for length, table in self.prefixes:
                node = table.get(value[:length])
                if node is not None:
                    found.append(node)
            for length, table in self.suffixes:
                node = table.get(value[-length:] if length else "")
                if node is not None:
                    found.append(node)
            if self.present is not None and value:
                found.append(self.present)
        else:
            for shift, blocks in self.blocks:
                node = blocks.get(value >> shift)
                if node is not None:
                    found.append(node)

    def below(self) -> Iterator[Node]:
        """The node itself and every node under it."""
        waiting = [self]
        for node in waiting:
            yield node
            waiting += node.exact.values()
            for tables in (node.prefixes, node.suffixes, node.blocks):
                for _, table in tables:
                    waiting += table.values()
            waiting += [one for one in (node.present, node.rest) if one is not None]


def asked_by(root: Node) -> int:
    """A bit for each demand by which any node of the tree splits."""
    asked = 0
    for node in root.below():
        if node.demand is not None:
            asked |= 1 << node.demand
    return asked


def facts_of(connection: Connection, principal: str | None, asked: int) -> Facts:
    """`asked`: bits of the demands used by the trees that will be looked up; what costs is left out when not asked."""
    peer = connection.peer
    namespace, name = ("", None) if peer is None else (peer.namespace, peer.service_account)
    if asked <= _CHEAP:
        return principal, namespace, name, connection.destination_port
    return (
        principal,
        namespace,
        name,
        connection.destination_port,
        f"{namespace}/{name}" if peer is not None and asked & _ACCOUNT else None,
        address_number(connection.source_ip) if asked & _SOURCE else None,
        address_number(connection.destination_ip) if asked & _DESTINATION else None,
    )


def first_match(
    root: Node, connection: Connection, principal: str | None, facts: Facts, none: int
) -> tuple[int, Entry | None]:
    """(lowest order among matching rules or `none`, a rule that was looked at and did not match)."""
    best = none
    near: Entry | None = None
    waiting = [root]
    for node in waiting:  # grows while it is walked
        demand = node.demand
        if demand is None:
            for entry in node.entries:
                if entry.order >= best:
                    break
                if rule_matches(entry.rule, connection, principal):
                    best = entry.order
                    break
                near = entry
            continue
        if node.rest is not None:
            waiting.append(node.rest)
        value = facts[demand]
        if value is None:
            continue
        exact = node.exact.get(value)
        if exact is not None:
            waiting.append(exact)
        if node.wide:
            node.reached(value, waiting)
    return best, near


def every_match(root: Node, connection: Connection, principal: str | None, facts: Facts) -> list[int]:
    """The orders of all matching rules, ascending."""
    found: set[int] = set()
    waiting = [root]
    for node in waiting:  # grows while it is walked
        found.update(entry.order for entry in node.entries if rule_matches(entry.rule, connection, principal))
        if node.rest is not None:
            waiting.append(node.rest)
        value = None if node.demand is None else facts[node.demand]
        if value is not None:
            if value in node.exact:
                waiting.append(node.exact[value])
            node.reached(value, waiting)
    return sorted(found)
