"""The match algebra of istio.security: does a rule match a connection? Reference semantics, no shortcuts.

`principal` is passed beside the connection ("" never; None = no identity) so that it is built once per judgement.
"""

from __future__ import annotations

from ambient.model.address import IpAddress, IpNetwork
from ambient.model.outcome import Connection
from ambient.model.policy import Clause, Match, Rule, ServiceAccountMatch, StringMatch, StringMatchKind

NO_FIELDS = Match()


def principal_of(connection: Connection) -> str | None:
    return None if connection.peer is None else connection.peer.principal


def rule_matches(rule: Rule, connection: Connection, principal: str | None) -> bool:
    """All clauses match; a rule without clauses matches everything."""
    return all(clause_matches(clause, connection, principal) for clause in rule)


def clause_matches(clause: Clause, connection: Connection, principal: str | None) -> bool:
    """Any match matches; a clause without matches is true."""
    return not clause or any(match_matches(match, connection, principal) for match in clause)


def match_matches(match: Match, connection: Connection, principal: str | None) -> bool:
    """All fields hold; a match without any field never matches."""
    port = connection.destination_port
    if match.destination_ports and port not in match.destination_ports:
        return False
    if port in match.not_destination_ports:
        return False
    if match.principals and not (principal is not None and _any_string(match.principals, principal)):
        return False
    if match.not_principals and principal is not None and _any_string(match.not_principals, principal):
        return False
    if match.namespaces or match.not_namespaces:
        namespace = namespace_of(connection)
        if match.namespaces and not _any_string(match.namespaces, namespace):
            return False
        if match.not_namespaces and _any_string(match.not_namespaces, namespace):
            return False
    if match.service_accounts and not _any_account(match.service_accounts, connection):
        return False
    if match.not_service_accounts and _any_account(match.not_service_accounts, connection):
        return False
    if match.source_ips and not in_any(match.source_ips, connection.source_ip):
        return False
    if match.not_source_ips and in_any(match.not_source_ips, connection.source_ip):
        return False
    if match.destination_ips and not in_any(match.destination_ips, connection.destination_ip):
        return False
    if match.not_destination_ips and in_any(match.not_destination_ips, connection.destination_ip):
        return False
    return match != NO_FIELDS


def namespace_of(connection: Connection) -> str:
    """The namespace policies see: that of the peer's identity, "" without one."""
    return "" if connection.peer is None else connection.peer.namespace


def string_matches(match: StringMatch, value: str) -> bool:
    """Case-sensitive; presence means non-empty."""
    match match.kind:
        case StringMatchKind.EXACT:
            return value == match.value
        case StringMatchKind.PREFIX:
            return value.startswith(match.value)
        case StringMatchKind.SUFFIX:
            return value.endswith(match.value)
        case StringMatchKind.PRESENCE:
            return value != ""


def in_any(networks: tuple[IpNetwork, ...], ip: IpAddress) -> bool:
    """Families are compared strictly."""
    return any(ip in network for network in networks)


def _any_string(matches: tuple[StringMatch, ...], value: str) -> bool:
    return any(string_matches(match, value) for match in matches)


def _any_account(accounts: tuple[ServiceAccountMatch, ...], connection: Connection) -> bool:
    peer = connection.peer
    return peer is not None and any(
        account.namespace == peer.namespace and account.service_account == peer.service_account for account in accounts
    )
