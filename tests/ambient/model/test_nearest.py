"""Why a rule does not match, field by field, in words."""

from __future__ import annotations

import pytest

from ambient.model.matching import principal_of
from ambient.model.nearest import differences
from ambient.model.outcome import Connection
from ambient.model.policy import Match
from tests.support.builders import accounts, connection, networks, rule, strings

KNOWN = connection(peer="shop/till")
PLAIN = connection(peer=None)
WHO = "cluster.local/ns/shop/sa/till"
NOBODY = "no identity (plaintext)"


@pytest.mark.parametrize(
    ("match", "given", "text"),
    [
        (Match(principals=strings("a", "b*")), KNOWN, f"source.principals: {WHO} is not one of a, b*"),
        (Match(principals=strings("*")), PLAIN, f"source.principals: {NOBODY} is not anybody with an identity"),
        (Match(not_principals=strings("*till")), KNOWN, f"source.notPrincipals: {WHO} is not other than *till"),
        (Match(namespaces=strings("a")), KNOWN, "source.namespaces: shop is not a"),
        (Match(namespaces=strings("a")), PLAIN, f"source.namespaces: {NOBODY} is not a"),
        (Match(not_namespaces=strings("shop")), KNOWN, "source.notNamespaces: shop is not other than shop"),
        (Match(service_accounts=accounts("a/b")), KNOWN, f"source.serviceAccounts: {WHO} is not a/b"),
        (
            Match(not_service_accounts=accounts("shop/till")),
            KNOWN,
            f"source.notServiceAccounts: {WHO} is not other than shop/till",
        ),
        (Match(source_ips=networks("10.1.0.0/16")), KNOWN, "source.ipBlocks: 10.0.0.9 is not in 10.1.0.0/16"),
        (Match(not_source_ips=networks("10.0.0.0/8")), KNOWN, "source.notIpBlocks: 10.0.0.9 is not outside 10.0.0.0/8"),
        (Match(destination_ips=networks("10.9.9.9")), KNOWN, "destination.ip: 10.0.0.1 is not in 10.9.9.9/32"),
        (
            Match(not_destination_ips=networks("::/0", "10.0.0.1")),
            KNOWN,
            "destination.ip (not): 10.0.0.1 is not outside ::/0, 10.0.0.1/32",
        ),
        (Match(destination_ports=(80,)), KNOWN, "operation.ports: 8080 is not 80"),
        (Match(not_destination_ports=(8080,)), KNOWN, "operation.notPorts: 8080 is not other than 8080"),
        (
            Match(destination_ports=(1, 2, 3, 4, 5, 6, 7, 8)),
            KNOWN,
            "operation.ports: 8080 is not one of 1, 2, 3, 4, 5, 6, 7, 8",
        ),
        (
            Match(destination_ports=tuple(range(1, 20))),
            KNOWN,
            "operation.ports: 8080 is not one of 1, 2, 3, 4, 5, 6, 7, 8, 11 more",
        ),
        (Match(), KNOWN, "match: a match without any field is not something this proxy understands"),
    ],
)
def test_each_field_says_what_it_asks_for_and_what_came(match: Match, given: Connection, text: str) -> None:
    (difference,) = differences(rule(match), given, principal_of(given))
    assert str(difference) == text


def test_a_rule_that_matches_has_no_differences() -> None:
    assert differences(rule(Match(destination_ports=(8080,))), KNOWN, WHO) == ()
    assert differences((), KNOWN, WHO) == ()


def test_all_failing_clauses_and_fields_are_told_and_of_alternatives_the_nearest() -> None:
    far = Match(destination_ports=(1,), namespaces=strings("a"))
    near = Match(destination_ports=(8080,), namespaces=strings("b"))
    found = differences(((far, near), (Match(source_ips=networks("10.9.0.0/16")),)), KNOWN, WHO)
    assert [difference.field for difference in found] == ["source.namespaces", "source.ipBlocks"]
