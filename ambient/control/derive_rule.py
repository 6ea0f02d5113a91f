"""The rules of an AuthorizationPolicy as ztunnel rules: one clause for `to`, one for `from`, one per `when`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from ambient.kube.objects import AuthorizationPolicy
from ambient.kube.policies import Operation, PolicyRule, Source, When
from ambient.model.address import IpNetwork
from ambient.model.matching import NO_FIELDS
from ambient.model.policy import Action, Clause, Match, Rule, ServiceAccountMatch, StringMatch, StringMatchKind

_SOURCE_L7 = (
    ("remoteIpBlocks", "remote_ip_blocks"),
    ("notRemoteIpBlocks", "not_remote_ip_blocks"),
    ("requestPrincipals", "request_principals"),
    ("notRequestPrincipals", "not_request_principals"),
    # Not HTTP, but ztunnel's rules cannot say it: leaving it out of an ALLOW rule would allow more than was asked.
    ("trustDomains", "trust_domains"),
    ("notTrustDomains", "not_trust_domains"),
)
_OPERATION_L7 = (
    ("hosts", "hosts"),
    ("notHosts", "not_hosts"),
    ("methods", "methods"),
    ("notMethods", "not_methods"),
    ("paths", "paths"),
    ("notPaths", "not_paths"),
)


@dataclass(frozen=True, slots=True)
class Translated:
    """`unsupported`: attributes that were left out, sorted. `inert`: 0-based numbers of rules that never match.

    `numbers`: as of Authorization.
    """

    rules: tuple[Rule, ...]
    unsupported: tuple[str, ...] = ()
    inert: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()


def translate(policy: AuthorizationPolicy, action: Action, same_domains: frozenset[str] = frozenset()) -> Translated:
    """An ALLOW rule with anything unsupported is left out whole; of a DENY rule only that thing is.

    `same_domains`: trust domains that stand for each other in principals.
    """
    rules: list[Rule] = []
    numbers: list[int] = []
    unsupported: set[str] = set()
    inert: list[int] = []
    for i, rule in enumerate(policy.rules):
        missing = _unsupported(rule)
        unsupported |= missing
        if missing and action is Action.ALLOW:
            continue
        translated = _rule(rule, policy.namespace, same_domains)
        rules.append(translated)
        numbers.append(i + 1)
        if any(all(match == NO_FIELDS for match in clause) for clause in translated):
            inert.append(i)
    kept = tuple(numbers) if len(numbers) < len(policy.rules) else ()
    return Translated(tuple(rules), tuple(sorted(unsupported)), tuple(inert), kept)


def _unsupported(rule: PolicyRule) -> set[str]:
    found = {name for source in rule.sources for name, field in _SOURCE_L7 if getattr(source, field)}
    found |= {name for operation in rule.operations for name, field in _OPERATION_L7 if getattr(operation, field)}
    return found | {when.key for when in rule.when if _when(when, frozenset()) == NO_FIELDS}


def _rule(rule: PolicyRule, namespace: str, domains: frozenset[str]) -> Rule:
    clauses: list[Clause] = []
    if rule.operations:
        clauses.append(tuple(_operation(operation) for operation in rule.operations))
    if rule.sources:
        clauses.append(tuple(_source(source, namespace, domains) for source in rule.sources))
    clauses += ((_when(when, domains),) for when in rule.when)
    return tuple(clauses)


def _operation(operation: Operation) -> Match:
    return Match(destination_ports=operation.ports, not_destination_ports=operation.not_ports)


def _source(source: Source, namespace: str, domains: frozenset[str]) -> Match:
    return Match(
        principals=_principals(source.principals, domains),
        not_principals=_principals(source.not_principals, domains),
        namespaces=_strings(source.namespaces),
        not_namespaces=_strings(source.not_namespaces),
        service_accounts=_accounts(source.service_accounts, namespace),
        not_service_accounts=_accounts(source.not_service_accounts, namespace),
        source_ips=_networks(source.ip_blocks),
        not_source_ips=_networks(source.not_ip_blocks),
    )


def _when(when: When, domains: frozenset[str]) -> Match:
    """A match without fields when ztunnel does not know the attribute."""
    match when.key:
        case "source.ip":
            return Match(source_ips=_networks(when.values), not_source_ips=_networks(when.not_values))
        case "source.namespace":
            return Match(namespaces=_strings(when.values), not_namespaces=_strings(when.not_values))
        case "source.principal":
            return Match(
                principals=_principals(when.values, domains), not_principals=_principals(when.not_values, domains)
            )
        case "destination.ip":
            return Match(destination_ips=_networks(when.values), not_destination_ips=_networks(when.not_values))
        case "destination.port":
            return Match(destination_ports=_ports(when.values), not_destination_ports=_ports(when.not_values))
    return NO_FIELDS


def _principals(values: tuple[str, ...], domains: frozenset[str]) -> tuple[StringMatch, ...]:
    """Each that names one of the trust domains in full stands for all of them, that one first."""
    found: dict[str, None] = {}
    for value in values:
        domain, slash, rest = value.partition("/")
        found[value] = None
        if slash and domain in domains:
            found.update((f"{other}/{rest}", None) for other in sorted(domains))
    return _strings(tuple(found))


def _strings(values: tuple[str, ...]) -> tuple[StringMatch, ...]:
    return tuple(_string(value) for value in values)


def _string(value: str) -> StringMatch:
    if value == "*":
        return StringMatch(StringMatchKind.PRESENCE)
    if value.startswith("*"):
        return StringMatch(StringMatchKind.SUFFIX, value[1:])
    if value.endswith("*"):
        return StringMatch(StringMatchKind.PREFIX, value[:-1])
    return StringMatch(StringMatchKind.EXACT, value)


def _accounts(values: tuple[str, ...], namespace: str) -> tuple[ServiceAccountMatch, ...]:
    pairs = (value.rpartition("/") for value in values)
    return tuple(ServiceAccountMatch(given or namespace, account) for given, _, account in pairs)


def _networks(values: tuple[str, ...]) -> tuple[IpNetwork, ...]:
    return tuple(ip_network(value, strict=False) for value in values)


def _ports(values: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
