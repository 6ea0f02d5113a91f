"""Random policies and connections over a small world, so that most rules nearly match and many do."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

from ambient.model.address import IpNetwork
from ambient.model.identity import Identity
from ambient.model.outcome import Connection
from ambient.model.policy import (
    Action,
    Authorization,
    Match,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)

NAMESPACES = ("a", "ab", "abc", "b", "shop", "shopper")
ACCOUNTS = ("a", "b", "till", "till-2")
DOMAINS = ("cluster.local", "cluster", "other")
PORTS = (0, 1, 80, 8080, 8443, 65535)
ADDRESSES = tuple(
    ip_address(a)
    for a in (
        "10.0.0.1",
        "10.0.0.2",
        "10.0.1.1",
        "10.1.0.1",
        "192.168.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "127.255.0.1",
    )
)
HIGHEST = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
ADDRESSES_6 = tuple(
    ip_address(a)
    for a in ("fd00::1", "fd00::2", "fd00:1::1", "::", "::1", "::ffff:10.0.0.1", "::a00:1", "::ffff:0:0", HIGHEST)
)
"""Some are IPv4 addresses written as IPv6, or only look like one: to a policy they are IPv6."""


def random_policies(random: Random, count: int) -> list[Authorization]:
    """Policies with 0..4 rules each, of both actions, some of them dry run; lists may be empty at every level."""
    return [
        Authorization(
            name=f"p{i}",
            namespace="default",
            scope=PolicyScope.NAMESPACE,
            action=random.choice((Action.ALLOW, Action.DENY)),
            rules=tuple(_rule(random) for _ in range(random.choice((0, 1, 1, 2, 4)))),
            dry_run=random.random() < 0.1,
        )
        for i in range(count)
    ]


def random_connection(random: Random) -> Connection:
    pool = ADDRESSES if random.random() < 0.7 else ADDRESSES_6
    peer = None
    if random.random() < 0.8:
        peer = Identity(random.choice(DOMAINS), random.choice(NAMESPACES), random.choice(ACCOUNTS))
    return Connection(random.choice(pool), random.choice(pool), random.choice(PORTS), peer)


def _rule(random: Random) -> Rule:
    clauses = random.choice((0, 1, 1, 2, 2, 3))
    return tuple(tuple(_match(random) for _ in range(random.choice((0, 1, 1, 1, 2, 3)))) for _ in range(clauses))


def _match(random: Random) -> Match:
    def some(chance: float) -> bool:
        return random.random() < chance

    return Match(
        namespaces=_strings(random, NAMESPACES) if some(0.2) else (),
        not_namespaces=_strings(random, NAMESPACES) if some(0.1) else (),
        principals=_strings(random, _principals(random)) if some(0.2) else (),
        not_principals=_strings(random, _principals(random)) if some(0.1) else (),
        service_accounts=_accounts(random) if some(0.15) else (),
        not_service_accounts=_accounts(random) if some(0.1) else (),
        source_ips=_networks(random) if some(0.2) else (),
        not_source_ips=_networks(random) if some(0.1) else (),
        destination_ips=_networks(random) if some(0.1) else (),
        not_destination_ips=_networks(random) if some(0.05) else (),
        destination_ports=_ports(random) if some(0.3) else (),
        not_destination_ports=_ports(random) if some(0.1) else (),
    )


def _principals(random: Random) -> tuple[str, ...]:
    one = Identity(random.choice(DOMAINS), random.choice(NAMESPACES), random.choice(ACCOUNTS))
    return (
        one.principal,
        f"{one.trust_domain}/ns/{one.namespace}/",
        f"{one.trust_domain}/ns/{one.namespace}/sa/",
        f"{one.trust_domain}/ns/",
        f"/ns/{one.namespace}/sa/{one.service_account}",
        f"/{one.namespace}/sa/{one.service_account}",
        f"/sa/{one.service_account}",
        f"/{one.service_account}",
        "*",
    )


def _strings(random: Random, values: tuple[str, ...]) -> tuple[StringMatch, ...]:
    kinds = (*StringMatchKind, StringMatchKind.EXACT, StringMatchKind.EXACT)
    found = []
    for _ in range(random.choice((1, 1, 2))):
        kind, value = random.choice(kinds), random.choice(values)
        cut = random.random() < 0.6  # else whole components
        if kind is StringMatchKind.PREFIX and cut:
            value = value[: random.randint(0, len(value))]
        elif kind is StringMatchKind.SUFFIX and cut:
            value = value[random.randint(0, len(value)) :]
        found.append(StringMatch(kind, "" if kind is StringMatchKind.PRESENCE else value))
    return tuple(found)


def _accounts(random: Random) -> tuple[ServiceAccountMatch, ...]:
    return tuple(
        ServiceAccountMatch(random.choice(NAMESPACES), random.choice(ACCOUNTS)) for _ in range(random.choice((1, 2)))
    )


def _ports(random: Random) -> tuple[int, ...]:
    return tuple(random.sample(PORTS, random.choice((1, 2))))


def _networks(random: Random) -> tuple[IpNetwork, ...]:
    found = []
    for _ in range(random.choice((1, 1, 2))):
        address: IPv4Address | IPv6Address = random.choice((*ADDRESSES, *ADDRESSES_6))
        longest = 32 if address.version == 4 else 128
        length = random.choice((0, 8, 15, 16, 24, 31, longest, random.randint(0, longest)))
        found.append(ip_network((address, min(length, longest)), strict=False))
    return tuple(found)
