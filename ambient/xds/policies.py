"""istio.security.Authorization <-> ambient.model.policy.Authorization. Pure and strict; see `ambient.xds.codec`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue

from ambient.errors import InvalidInput
from ambient.model.address import IpNetwork
from ambient.model.policy import (
    Action,
    Authorization,
    Clause,
    Datagram,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from ambient.xds.fields import read_enum, read_network, read_port, unknown_field
from ambient.xds.wire import message

NUMBERS: Final = "ambient.mesh/rule-numbers"
"""Extension of a policy of which rules were left out: the numbers of the others, as text with commas. Other ztunnels
pass over it."""
DATAGRAMS: Final = "ambient.mesh/protocols"
"""Extension of a policy that is about more than TCP: the names, with commas. Other ztunnels pass over it, and none of
them carries any of that."""
_EXTENSIONS: Final = (NUMBERS, DATAGRAMS)
_STRINGS = ("namespaces", "not_namespaces", "principals", "not_principals")
_NETWORKS = ("source_ips", "not_source_ips", "destination_ips", "not_destination_ips")
_PORTS = ("destination_ports", "not_destination_ports")
_ACCOUNTS = ("service_accounts", "not_service_accounts")
_KINDS = {
    "exact": StringMatchKind.EXACT,
    "prefix": StringMatchKind.PREFIX,
    "suffix": StringMatchKind.SUFFIX,
    "presence": StringMatchKind.PRESENCE,
}
_ONEOF = {kind: name for name, kind in _KINDS.items()}


def decode(body: bytes, *, lax: bool) -> Authorization:
    """Read one policy; raises InvalidInput or DecodeError. `lax` skips what we do not know instead of refusing it."""
    wire = message("istio.security.Authorization").FromString(body)
    size = wire.ByteSize()
    wire.DiscardUnknownFields()
    if not lax and wire.ByteSize() != size:
        stranger = unknown_field(message("istio.security.Authorization").FromString(body))
        raise InvalidInput(f"{stranger} is unknown", why="a policy is understood whole or not enforced")
    strange = [extension.name for extension in wire.extensions if extension.name not in _EXTENSIONS]
    if strange and not lax:
        raise InvalidInput("extensions are not understood", why=strange[0])
    if not wire.name or not wire.namespace or "/" in wire.name or "/" in wire.namespace:
        raise InvalidInput("name and namespace must both be there, without a slash")
    return Authorization(
        name=wire.name,
        namespace=wire.namespace,
        scope=read_enum(PolicyScope, wire.scope, "scope"),
        action=read_enum(Action, wire.action, "action"),
        rules=tuple(
            tuple(_clause(clause, f"rules[{r}].clauses[{c}]", lax) for c, clause in enumerate(rule.clauses))
            for r, rule in enumerate(wire.rules)
        ),
        dry_run=wire.dry_run,
        numbers=_numbers(wire),
        datagrams=_datagrams(wire),
    )


def _texts(wire: Any, name: str) -> list[str] | None:
    """What an extension lists; None without it. Raises InvalidInput."""
    found = [extension.config for extension in wire.extensions if extension.name == name]
    if not found:
        return None
    text = StringValue()
    if len(found) > 1 or not found[0].Unpack(text):
        raise InvalidInput(f"extension {name} must be there once and hold a string")
    return text.value.split(",") if text.value else []


def _datagrams(wire: Any) -> frozenset[Datagram]:
    parts = _texts(wire, DATAGRAMS) or []
    if not {*parts} <= {*Datagram}:
        raise InvalidInput(f"extension {DATAGRAMS} names what is not known", repr(",".join(parts))[:80])
    return frozenset(map(Datagram, parts))


def _numbers(wire: Any) -> tuple[int, ...]:
    """Raises InvalidInput unless there is one number for each rule, ascending from 1."""
    parts = _texts(wire, NUMBERS)
    if parts is None:
        return ()
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise InvalidInput(f"extension {NUMBERS} does not hold numbers", repr(",".join(parts))[:80])
    numbers = tuple(map(int, parts))
    if len(numbers) != len(wire.rules) or any(a >= b for a, b in pairwise((0, *numbers))):
        raise InvalidInput(f"extension {NUMBERS} must number each rule, ascending from 1", repr(",".join(parts))[:80])
    return numbers


def _clause(wire: Any, where: str, lax: bool) -> Clause:
    return tuple(_match(match, f"{where}.matches[{index}]", lax) for index, match in enumerate(wire.matches))


def _match(wire: Any, where: str, lax: bool) -> Match:
    fields: dict[str, Any] = {}
    # Only what is set: a match has twelve lists and seldom more than two in use.
    for descriptor, items in wire.ListFields():
        name = descriptor.name
        if name != "extensions":
            fields[name] = tuple(_READERS[name](item, name, where) for item in items)
        elif not lax:
            raise InvalidInput(f"{where}.extensions are not understood", why=items[0].name)
    return Match(**fields)


def _string(wire: Any, name: str, where: str) -> StringMatch:
    chosen = wire.WhichOneof("match_type")
    if chosen is None:
        raise InvalidInput(f"{where}.{name} has no kind of match that we know")
    kind = _KINDS[chosen]
    return StringMatch(kind) if kind is StringMatchKind.PRESENCE else StringMatch(kind, getattr(wire, chosen))


def _network(wire: Any, name: str, where: str) -> IpNetwork:
    return read_network(wire.address, wire.length, f"{where}.{name}")


def _port(number: int, name: str, where: str) -> int:
    return read_port(number, f"{where}.{name}")


def _account(wire: Any, name: str, where: str) -> ServiceAccountMatch:
    if not wire.namespace or not wire.serviceAccount:
        raise InvalidInput(f"{where}.{name} needs a namespace and a service account")
    return ServiceAccountMatch(wire.namespace, wire.serviceAccount)


_READERS: Final[Mapping[str, Callable[[Any, str, str], object]]] = MappingProxyType(
    {
        **dict.fromkeys(_STRINGS, _string),
        **dict.fromkeys(_NETWORKS, _network),
        **dict.fromkeys(_PORTS, _port),
        **dict.fromkeys(_ACCOUNTS, _account),
    }
)


def encode(policy: Authorization) -> Any:
    """The protobuf message of one policy."""
    wire = message("istio.security.Authorization")(
        name=policy.name, namespace=policy.namespace, scope=policy.scope, action=policy.action, dry_run=policy.dry_run
    )
    if policy.numbers:
        text = StringValue(value=",".join(map(str, policy.numbers)))
        wire.extensions.add(name=NUMBERS).config.Pack(text)
    if policy.datagrams:
        wire.extensions.add(name=DATAGRAMS).config.Pack(StringValue(value=",".join(sorted(policy.datagrams))))
    for rule in policy.rules:
        wire_rule = wire.rules.add()
        for clause in rule:
            wire_clause = wire_rule.clauses.add()
            for match in clause:
                _encode_match(match, wire_clause.matches.add())
    return wire


def _encode_match(match: Match, wire: Any) -> None:
    for name in _STRINGS:
        for item in getattr(match, name):
            _encode_string(item, getattr(wire, name).add())
    for name in _NETWORKS:
        _encode_networks(getattr(match, name), getattr(wire, name))
    for name in _PORTS:
        getattr(wire, name).extend(getattr(match, name))
    for name in _ACCOUNTS:
        for account in getattr(match, name):
            getattr(wire, name).add(namespace=account.namespace, serviceAccount=account.service_account)


def _encode_string(match: StringMatch, wire: Any) -> None:
    if match.kind is StringMatchKind.PRESENCE:
        wire.presence.SetInParent()
    else:
        setattr(wire, _ONEOF[match.kind], match.value)


def _encode_networks(networks: Iterable[IpNetwork], wire: Any) -> None:
    for network in networks:
        wire.add(address=network.network_address.packed, length=network.prefixlen)


def closed_stand_in(name: str, body: bytes) -> Authorization | None:
    """A policy that denies everything which the unreadable policy `name` ("namespace/name") selects.

    Its scope is taken from `body` where that can be read, else it is the whole namespace. None when the name is no
    policy name, or the policy would only have been a dry run.
    """
    namespace, slash, rest = name.partition("/")
    if not slash or not namespace or not rest or "/" in rest:
        return None
    scope = PolicyScope.NAMESPACE
    try:
        wire = message("istio.security.Authorization").FromString(body)
        if wire.dry_run:
            return None
        scope = PolicyScope(wire.scope)
    except (DecodeError, ValueError):
        pass
    return Authorization(name=rest, namespace=namespace, scope=scope, action=Action.DENY, rules=((),))
