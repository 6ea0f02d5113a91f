"""One rule of an AuthorizationPolicy as an Envoy RBAC policy: permissions for `to`, principals for `from`. Pure.

Ports and addresses of the destination are those of the service, which are known beforehand. The client is known by the
filter state that its CONNECT left, never by anything that a request says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from ambient.kube.policies import Operation, PolicyRule, Source, When
from ambient.model.address import IpAddress
from ambient.waypoint.access import PEER
from ambient.waypoint.rbac_claims import CannotSay, claim
from ambient.waypoint.typed import Message

ANY: Final[Message] = {"any": True}
_SCHEME: Final = "spiffe://"
_HEADER: Final = re.compile(r"request\.headers\[([^\[\]]+)\]")
_SPELLINGS: Final = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~/-]")
"""In a path: what may stand there as itself or escaped, as Envoy leaves it either way."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule is read for. `http` False: only a connection is known, no request. `tokens` False: nobody has looked
    at tokens yet. `outside`: the client itself is connected to us, so its address and the one that others report of it
    are two, and no identity is known. `anywhere`: addresses and port are not known beforehand, but what was dialled."""

    namespace: str
    trust_domains: tuple[str, ...]
    addresses: tuple[IpAddress, ...]
    port: int
    http: bool
    tokens: bool = True
    outside: bool = False
    anywhere: bool = False


def translate(rule: PolicyRule, context: Context, *, allow: bool) -> Message | None:
    """The Envoy policy, or None: it can match nothing. What cannot be said makes an ALLOW rule match nothing and is
    left out of any other (which then matches more)."""
    try:
        reader = _Reader(context, allow)
        permissions = [_any([reader.operation(one) for one in rule.operations])] if rule.operations else []
        principals = [_any_id([reader.source(one) for one in rule.sources])] if rule.sources else []
        for when in rule.when:
            permission, principal = reader.when(when)
            permissions += [permission] if permission is not None else []
            principals += [principal] if principal is not None else []
    except CannotSay:
        return None
    return {"permissions": [_all(permissions)], "principals": [_all_ids(principals)]}


def _all(parts: list[Message]) -> Message:
    return parts[0] if len(parts) == 1 else {"and_rules": {"rules": parts}} if parts else ANY


def _any(parts: list[Message]) -> Message:
    return parts[0] if len(parts) == 1 else {"or_rules": {"rules": parts}}


def _all_ids(parts: list[Message]) -> Message:
    return parts[0] if len(parts) == 1 else {"and_ids": {"ids": parts}} if parts else ANY


def _any_id(parts: list[Message]) -> Message:
    return parts[0] if len(parts) == 1 else {"or_ids": {"ids": parts}}


def _both(
    said: tuple[list[Message], list[Message]], joined: Callable[[list[Message]], Message], negation: str
) -> list[Message]:
    """One of what is wanted, and none of what is not, as far as there is any."""
    wanted, unwanted = said
    return ([joined(wanted)] if wanted else []) + ([{negation: joined(unwanted)}] if unwanted else [])


class _Reader:
    """Parts of a rule for one context."""

    def __init__(self, context: Context, allow: bool) -> None:
        self._context = context
        self._allow = allow

    def operation(self, one: Operation) -> Message:
        parts = [
            *self._permission(one.ports, one.not_ports, self._port),
            *self._permission(one.hosts, one.not_hosts, _host, http=True),
            *self._permission(one.methods, one.not_methods, lambda value: _header(":method", value), http=True),
            *self._by_path(one),
        ]
        return _all(parts)

    def _by_path(self, one: Operation) -> list[Message]:
        """Requests are forwarded as they are escaped, and servers take both spellings for the same: whatever closes
        looks at every one, whatever opens at what is written."""
        wanted = self._permission(one.paths, (), lambda value: _path(value, spelled=not self._allow), http=True)
        unwanted = self._permission((), one.not_paths, lambda value: _path(value, spelled=self._allow), http=True)
        return [*wanted, *unwanted]

    def source(self, one: Source) -> Message:
        parts = [
            *self._principal(one.principals, one.not_principals, self._peer),
            *self._principal(one.namespaces, one.not_namespaces, _namespace),
            *self._principal(one.service_accounts, one.not_service_accounts, self._account),
            *self._principal(one.trust_domains, one.not_trust_domains, _trust_domain),
            *self._principal(one.ip_blocks, one.not_ip_blocks, self._direct),
            *self._principal(one.remote_ip_blocks, one.not_remote_ip_blocks, _remote),
            *self._by_claim("request.auth.principal", one.request_principals, one.not_request_principals),
        ]
        return _all_ids(parts)

    def when(self, one: When) -> tuple[Message | None, Message | None]:
        """A permission, or a principal."""
        values = (one.values, one.not_values)
        principals: dict[str, Callable[[str], Message]] = {
            "source.ip": self._direct,
            "remote.ip": _remote,
            "source.principal": self._peer,
            "source.namespace": _namespace,
            "source.serviceAccount": self._account,
            "source.trustDomain": _trust_domain,
        }
        if one.key in principals:
            return None, _all_ids(self._principal(*values, principals[one.key]))
        if one.key == "destination.port":
            ports = (tuple(map(int, one.values)), tuple(map(int, one.not_values)))
            return _all(self._permission(*ports, self._port)), None
        if one.key == "destination.ip":
            return _all(self._permission(*values, self._address)), None
        if header := _HEADER.fullmatch(one.key):
            return self._by_header(header[1].lower(), one), None
        return None, _all_ids(self._by_claim(one.key, *values))

    def _by_header(self, name: str, one: When) -> Message:
        """A header that comes several times, or with several values, is to Envoy one text with commas. Whatever closes
        looks at each of the values, whatever opens at that text."""
        wanted = self._permission(one.values, (), lambda value: _header(name, value, each=not self._allow), http=True)
        unwanted = self._permission((), one.not_values, lambda value: _header(name, value, each=self._allow), http=True)
        return _all([*wanted, *unwanted])

    def _permission(
        self,
        values: Iterable[object],
        not_values: Iterable[object],
        say: Callable[..., Message],
        *,
        http: bool = False,
    ) -> list[Message]:
        return _both(self._said(values, not_values, say, http), _any, "not_rule")

    def _principal(
        self,
        values: Iterable[object],
        not_values: Iterable[object],
        say: Callable[..., Message],
        *,
        http: bool = False,
    ) -> list[Message]:
        return _both(self._said(values, not_values, say, http), _any_id, "not_id")

    def _said(
        self, values: Iterable[object], not_values: Iterable[object], say: Callable[..., Message], http: bool
    ) -> tuple[list[Message], list[Message]]:
        values, not_values = list(values), list(not_values)
        if (values or not_values) and http and not self._context.http:
            if self._allow:
                raise CannotSay
            return [], []
        try:
            return [say(value) for value in values], [say(value) for value in not_values]
        except CannotSay:
            if self._allow:
                raise
            return [], []

    def _by_claim(self, key: str, values: Iterable[str], not_values: Iterable[str]) -> list[Message]:
        wanted = self._principal(values, (), lambda value: self._claim(key, value, closes=not self._allow), http=True)
        unwanted = self._principal((), not_values, lambda value: self._claim(key, value, closes=self._allow), http=True)
        return [*wanted, *unwanted]

    def _claim(self, key: str, value: str, *, closes: bool) -> Message:
        if key.startswith("request.auth.") and not self._context.tokens:
            raise CannotSay
        return claim(key, value, closes=closes)

    def _port(self, value: int) -> Message:
        if self._context.anywhere:
            dialled = {"name": ":authority", "string_match": {"suffix": f":{value}"}}
            return {"destination_port": value} if self._context.http else {"header": dialled}
        return ANY if value == self._context.port else {"not_rule": ANY}

    def _direct(self, value: str) -> Message:
        return {"direct_remote_ip": _remote(value)["remote_ip"]} if self._context.outside else _remote(value)

    def _address(self, value: str) -> Message:
        if self._context.anywhere and not self._context.http:
            raise CannotSay
        if self._context.outside or self._context.anywhere:
            return {"destination_ip": _remote(value)["remote_ip"]}
        network = ip_network(value, strict=False)
        return ANY if any(address in network for address in self._context.addresses) else {"not_rule": ANY}

    def _peer(self, value: str) -> Message:
        """A principal without its scheme. One that names a trust domain of ours stands for all of them."""
        domain, slash, rest = value.partition("/")
        domains = self._context.trust_domains
        if slash and domain in domains:
            return _any_id([_state(f"{_SCHEME}{other}/{rest}") for other in domains])
        return _state(f"{_SCHEME}{value}" if not value.startswith("*") else value)

    def _account(self, value: str) -> Message:
        given, _, account = value.rpartition("/")
        return _matches(f"[^/]+/ns/{re.escape(given or self._context.namespace)}/sa/{re.escape(account)}")


def _state(value: str) -> Message:
    """The peer's SPIFFE URI by a value with at most one * at an end."""
    if value == "*":
        match: Message = {"prefix": _SCHEME}
    elif value.startswith("*"):
        match = {"suffix": value[1:]}
    elif value.endswith("*"):
        match = {"prefix": value[:-1]}
    else:
        match = {"exact": value}
    return {"filter_state": {"key": PEER, "string_match": match}}


