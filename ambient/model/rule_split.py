"""Builds the tree that `rule_index` looks rules up in: each node is split by the demand that separates them best.

Rules without that demand form the node's `rest`, which is split by the other demands; a rule that asks for one of
several values is in the bucket of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ambient.model.address import IpNetwork
from ambient.model.matching import NO_FIELDS
from ambient.model.networks import block_number
from ambient.model.policy import Authorization, Clause, Match, Rule, StringMatch, StringMatchKind
from ambient.model.rule_index import Demand, Entry, Node

LEAF: Final = 4
"""So few rules are simply tried one after the other."""
_FEW: Final = 2
"""A bucket with fewer rules is not worth a fact that costs more."""
_MAX_PARTS: Final = 64
"""Rules are taken apart into at most this many alternatives."""
_MAX_COPIES: Final = 1_024
"""Values that are in each of the alternatives, counted once for each, at most."""
_WORTH: Final = 0.9
"""A split must leave at most this share of the cost of trying every rule."""
_PROBE: Final = 0.25
"""Cost of one look-up in a hash table; trying a rule costs 1."""
_FACT_COST: Final = (0.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.3)
"""Cost of the fact of each demand."""
_ROOM: Final = 8
"""How many times as much as its rules ask for a level of the tree may hold. Rules that share values are in the buckets
of all of them; split by one demand after the other, a few dozen would otherwise become millions of nodes."""
_EXACT, _PREFIX, _SUFFIX, _PRESENT, _BLOCK = range(5)
_SAID_BY_PRINCIPAL: Final = frozenset((Demand.NAMESPACE, Demand.NAME, Demand.ACCOUNT))


Key = tuple[int, int, str | int]
"""A bucket: how the fact is compared, the length of what is compared, with what."""
Keys = tuple[tuple[Key, ...] | None, ...]
"""For each demand: the keys of which one must fit; None: not asked."""


class Part(NamedTuple):
    """An entry and what it can be found by."""

    entry: Entry
    keys: Keys

    def weight(self, demands: Iterable[Demand]) -> int:
        """What it costs to split it by these once more."""
        return 1 + sum(len(self.keys[demand] or ()) for demand in demands)


def build(policies: Iterable[Authorization], *, every: bool = False) -> Node:
    """The tree of all rules of the policies; an entry's order is the policy's position.

    `every`: also those of a policy that an earlier one has, for who wants to know each policy that matches.
    """
    entries: list[Entry] = []
    seen: set[Rule] = set()
    weight = 0
    for order, policy in enumerate(policies):
        for rule in policy.rules:
            if every or rule not in seen:  # the same rule in an earlier policy decides first
                seen.add(rule)
                weight += 1 + sum(_values(clause) for clause in rule)
                entries += (Entry(order, part) for part in _parts(rule))
    if len(entries) <= LEAF:
        return Node(entries)
    parts = [Part(entry, _keys(entry.rule)) for entry in entries]
    demands = frozenset(demand for demand in Demand if any(part.keys[demand] is not None for part in parts))
    return _split(parts, demands, _ROOM * weight)


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
        few = 1 < len(clause) <= _MAX_PARTS
        if few and _copies(clauses, i) <= _MAX_COPIES and len({_asks(match) for match in clause}) > 1:
            for match in clause:
                yield (*clauses[:i], (match,), *clauses[i + 1 :])
            return
    yield tuple(clauses)


def _copies(clauses: Sequence[Clause], taken_apart: int) -> int:
    """How many keys the other clauses have in all alternatives together."""
    others = sum(_values(clause) for i, clause in enumerate(clauses) if i != taken_apart)
    return len(clauses[taken_apart]) * others


def _values(clause: Clause) -> int:
    """How many keys its matches have at most (see `_wanted`)."""
    keys = 0
    for match in clause:
        keys += 3 * (len(match.principals) + len(match.service_accounts)) + len(match.namespaces)
        keys += len(match.destination_ports) + len(match.source_ips) + len(match.destination_ips)
    return keys


def _asks(match: Match) -> tuple[bool, ...]:
    return tuple(keys is not None for keys in _wanted(match))


def _keys(rule: Rule) -> Keys:
    if len(rule) == 1 and len(rule[0]) == 1:
        return _wanted(rule[0][0])
    clauses = [[_wanted(match) for match in clause] for clause in rule]
    return tuple(_key(clauses, demand) for demand in Demand)


def _key(clauses: list[list[Keys]], demand: Demand) -> tuple[Key, ...] | None:
    """The shortest list of keys of one clause, all of whose matches ask for this."""
    best: tuple[Key, ...] | None = None
    for clause in clauses:
        together: dict[Key, None] = {}
        for wanted in clause:
            keys = wanted[demand]
            if keys is None:
                break
            together.update(dict.fromkeys(keys))
        else:
            if best is None or len(together) < len(best):
                best = tuple(together)
    return best


def _wanted(match: Match) -> Keys:
    """What the positive fields of a match ask for, in the order of Demand.

    A principal is <trust domain>/ns/<namespace>/sa/<name>: one that is written out to the end of a component asks
    for that component too, however it begins or ends.
    """
    principal = namespace = name = account = None
    if match.principals:
        principal = _each(_principal, match.principals)
        parts = [_components(one) for one in match.principals]
        namespace, name = (_each(_exact, [part[at] for part in parts]) for at in (0, 1))
    if match.namespaces:
        namespace = _shorter(_each(_string, match.namespaces), namespace)
    if match.service_accounts:
        accounts = [(one.namespace, one.service_account) for one in match.service_accounts]
        namespace = _shorter(_each(_exact, [one for one, _ in accounts]), namespace)
        name = _shorter(_each(_exact, [one for _, one in accounts]), name)
        account = _each(_exact, [f"{first}/{second}" for first, second in accounts])
    port = _each(_exact, match.destination_ports)
    return (
        principal,
        namespace,
        name,
        port,
        account,
        _each(_block, match.source_ips),
        _each(_block, match.destination_ips),
    )


def _components(principal: StringMatch) -> tuple[str | None, str | None]:
    """Namespace and name of the service account that every principal which matches has; None where they may differ."""
    parts = principal.value.split("/")
    match principal.kind, len(parts):
        case StringMatchKind.EXACT, 5:
            return parts[2], parts[4]
        case StringMatchKind.PREFIX, 4 | 5:
            return parts[2], None
        case StringMatchKind.SUFFIX, 4 | 5:
            return parts[-3], parts[-1]
        case StringMatchKind.SUFFIX, 2 | 3:
            return None, parts[-1]
    return None, None


def _each(write: Callable[[Any], Key | None], values: Sequence[object]) -> tuple[Key, ...] | None:
    """None unless there are values and all of them can be written as keys."""
    if not values:
        return None
    keys = tuple(key for key in map(write, values) if key is not None)
    return keys if len(keys) == len(values) else None


def _shorter(one: tuple[Key, ...] | None, other: tuple[Key, ...] | None) -> tuple[Key, ...] | None:
    return min((keys for keys in (one, other) if keys is not None), key=len, default=None)


def _exact(value: str | int | None) -> Key | None:
    return None if value is None else (_EXACT, 0, value)


def _string(match: StringMatch) -> Key:
    how = _HOW[match.kind]
    return (how, 0 if how == _EXACT else len(match.value), match.value)


def _principal(match: StringMatch) -> Key | None:
    """None for a wildcard that stands for whole components: those find it at less cost."""
    parts = match.value.split("/")
    if match.kind is StringMatchKind.PREFIX and len(parts) in (4, 5) and not parts[-1]:
        return None
    if match.kind is StringMatchKind.SUFFIX and 2 <= len(parts) <= 5 and not parts[0]:
        return None
    return _string(match)


def _block(network: IpNetwork) -> Key:
    shift, number = block_number(network)
    return (_BLOCK if shift else _EXACT, shift, number)


_HOW: Final[Mapping[StringMatchKind, int]] = MappingProxyType(
    {
        StringMatchKind.EXACT: _EXACT,
        StringMatchKind.PREFIX: _PREFIX,
        StringMatchKind.SUFFIX: _SUFFIX,
        StringMatchKind.PRESENCE: _PRESENT,
    }
)


def _split(parts: Sequence[Part], demands: frozenset[Demand], room: int) -> Node:
    """`room`: the weight that all parts below may have together, at each level."""
    chosen, buckets, rest = _chosen(parts, demands, room)
    if chosen is None:
        return Node([part.entry for part in parts])
    below = {key: _left(demands, chosen, key) for key in buckets}
    weights = {key: _weight(bucket, below[key]) for key, bucket in buckets.items()}
    remaining = demands - {chosen}
    rest_weight = _weight(rest, remaining)
    total = rest_weight + sum(weights.values())
    # Where not all have room for another level, those have it that need no more than an equal part.
    short = total > room
    node = Node((), chosen)
    node.rest = _split(rest, remaining, room if short else room * rest_weight // total) if rest else None
    tables: dict[int, dict[int, dict[Any, Node]]] = {}
    for key, bucket in buckets.items():
        how, length, value = key
        part = room // len(buckets) if short else room * weights[key] // total
        child = _split(bucket, below[key] if weights[key] <= part else frozenset(), part)
        tables.setdefault(how, {}).setdefault(length, {})[value] = child
    node.exact = tables.pop(_EXACT, {}).get(0, {})
    node.prefixes, node.suffixes, node.blocks = (
        tuple(sorted(tables.get(how, {}).items(), key=_length)) for how in (_PREFIX, _SUFFIX, _BLOCK)
    )
    node.present = tables.get(_PRESENT, {}).get(0, {}).get("")
    node.wide = bool(tables)
    return node


def _chosen(
    parts: Sequence[Part], demands: frozenset[Demand], room: int
) -> tuple[Demand | None, Mapping[Key, list[Part]], list[Part]]:
    """The demand that leaves least to try, with its buckets and those that do not ask for it; None: not worth it."""
    if len(parts) <= LEAF:
        return None, {}, []
    chosen: Demand | None = None
    least = _WORTH * len(parts)
    for demand in sorted(demands):
        if sum(len(part.keys[demand] or "-") for part in parts) <= room:
            cost = _cost(parts, demand)
            if cost < least:
                chosen, least = demand, cost
    buckets: dict[Key, list[Part]] = {}
    rest: list[Part] = []
    if chosen is None:
        return None, buckets, rest
    for part in parts:
        keys = part.keys[chosen]
        if keys is None:
            rest.append(part)
        else:
            for key in keys:
                buckets.setdefault(key, []).append(part)
    return chosen, buckets, rest


def _left(demands: frozenset[Demand], chosen: Demand, key: Key) -> frozenset[Demand]:
    """What a bucket can still be split by: whoever has exactly this principal has that account and no other."""
    if chosen is Demand.PRINCIPAL and key[0] == _EXACT:
        return demands - {chosen} - _SAID_BY_PRINCIPAL
    return demands - {chosen}


def _weight(parts: Sequence[Part], demands: Set[Demand]) -> int:
    return len(parts) if len(parts) <= LEAF else sum(part.weight(demands) for part in parts)


def _length(table: tuple[int, object]) -> int:
    return table[0]


def _cost(parts: Sequence[Part], demand: Demand) -> float:
    """Of a split: the rules left to try in its worst bucket, those without the demand, and the look-ups."""
    rest = 0
    sizes: dict[Key, int] = {}
    for part in parts:
        keys = part.keys[demand]
        if keys is None:
            rest += 1
        else:
            for key in keys:
                sizes[key] = sizes.get(key, 0) + 1
    if not sizes:
        return len(parts)
    probes = len({key[:2] for key in sizes})
    return rest + max(_FEW, *sizes.values()) + _PROBE * probes + _FACT_COST[demand]
