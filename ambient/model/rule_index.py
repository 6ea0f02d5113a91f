"""Finds the first matching rule among very many without looking at all of them.

A tree over what rules demand (principal, namespace, service account, port, source and destination address). Each
node splits its rules by the demand that separates them best; rules without that demand form the node's `rest`,
which is split by the other demands. A look-up follows only the buckets that fit the connection and judges the few
rules found there with the reference algebra, so the tree can only leave out what cannot match.

Addresses become strings of bits; then CIDRs, name prefixes and (reversed) name suffixes are all one thing: sets of
strings that are nested or disjoint, where one bisection finds the longest and parent links give the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from ambient.model.address import IpAddress, IpNetwork
from ambient.model.matching import NO_FIELDS, rule_matches
from ambient.model.outcome import Connection
from ambient.model.policy import (
    Authorization,
    Clause,
    Match,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)

LEAF: Final = 4
"""Rules that are simply tried one after the other."""
_MAX_PARTS: Final = 64
"""Rules are taken apart into at most this many alternatives."""
_EXACT, _PREFIX, _SUFFIX, _PRESENT = "=", "<", ">", "*"
_MARKS: Final[Mapping[StringMatchKind, str]] = MappingProxyType(
    {
        StringMatchKind.EXACT: _EXACT,
        StringMatchKind.PREFIX: _PREFIX,
        StringMatchKind.SUFFIX: _SUFFIX,
        StringMatchKind.PRESENCE: _PRESENT,
    }
)
_WORTH: Final = 0.9
"""A split must leave at most this share of the rules to look at."""


class Demand(IntEnum):
    """What a rule can be found by; the value is its place in the facts of a connection."""

    PRINCIPAL = 0
    NAMESPACE = 1
    ACCOUNT = 2
    PORT = 3
    SOURCE = 4
    DESTINATION = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule or one alternative of it. `order`: its policy's position; `keys[d]`: its demands of kind d or None."""

    order: int
    rule: Rule
    keys: tuple[tuple[str, ...] | None, ...]


class _Nested:
    """Strings that start the value looked for, longest first."""

    __slots__ = ("_parents", "_prefixes", "nodes")

    def __init__(self, buckets: dict[str, Node]) -> None:
        self._prefixes = sorted(buckets)
        self.nodes = [buckets[prefix] for prefix in self._prefixes]
        self._parents: list[int] = []
        open_: list[int] = []
        for i, prefix in enumerate(self._prefixes):
            while open_ and not prefix.startswith(self._prefixes[open_[-1]]):
                open_.pop()
            self._parents.append(open_[-1] if open_ else -1)
            open_.append(i)

    def collect(self, value: str, found: list[Node]) -> None:
        at = bisect_right(self._prefixes, value) - 1
        while at >= 0:
            if value.startswith(self._prefixes[at]):
                found.append(self.nodes[at])
            at = self._parents[at]


class Node:
    """A leaf with entries, or a split by one demand. Build with `build`."""

    __slots__ = ("demand", "entries", "exact", "prefixes", "present", "rest", "suffixes")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.demand: Demand | None = None
        self.exact: dict[str, Node] = {}
        self.prefixes: _Nested | None = None
        self.suffixes: _Nested | None = None
        self.present: Node | None = None
        self.rest: Node | None = None

    def children(self) -> list[Node]:
        nested = [node for part in (self.prefixes, self.suffixes) if part is not None for node in part.nodes]
        return [*self.exact.values(), *nested, *(n for n in (self.present, self.rest) if n is not None)]


Facts = tuple[str | None, ...]
"""What a connection offers for each Demand; None where nothing can fit or where nobody asks."""


def facts_of(connection: Connection, principal: str | None, asked: frozenset[Demand]) -> Facts:
    """`asked`: demands used by the trees that will be looked up; addresses are only written out when needed."""
    peer = connection.peer
    return (
        principal,
        "" if peer is None else peer.namespace,
        f"{peer.namespace}/{peer.service_account}" if peer is not None and Demand.ACCOUNT in asked else None,
        str(connection.destination_port) if Demand.PORT in asked else None,
        _bits(connection.source_ip) if Demand.SOURCE in asked else None,
        _bits(connection.destination_ip) if Demand.DESTINATION in asked else None,
    )


def first_match(
    root: Node, connection: Connection, principal: str | None, facts: Facts, none: int
) -> tuple[int, Entry | None]:
    """(lowest order among matching rules or `none`, a rule that was looked at and did not match)."""
    best = none
    near: Entry | None = None
    waiting = [root]
    while waiting:
        node = waiting.pop()
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
        if node.prefixes is not None:
            node.prefixes.collect(value, waiting)
        if node.suffixes is not None:
            node.suffixes.collect(value[::-1], waiting)
        if node.present is not None and value:
            waiting.append(node.present)
    return best, near


