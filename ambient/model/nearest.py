"""Why a rule does not match a connection, in words; the base of `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ambient.model.matching import NO_FIELDS, clause_matches, match_matches, namespace_of
from ambient.model.outcome import Connection
from ambient.model.policy import Clause, Match, Rule, ServiceAccountMatch, StringMatch, StringMatchKind


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that kept a rule from matching: its name in the resource, what it asks for, what came."""

    field: str
    wanted: str
    actual: str

    def __str__(self) -> str:
        return f"{self.field}: {self.actual} is not {self.wanted}"


def differences(
    rule: Rule, connection: Connection, principal: str | None, most: int | None = None
) -> tuple[Difference, ...]:
    """What would have to change for the rule to match: () when it matches. Of a clause's alternatives the first `most`
    are looked at (None: all)."""
    found: list[Difference] = []
    for clause in rule:
        if not clause_matches(clause, connection, principal):
            found.extend(_clause(clause[:most], connection, principal))
    return tuple(found)


def _clause(clause: Clause, connection: Connection, principal: str | None) -> tuple[Difference, ...]:
    """The differences of the alternative that is nearest."""
    alternatives = [tuple(_match(match, connection, principal)) for match in clause]
    return min(alternatives, key=len)


def _match(match: Match, connection: Connection, principal: str | None) -> Iterator[Difference]:
    if match == NO_FIELDS:
        yield Difference("match", "something this proxy understands", "a match without any field")
        return
    who = "no identity (plaintext)" if principal is None else principal
    namespace = namespace_of(connection) or "no identity (plaintext)"
    actual = {
        "principals": who,
        "namespaces": namespace,
        "service_accounts": who,
        "source_ips": str(connection.source_ip),
        "destination_ips": str(connection.destination_ip),
        "destination_ports": str(connection.destination_port),
    }
    for field, name in _NAMES.items():
        values = getattr(match, field)
        if values and not match_matches(Match(**{field: values}), connection, principal):
            subject = field.removeprefix("not_")
            yield Difference(name, _wanted(subject, values, negative=subject != field), actual[subject])


def _wanted(subject: str, values: tuple[object, ...], *, negative: bool) -> str:
    shown = [_written(value) for value in values[:_SHOWN]]
    if len(values) > _SHOWN:
        shown.append(f"{len(values) - _SHOWN} more")
    within = subject.endswith("_ips")
    if negative:
        return f"{'outside' if within else 'other than'} {', '.join(shown)}"
    return ("in " if within else "") + (shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}")


def _written(value: object) -> str:
    match value:
        case StringMatch(StringMatchKind.PREFIX, text):
            return f"{text}*"
        case StringMatch(StringMatchKind.SUFFIX, text):
            return f"*{text}"
        case StringMatch(StringMatchKind.PRESENCE):
            return "anybody with an identity"
        case StringMatch(_, text):
            return text
        case ServiceAccountMatch(namespace, account):
            return f"{namespace}/{account}"
    return str(value)


_SHOWN: Final = 8
"""Values that a sentence lists at most."""
_NAMES: Final = MappingProxyType(
    {
        "principals": "source.principals",
        "not_principals": "source.notPrincipals",
        "namespaces": "source.namespaces",
        "not_namespaces": "source.notNamespaces",
        "service_accounts": "source.serviceAccounts",
        "not_service_accounts": "source.notServiceAccounts",
        "source_ips": "source.ipBlocks",
        "not_source_ips": "source.notIpBlocks",
        "destination_ips": "destination.ip",
        "not_destination_ips": "destination.ip (not)",
        "destination_ports": "operation.ports",
        "not_destination_ports": "operation.notPorts",
    }
)
"""Fields of a match as the resource calls them."""
