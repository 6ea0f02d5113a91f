"""The match algebra of istio.security: does a rule match a connection? Reference semantics, no shortcuts.

`principal` is passed beside the connection ("" never; None = no identity) so that it is built once per judgement.
"""

from __future__ import annotations

from ambient.model.address import IpAddress, IpNetwork
from ambient.model.networks import Networks
from ambient.model.outcome import Connection
from ambient.model.policy import Clause, Match, Rule, ServiceAccountMatch, StringMatch, StringMatchKind

NO_FIELDS = Match()


def principal_of(connection: Connection) -> str | None:
    return None if connection.peer is None else connection.peer.principal


def rule_matches(rule: Rule, connection: Connection, principal: str | None) -> bool:
    """All clauses match; a rule without clauses matches everything."""
    # Plain loops here and below: these run for every connection, and generators double their cost.
    for clause in rule:  # noqa: SIM110
        if not clause_matches(clause, connection, principal):
            return False
    return True


def clause_matches(clause: Clause, connection: Connection, principal: str | None) -> bool:
    """Any match matches; a clause without matches is true."""
    for match in clause:
        if match_matches(match, connection, principal):
            return True
    return not clause


def match_matches(match: Match, connection: Connection, principal: str | None) -> bool:
    """All fields hold; a match without any field never matches."""
    asked = False
    if match.destination_ports:
        asked = True
        if connection.destination_port not in match.destination_ports:
            return False
    if match.not_destination_ports:
        asked = True
        if connection.destination_port in match.not_destination_ports:
            return False
    if match.principals:
        asked = True
        if principal is None or not _any_string(match.principals, principal):
            return False
    if match.not_principals:
        asked = True
        if principal is not None and _any_string(match.not_principals, principal):
            return False
    if match.namespaces:
        asked = True
        if not _any_string(match.namespaces, namespace_of(connection)):
            return False
    if match.not_namespaces:
        asked = True
        if _any_string(match.not_namespaces, namespace_of(connection)):
            return False
    if match.service_accounts:
        asked = True
        if not _any_account(match.service_accounts, connection):
            return False
    if match.not_service_accounts:
        asked = True
        if _any_account(match.not_service_accounts, connection):
            return False
    return _addresses_match(match, connection, asked)


def _addresses_match(match: Match, connection: Connection, asked: bool) -> bool:
    if match.source_ips:
        asked = True
        if not in_any(match.source_ips, connection.source_ip):
            return False
    if match.not_source_ips:
        asked = True
        if in_any(match.not_source_ips, connection.source_ip):
            return False
    if match.destination_ips:
        asked = True
        if not in_any(match.destination_ips, connection.destination_ip):
            return False
    if match.not_destination_ips:
        asked = True
        if in_any(match.not_destination_ips, connection.destination_ip):
            return False
    return asked


def namespace_of(connection: Connection) -> str:
    """The namespace policies see: that of the peer's identity, "" without one."""
    return "" if connection.peer is None else connection.peer.namespace


def string_matches(match: StringMatch, value: str) -> bool:
    """Case-sensitive; presence means non-empty."""
    kind = match.kind
    if kind is StringMatchKind.EXACT:
        return value == match.value
    if kind is StringMatchKind.PREFIX:
        return value.startswith(match.value)
    if kind is StringMatchKind.SUFFIX:
        return value.endswith(match.value)
    return value != ""


def in_any(networks: tuple[IpNetwork, ...], ip: IpAddress) -> bool:
    """Families are compared strictly."""
    if isinstance(networks, Networks):
        return networks.cover(ip)
    for network in networks:  # noqa: SIM110
        if ip in network:
            return True
    return False


def _any_string(matches: tuple[StringMatch, ...], value: str) -> bool:
    for match in matches:  # noqa: SIM110
        if string_matches(match, value):
            return True
    return False


def _any_account(accounts: tuple[ServiceAccountMatch, ...], connection: Connection) -> bool:
    peer = connection.peer
    return peer is not None and any(
        account.namespace == peer.namespace and account.service_account == peer.service_account for account in accounts
    )