def demands_of(root: Node) -> frozenset[Demand]:
    """The demands by which any node of the tree splits."""
    found: set[Demand] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.demand is not None:
            found.add(node.demand)
            waiting += node.children()
    return frozenset(found)


def _bits(ip: IpAddress) -> str:
    return f"4{int(ip):032b}" if ip.version == 4 else f"6{int(ip):0128b}"


# --- building


def build(policies: Iterable[Authorization]) -> Node:
    """The tree of all rules of the policies; an entry's order is the policy's position."""
    parts: list[tuple[int, Rule]] = []
    seen: set[Rule] = set()
    for order, policy in enumerate(policies):
        for rule in policy.rules:
            if rule not in seen:  # the same rule in an earlier policy decides first
                seen.add(rule)
                parts += ((order, part) for part in _parts(rule))
    few = len(parts) <= LEAF
    return _split([Entry(order, part, () if few else _keys(part)) for order, part in parts], frozenset(Demand))


def _parts(rule: Rule) -> Iterator[Rule]:
    """Alternatives that together equal the rule: matches without fields go, unlike matches of a clause go apart."""
    clauses: list[Clause] = []
    for clause in rule:
        if clause:
            live = tuple(match for match in clause if match != NO_FIELDS)
            if not live:
                return
            clauses.append(live)
    for i, clause in enumerate(clauses):
        if 1 < len(clause) <= _MAX_PARTS and len({_demands(match) for match in clause}) > 1:
            for match in clause:
                yield (*clauses[:i], (match,), *clauses[i + 1 :])
            return
    yield tuple(clauses)


def _demands(match: Match) -> tuple[bool, ...]:
    return tuple(map(bool, _FIELDS(match)))


def _keys(rule: Rule) -> tuple[tuple[str, ...] | None, ...]:
    """For each demand: the keys of which one must fit for the rule to match, None when the rule does not ask."""
    clauses = [[_FIELDS(match) for match in clause] for clause in rule]
    return tuple(_key(clauses, demand) for demand in Demand)


def _key(clauses: list[list[Any]], demand: Demand) -> tuple[str, ...] | None:
    best: tuple[str, ...] | None = None
    for clause in clauses:
        if all(fields[demand] for fields in clause):
            write = _WRITERS[demand]
            together = tuple({write(value): None for fields in clause for value in fields[demand]})
            if best is None or len(together) < len(best):
                best = together
    return best


def _string(match: StringMatch) -> str:
    return _MARKS[match.kind] + match.value


def _account(account: ServiceAccountMatch) -> str:
    return f"{_EXACT}{account.namespace}/{account.service_account}"


def _port(port: int) -> str:
    return f"{_EXACT}{port}"


def _block(network: IpNetwork) -> str:
    return _PREFIX + _bits(network.network_address)[: network.prefixlen + 1]


_FIELDS: Final = attrgetter(
    "principals", "namespaces", "service_accounts", "destination_ports", "source_ips", "destination_ips"
)
"""What a match asks for, in the order of Demand."""
_WRITERS: Final[tuple[Callable[[Any], str], ...]] = (_string, _string, _account, _port, _block, _block)
"""How a value asked for is written as a key: a mark that says how it is compared, then the value."""


def _split(entries: Sequence[Entry], demands: frozenset[Demand]) -> Node:
    node = Node(entries)
    if len(entries) <= LEAF or not demands:
        return node
    chosen: Demand | None = None
    least = _WORTH * len(entries)
    for demand in sorted(demands):
        cost = _cost(entries, demand)
        if cost < least:
            chosen, least = demand, cost
    if chosen is None:
        return node
    buckets: dict[str, list[Entry]] = {}
    rest: list[Entry] = []
    for entry in entries:
        keys = entry.keys[chosen]
        if keys is None:
            rest.append(entry)
        else:
            for key in keys:
                buckets.setdefault(key, []).append(entry)
    others = demands - {chosen}
    node.entries, node.demand = (), chosen
    node.rest = _split(rest, others) if rest else None
    children = {key: _split(bucket, others) for key, bucket in buckets.items()}
    node.exact = {key[1:]: child for key, child in children.items() if key[0] == _EXACT}
    prefixes = {key[1:]: child for key, child in children.items() if key[0] == _PREFIX}
    suffixes = {key[:0:-1]: child for key, child in children.items() if key[0] == _SUFFIX}
    node.prefixes = _Nested(prefixes) if prefixes else None
    node.suffixes = _Nested(suffixes) if suffixes else None
    node.present = children.get(_PRESENT)
    return node


def _cost(entries: Sequence[Entry], demand: Demand) -> float:
    """Rules left to look at in the worst bucket of a split (those without the demand are always left)."""
    rest = 0
    sizes: dict[str, int] = {}
    for entry in entries:
        keys = entry.keys[demand]
        if keys is None:
            rest += 1
        else:
            for key in keys:
                sizes[key] = sizes.get(key, 0) + 1
    return rest + max(sizes.values(), default=0)
