"""Why a rule does not match a connection, in words; the base of `explain`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ambient.model.matching import NO_FIELDS, clause_matches, match_matches, namespace_of
from ambient.model.outcome import Connection
from ambient.model.policy import Clause, Match, Rule, StringMatch, StringMatchKind


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that kept a rule from matching: its name in the resource, what it asks for, what came."""

    field: str
    wanted: str
    actual: str

    def __str__(self) -> str:
        return f"{self.field}: {self.actual} is not {self.wanted}"


def differences(rule: Rule, connection: Connection, principal: str | None) -> tuple[Difference, ...]:
    """What would have to change for the rule to match: () when it matches."""
    found: list[Difference] = []
    for clause in rule:
        if not clause_matches(clause, connection, principal):
            found.extend(_clause(clause, connection, principal))
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
    source, destination = str(connection.source_ip), str(connection.destination_ip)
    port = str(connection.destination_port)
    accounts = tuple(f"{a.namespace}/{a.service_account}" for a in match.service_accounts)
    not_accounts = tuple(f"{a.namespace}/{a.service_account}" for a in match.not_service_accounts)
    parts = (
        ("source.principals", Match(principals=match.principals), _strings(match.principals), who),
        ("source.notPrincipals", Match(not_principals=match.not_principals), _other(match.not_principals), who),
        ("source.namespaces", Match(namespaces=match.namespaces), _strings(match.namespaces), namespace),
        ("source.notNamespaces", Match(not_namespaces=match.not_namespaces), _other(match.not_namespaces), namespace),
        ("source.serviceAccounts", Match(service_accounts=match.service_accounts), _one_of(accounts), who),
        (
            "source.notServiceAccounts",
            Match(not_service_accounts=match.not_service_accounts),
            "other than " + ", ".join(not_accounts),
            who,
        ),
        ("source.ipBlocks", Match(source_ips=match.source_ips), "in " + _one_of(map(str, match.source_ips)), source),
        (
            "source.notIpBlocks",
            Match(not_source_ips=match.not_source_ips),
            "outside " + ", ".join(map(str, match.not_source_ips)),
            source,
        ),
        (
            "destination.ip",
            Match(destination_ips=match.destination_ips),
            "in " + _one_of(map(str, match.destination_ips)),
            destination,
        ),
        (
            "destination.ip (not)",
            Match(not_destination_ips=match.not_destination_ips),
            "outside " + ", ".join(map(str, match.not_destination_ips)),
            destination,
        ),
        (
            "operation.ports",
            Match(destination_ports=match.destination_ports),
            _one_of(map(str, match.destination_ports)),
            port,
        ),
        (
            "operation.notPorts",
            Match(not_destination_ports=match.not_destination_ports),
            "other than " + ", ".join(map(str, match.not_destination_ports)),
            port,
        ),
    )
    for name, alone, wanted, actual in parts:
        if alone != NO_FIELDS and not match_matches(alone, connection, principal):
            yield Difference(name, wanted, actual)


def _one_of(values: Iterable[str]) -> str:
    listed = list(values)
    return listed[0] if len(listed) == 1 else "one of " + ", ".join(listed)


def _strings(matches: tuple[StringMatch, ...]) -> str:
    return _one_of(_written(match) for match in matches)


def _other(matches: tuple[StringMatch, ...]) -> str:
    return "other than " + ", ".join(_written(match) for match in matches)


def _written(match: StringMatch) -> str:
    match match.kind:
        case StringMatchKind.EXACT:
            return match.value
        case StringMatchKind.PREFIX:
            return f"{match.value}*"
        case StringMatchKind.SUFFIX:
            return f"*{match.value}"
        case StringMatchKind.PRESENCE:
            return "anybody with an identity"