def _matches(expression: str) -> Message:
    match = {"safe_regex": {"regex": f"{_SCHEME}{expression}"}}
    return {"filter_state": {"key": PEER, "string_match": match}}


def _glob(value: str, characters: str) -> str:
    """A regular expression for a value with at most one * at an end, which stands for some `characters`."""
    if value == "*":
        return f"{characters}+"
    if value.startswith("*"):
        return f"{characters}*{re.escape(value[1:])}"
    return f"{re.escape(value[:-1])}{characters}*" if value.endswith("*") else re.escape(value)


def _namespace(value: str) -> Message:
    return _matches(f"[^/]+/ns/{_glob(value, '[^/]')}/sa/[^/]+")


def _trust_domain(value: str) -> Message:
    return _matches(f"{_glob(value, '[^/]')}/.+")


def _remote(value: str) -> Message:
    network = ip_network(value, strict=False)
    return {"remote_ip": {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}}


def _header(name: str, value: str, *, each: bool = False) -> Message:
    """`each`: one of several values, between commas, is enough."""
    if value == "*":
        return {"header": {"name": name, "present_match": True}}
    if each and not name.startswith(":"):
        before = "(?s:.*)" if value.startswith("*") else "(?s:.*,)?[ \\t]*"
        after = "(?s:.*)" if value.endswith("*") else "[ \\t]*(?s:,.*)?"
        expression = f"{before}{re.escape(value.strip('*'))}{after}"
        return {"header": {"name": name, "string_match": {"safe_regex": {"regex": expression}}}}
    if value.startswith("*"):
        return {"header": {"name": name, "string_match": {"suffix": value[1:]}}}
    if value.endswith("*"):
        return {"header": {"name": name, "string_match": {"prefix": value[:-1]}}}
    return {"header": {"name": name, "string_match": {"exact": value}}}


