"""The match algebra, level by level: every row is one line of its definition."""

from __future__ import annotations

import pytest

from ambient.model.identity import Identity
from ambient.model.matching import clause_matches, match_matches, principal_of, rule_matches, string_matches
from ambient.model.outcome import Connection
from ambient.model.policy import Match, Rule
from tests.support.builders import accounts, connection, networks, strings

KNOWN = connection(peer="shop/till")
PLAIN = connection(peer=None)
V6 = connection("fd00::9", "[fd00::1]:8080", "shop/till")
PRINCIPAL = "cluster.local/ns/shop/sa/till"


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("exact", "exact", True),
        ("exact", "exacts", False),
        ("exact", "Exact", False),
        ("pre*", "prefix", True),
        ("pre*", "pr", False),
        ("pre*", "Prefix", False),
        ("*fix", "suffix", True),
        ("*fix", "fi", False),
        ("*", "anything", True),
        ("*", "", False),
        ("", "", True),
    ],
)
def test_strings_match_by_their_kind(pattern: str, value: str, expected: bool) -> None:
    assert string_matches(strings(pattern)[0], value) is expected


FIELDS: list[tuple[str, Match, Connection, bool]] = [
    ("no field", Match(), KNOWN, False),
    ("principal", Match(principals=strings(PRINCIPAL)), KNOWN, True),
    ("principal has no scheme", Match(principals=strings("spiffe://" + PRINCIPAL)), KNOWN, False),
    ("one of two principals", Match(principals=strings("x", PRINCIPAL)), KNOWN, True),
    ("other principal", Match(principals=strings("x")), KNOWN, False),
    ("principal of plaintext", Match(principals=strings("*")), PLAIN, False),
    ("principal prefix of plaintext", Match(principals=strings("c*")), PLAIN, False),
    ("not principal", Match(not_principals=strings(PRINCIPAL)), KNOWN, False),
    ("not other principal", Match(not_principals=strings("x")), KNOWN, True),
    ("not principal of plaintext", Match(not_principals=strings("*")), PLAIN, True),
    ("not any principal", Match(not_principals=strings("*")), KNOWN, False),
    ("namespace", Match(namespaces=strings("shop")), KNOWN, True),
    ("namespace prefix", Match(namespaces=strings("sh*")), KNOWN, True),
    ("other namespace", Match(namespaces=strings("sh")), KNOWN, False),
    ("any namespace of plaintext", Match(namespaces=strings("*")), PLAIN, False),
    ("not namespace", Match(not_namespaces=strings("shop")), KNOWN, False),
    ("not namespace of plaintext", Match(not_namespaces=strings("shop")), PLAIN, True),
    ("account", Match(service_accounts=accounts("shop/till")), KNOWN, True),
    ("account of another namespace", Match(service_accounts=accounts("x/till")), KNOWN, False),
    ("account of plaintext", Match(service_accounts=accounts("shop/till")), PLAIN, False),
    ("not account", Match(not_service_accounts=accounts("shop/till")), KNOWN, False),
    ("not other account", Match(not_service_accounts=accounts("shop/x")), KNOWN, True),
    ("not account of plaintext", Match(not_service_accounts=accounts("shop/till")), PLAIN, True),
    ("source address", Match(source_ips=networks("10.0.0.9/32")), KNOWN, True),
    ("source block", Match(source_ips=networks("10.0.0.0/8")), KNOWN, True),
    ("other source block", Match(source_ips=networks("11.0.0.0/8")), KNOWN, False),
    ("every IPv4 source is not IPv6", Match(source_ips=networks("0.0.0.0/0")), V6, False),
    ("IPv6 source", Match(source_ips=networks("fd00::/8")), V6, True),
    ("every IPv6 source is not IPv4", Match(source_ips=networks("::/0")), KNOWN, False),
    ("not source block", Match(not_source_ips=networks("10.0.0.0/8")), KNOWN, False),
    ("not IPv4 block for IPv6", Match(not_source_ips=networks("0.0.0.0/0")), V6, True),
    ("the whole of IPv4", Match(source_ips=networks("0.0.0.0/0")), KNOWN, True),
    ("the whole of IPv6", Match(source_ips=networks("::/0")), V6, True),
    ("one IPv6 address", Match(source_ips=networks("fd00::9/128")), V6, True),
    ("the next IPv6 address", Match(source_ips=networks("fd00::8/128")), V6, False),
    ("the next IPv4 address", Match(source_ips=networks("10.0.0.8/32")), KNOWN, False),
    ("both families", Match(source_ips=networks("10.0.0.0/8", "fd00::/8")), V6, True),
    ("an IPv4 address written as IPv6", Match(source_ips=networks("::ffff:10.0.0.0/104")), KNOWN, False),
    ("destination address", Match(destination_ips=networks("10.0.0.1")), KNOWN, True),
    ("other destination", Match(destination_ips=networks("10.0.0.2")), KNOWN, False),
    ("not destination", Match(not_destination_ips=networks("10.0.0.1")), KNOWN, False),
    ("not other destination", Match(not_destination_ips=networks("10.0.0.2")), KNOWN, True),
    ("port", Match(destination_ports=(8080,)), KNOWN, True),
    ("one of two ports", Match(destination_ports=(80, 8080)), KNOWN, True),
    ("other port", Match(destination_ports=(80,)), KNOWN, False),
    ("not port", Match(not_destination_ports=(8080,)), KNOWN, False),
    ("not other port", Match(not_destination_ports=(80,)), KNOWN, True),
    ("both fields", Match(destination_ports=(8080,), namespaces=strings("shop")), KNOWN, True),
    ("first field only", Match(destination_ports=(8080,), namespaces=strings("x")), KNOWN, False),
    ("second field only", Match(destination_ports=(80,), namespaces=strings("shop")), KNOWN, False),
    (
        "positive and negative",
        Match(source_ips=networks("10.0.0.0/8"), not_source_ips=networks("10.0.0.9")),
        KNOWN,
        False,
    ),
]


@pytest.mark.parametrize(("match", "given", "expected"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_fields_of_a_match(match: Match, given: Connection, expected: bool) -> None:
    assert match_matches(match, given, principal_of(given)) is expected


YES, NO, EMPTY = Match(destination_ports=(8080,)), Match(destination_ports=(1,)), Match()

RULES: list[tuple[str, Rule, bool]] = [
    ("a rule without clauses", (), True),
    ("a clause without matches", ((),), True),
    ("one clause", ((YES,),), True),
    ("clauses are ANDed", ((YES,), (NO,)), False),
    ("two that match", ((YES,), (YES,)), True),
    ("matches of a clause are ORed", ((NO, YES),), True),
    ("no match of a clause", ((NO, NO),), False),
    ("a clause of empty matches only", ((EMPTY,),), False),
    ("an empty match beside one that matches", ((EMPTY, YES),), True),
    ("an empty clause beside one that fails", ((), (NO,)), False),
]


@pytest.mark.parametrize(("rule", "expected"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_rules_and_clauses(rule: Rule, expected: bool) -> None:
    assert rule_matches(rule, KNOWN, PRINCIPAL) is expected
    assert all(clause_matches(clause, KNOWN, PRINCIPAL) for clause in rule) is expected


def test_the_principal_is_the_whole_identity_not_a_prefix() -> None:
    given = Connection(KNOWN.source_ip, KNOWN.destination_ip, 8080, Identity("cluster.local", "shop", "till-2"))
    assert not match_matches(Match(principals=strings(PRINCIPAL)), given, principal_of(given))
