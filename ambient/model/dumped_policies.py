"""The policies of a config dump read back into the model. A field we do not know is refused: to skip it could turn
a policy into a wider one, and `explain` would tell a lie."""

from __future__ import annotations

from ipaddress import ip_network

from ambient.errors import InvalidInput
from ambient.model.address import IpNetwork
from ambient.model.fields import Fields
from ambient.model.policy import (
    Action,
    Authorization,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)

_SCOPES = {
    "Global": PolicyScope.GLOBAL,
    "Namespace": PolicyScope.NAMESPACE,
    "WorkloadSelector": PolicyScope.WORKLOAD_SELECTOR,
}
_KINDS = {
    "Exact": StringMatchKind.EXACT,
    "Prefix": StringMatchKind.PREFIX,
    "Suffix": StringMatchKind.SUFFIX,
    "Presence": StringMatchKind.PRESENCE,
}
_POSITIVE = ("namespaces", "principals", "serviceAccounts", "sourceIps", "destinationIps", "destinationPorts")
_KNOWN = frozenset(_POSITIVE) | frozenset(f"not{key[0].upper()}{key[1:]}" for key in _POSITIVE)


def read_policy(fields: Fields) -> Authorization:
    """One entry of `policies`; raises InvalidInput."""
    rules = _list(fields.raw.get("rules") or [], fields.where)
    numbers = fields.numbers("ruleNumbers")
    if numbers and len(numbers) != len(rules):
        raise InvalidInput("not a number for each rule", f"{fields.where}.ruleNumbers", repr(numbers)[:80])
    return Authorization(
        name=fields.text("name"),
        namespace=fields.text("namespace"),
        scope=fields.choice("scope", _SCOPES),
        action=fields.choice("action", {action.name.title(): action for action in Action}),
        rules=tuple(
            tuple(
                tuple(
                    _match(Fields(match, f"{fields.where}.rules[{r}][{c}][{m}]"))
                    for m, match in enumerate(_list(clause, fields.where))
                )
                for c, clause in enumerate(_list(rule, fields.where))
            )
            for r, rule in enumerate(rules)
        ),
        dry_run=fields.boolean("dryRun"),
        numbers=numbers,
    )


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise InvalidInput("rules are not nested lists", where, repr(value)[:80])
    return value


def _match(fields: Fields) -> Match:
    unknown = set(fields.raw) - _KNOWN
    if unknown:
        raise InvalidInput("unknown match", fields.where, ", ".join(sorted(unknown)))
    return Match(
        namespaces=_strings(fields, "namespaces"),
        not_namespaces=_strings(fields, "notNamespaces"),
        principals=_strings(fields, "principals"),
        not_principals=_strings(fields, "notPrincipals"),
        service_accounts=_accounts(fields, "serviceAccounts"),
        not_service_accounts=_accounts(fields, "notServiceAccounts"),
        source_ips=_networks(fields, "sourceIps"),
        not_source_ips=_networks(fields, "notSourceIps"),
        destination_ips=_networks(fields, "destinationIps"),
        not_destination_ips=_networks(fields, "notDestinationIps"),
        destination_ports=fields.numbers("destinationPorts"),
        not_destination_ports=fields.numbers("notDestinationPorts"),
    )


def _strings(fields: Fields, key: str) -> tuple[StringMatch, ...]:
    matches = []
    for entry in fields.each(key):
        if len(entry.raw) != 1:
            raise InvalidInput("not a string match", entry.where, repr(dict(entry.raw))[:80])
        kind = next(iter(entry.raw))
        if kind not in _KINDS:
            raise InvalidInput("unknown string match", entry.where, repr(kind))
        value = "" if kind == "Presence" else entry.text(kind)
        matches.append(StringMatch(_KINDS[kind], value))
    return tuple(matches)


def _accounts(fields: Fields, key: str) -> tuple[ServiceAccountMatch, ...]:
    return tuple(
        ServiceAccountMatch(entry.text("namespace"), entry.text("serviceAccount")) for entry in fields.each(key)
    )


def _networks(fields: Fields, key: str) -> tuple[IpNetwork, ...]:
    try:
        return tuple(ip_network(text) for text in fields.texts(key))
    except ValueError as error:
        raise InvalidInput("not an address range", f"{fields.where}.{key}", str(error)) from None