def _host(value: str) -> Message:
    """Without regard to case, with any port, an empty one or none, with the root's dot or without. Envoy lets a Host
    with a user's name through, and an application that reads it as part of a URL takes what is behind the @."""
    expression = f"(?i)(.*@)?{_glob(value, '.')}\\.?(:[0-9]*)?"
    return {"header": {"name": ":authority", "string_match": {"safe_regex": {"regex": expression}}}}


def _path(value: str, *, spelled: bool) -> Message:
    """`spelled`: whichever characters are escaped, with hexadecimal digits of either case."""
    if "{*}" in value or "{**}" in value or (spelled and _SPELLINGS.search(value.strip("*"))):
        parts = re.split(r"(\{\*\*?\}|\*)", value)
        words = {"{*}": "[^/]+", "{**}": ".*", "*": ".*"}
        expression = "".join(words.get(part) or _spellings(part, spelled) for part in parts)
        return {"url_path": {"path": {"safe_regex": {"regex": expression}}}}
    if value == "*":
        return ANY
    if value.startswith("*"):
        return {"url_path": {"path": {"suffix": value[1:]}}}
    if value.endswith("*"):
        return {"url_path": {"path": {"prefix": value[:-1]}}}
    return {"url_path": {"path": {"exact": value}}}


def _spellings(text: str, spelled: bool) -> str:
    """A regular expression for a part of a path. Of an escaped character that is no ASCII there is no other form."""
    return "".join(
        _both_spellings(part) if spelled and _SPELLINGS.fullmatch(part) else re.escape(part)
        for part in re.split(f"({_SPELLINGS.pattern})", text)
    )


def _both_spellings(part: str) -> str:
    octet = int(part[1:], 16) if len(part) == 3 else ord(part)
    escaped = "%" + "".join(f"[{digit}{digit.lower()}]" if digit.isalpha() else digit for digit in f"{octet:02X}")
    # An escaped % stays one: as itself it would begin another escape.
    return f"(?:{re.escape(chr(octet))}|{escaped})" if 0x20 < octet < 0x7F and octet != ord("%") else escaped
