"""security.istio.io: AuthorizationPolicy and PeerAuthentication, every field known, any other refused.

Stricter than Istio where a slip would silently change what a policy means: see `_wildcard` and `_identity`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.policies import Operation, PeerMtls, PolicyRule, Source, TargetRef, When
from ambient.kube.read import Field, Object
from ambient.kube.records import AuthorizationPolicy, PeerAuthentication
from ambient.kube.route_syntax import plain_path
from ambient.model.address import port_number

SHAPE: Final = Shape(
    ("security.istio.io/v1", "security.istio.io/v1beta1"), True, syntax.dns_subdomain, ("spec",), strict=True
)
ACTIONS: Final = ("ALLOW", "DENY", "AUDIT", "CUSTOM")
MODES: Final = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")

_SOURCE: Final = syntax.words(
    "principals notPrincipals requestPrincipals notRequestPrincipals namespaces notNamespaces serviceAccounts"
    " notServiceAccounts ipBlocks notIpBlocks remoteIpBlocks notRemoteIpBlocks trustDomains notTrustDomains"
)
_OPERATION: Final = syntax.words("hosts notHosts ports notPorts methods notMethods paths notPaths")
_WHEN_KEYS: Final = syntax.words(
    "source.ip remote.ip source.namespace source.principal source.serviceAccount source.trustDomain"
    " request.auth.principal request.auth.audiences request.auth.presenter destination.ip destination.port"
    " connection.sni"
)
_WHEN_PATTERNS: Final = re.compile(
    r"request\.headers\[[^\[\]]+\]|(request\.auth\.claims|experimental\.envoy\.filters\.[^\[\]]+)(\[[^\[\]]+\])+"
)
"""Each part ends where the next begins: one that could end anywhere is tried in every way there is."""
_MAX_REFS: Final = 16
_MAX_ACCOUNTS: Final = 16
_MAX_VALUE: Final = 1024
"""Characters of a value: for a longer expression Envoy refuses a whole table of routes, other policies and all."""
_HEADER_KEY: Final = re.compile(r"request\.headers\[([^\[\]]+)\]")
_TEMPLATE: Final = re.compile(r"\{\*\*?\}")
_NEVER_ESCAPED: Final = re.compile(r"%(00|2[DEF]|3\d|[46][1-9A-F]|[57][\dA]|5[CF]|7E)", re.IGNORECASE)
"""Of a path once it is made plain: letters, digits, - . _ ~ stand there as themselves, both slashes as /."""


def parse_authorization_policy(top: Object, raw: Mapping[str, Any]) -> AuthorizationPolicy:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.read(
        "spec", lambda f: f.object(("selector", "targetRef", "targetRefs", "action", "provider", "rules")), None
    )
    if spec is None:
        return AuthorizationPolicy(**common)
    selector, refs = read_targets(spec)
    action = spec.read("action", lambda field: field.one_of(ACTIONS), "ALLOW")
    provider = spec.read("provider", lambda field: field.object(("name",)).need("name").text(), "")
    if action == "CUSTOM" and not provider:
        raise spec.need("action").refuse("CUSTOM needs provider.name")
    if action != "CUSTOM" and provider:
        raise spec.need("provider").refuse("only the action CUSTOM has a provider")
    return AuthorizationPolicy(
        **common,
        selector=selector,
        target_refs=refs,
        action=action,
        provider=provider,
        rules=spec.each("rules", _rule),
    )


def parse_peer_authentication(top: Object, raw: Mapping[str, Any]) -> PeerAuthentication:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.read("spec", lambda field: field.object(("selector", "mtls", "portLevelMtls")), None)
    if spec is None:
        return PeerAuthentication(**common)
    selector = _selector(spec)
    ports: tuple[tuple[int, str], ...] = spec.read("portLevelMtls", _port_modes, ())
    if ports and selector is None:
        raise spec.need("portLevelMtls").refuse("needs a selector with labels")
    return PeerAuthentication(**common, selector=selector, mtls=PeerMtls(spec.read("mtls", _mode, "UNSET"), ports))


def read_targets(spec: Object) -> tuple[Mapping[str, str] | None, tuple[TargetRef, ...]]:
    """What a policy is for: labels of workloads, or what its targetRefs name; one excludes the other."""
    choice = spec.present("selector", "targetRef", "targetRefs")
    if len(choice) > 1:
        raise spec.need(choice[1]).refuse(f"may not stand beside {choice[0]}")
    refs = spec.each("targetRefs", _target_ref)
    if len(refs) > _MAX_REFS:
        raise spec.need("targetRefs").refuse(f"at most {_MAX_REFS} entries")
    single = spec.get("targetRef")
    return _selector(spec), (_target_ref(single),) if single else refs


def _mode(field: Field) -> str:
    return field.object(("mode",)).read("mode", lambda mode: mode.one_of(MODES), "UNSET")


def _port_modes(field: Field) -> tuple[tuple[int, str], ...]:
    modes = {}
    for text, value in field.mapping().items():
        entry = Field(value, f"{field.path}[{text}]", field.what)
        port = port_number(text)
        if not port or text != str(port):
            raise entry.refuse(f"{text!r} is not a port (1..65535)")
        modes[port] = _mode(entry)
    if not modes:
        raise field.refuse("must name at least one port")
    return tuple(sorted(modes.items()))


def _selector(spec: Object) -> Mapping[str, str] | None:
    field = spec.get("selector")
    if field is None:
        return None
    labels = field.object(("matchLabels",)).text_map("matchLabels", _selected)
    return MappingProxyType(labels) if labels else None


def _selected(key: str, value: str) -> str:
    if "*" in key or "*" in value:
        return "a selector knows no wildcards"
    return syntax.label(key, value)


def _target_ref(field: Field) -> TargetRef:
    entry = field.object(("group", "kind", "name", "namespace"))
    return TargetRef(
        entry.text("group"),
        entry.need("kind").text(),
        entry.need("name").checked(syntax.dns_subdomain),
        entry.read("namespace", lambda f: f.checked(syntax.dns_label), ""),
    )


def _rule(field: Field) -> PolicyRule:
    entry = field.object(("from", "to", "when"))
    for part in entry.present("from", "to"):
        if not entry.need(part).items():
            raise entry.need(part).refuse("needs at least one entry (leave it out to match everything)")
    return PolicyRule(
        sources=entry.each("from", lambda f: _source(f.object(("source",)).need("source"))),
        operations=entry.each("to", lambda f: _operation(f.object(("operation",)).need("operation"))),
        when=entry.each("when", _when),
    )


def _values(entry: Object, key: str) -> tuple[str, ...]:
    """A list of non-empty strings with wildcards only where they mean something."""
    return entry.each(key, lambda field: field.checked(_wildcard))


def _wildcard(value: str) -> str:
    # Istio takes a "*" inside a value literally; no name on the wire holds one, so such a DENY would never deny.
    if complaint := _some(value):
        return complaint
    if "*" in value[1:-1] or (len(value) > 1 and value[0] == value[-1] == "*"):
        return f"{value!r}: a * may stand alone, first or last"
    return ""


def _identity(value: str) -> str:
    # A principal is compared without its scheme; with it the value could never match.
    if value.startswith("spiffe://"):
        return f"{value!r}: write it without spiffe://"
    return _wildcard(value)


def _account(value: str) -> str:
    namespace, slash, account = value.rpartition("/")
    if "*" in value:
        return f"{value!r}: service accounts know no wildcards"
    if slash and syntax.dns_label(namespace):
        return f"{value!r}: the part before '/' is not a namespace"
    return f"{value!r} is not <account> or <namespace>/<account>" if syntax.dns_subdomain(account) else ""


def _source(field: Field) -> Source:
    entry = field.object(_SOURCE)
    accounts = entry.present("serviceAccounts", "notServiceAccounts")
    rivals = entry.present("principals", "notPrincipals", "namespaces", "notNamespaces")
    if accounts and rivals:
        raise entry.need(accounts[0]).refuse(f"may not stand beside {rivals[0]}")
    for key in entry.present(*_SOURCE):
        if not entry.need(key).items():
            raise entry.need(key).refuse("an empty list means nothing; leave it out")
        if key in accounts and len(entry.need(key).items()) > _MAX_ACCOUNTS:
            raise entry.need(key).refuse(f"at most {_MAX_ACCOUNTS} entries")
    if not entry.present(*_SOURCE):
        raise field.refuse("needs at least one field")
    return Source(
        principals=entry.each("principals", lambda f: f.checked(_identity)),
        not_principals=entry.each("notPrincipals", lambda f: f.checked(_identity)),
        request_principals=_values(entry, "requestPrincipals"),
        not_request_principals=_values(entry, "notRequestPrincipals"),
        namespaces=_values(entry, "namespaces"),
        not_namespaces=_values(entry, "notNamespaces"),
        service_accounts=entry.each("serviceAccounts", lambda f: f.checked(_account)),
        not_service_accounts=entry.each("notServiceAccounts", lambda f: f.checked(_account)),
        ip_blocks=entry.each("ipBlocks", lambda f: f.checked(syntax.ip_block)),
        not_ip_blocks=entry.each("notIpBlocks", lambda f: f.checked(syntax.ip_block)),
        remote_ip_blocks=entry.each("remoteIpBlocks", lambda f: f.checked(syntax.ip_block)),
        not_remote_ip_blocks=entry.each("notRemoteIpBlocks", lambda f: f.checked(syntax.ip_block)),
        trust_domains=_values(entry, "trustDomains"),
        not_trust_domains=_values(entry, "notTrustDomains"),
    )


def _policy_port(value: str) -> str:
    return "" if port_number(value) else f"{value!r} is not a port (1..65535)"


def _operation(field: Field) -> Operation:
    entry = field.object(_OPERATION)
    for key in entry.present(*_OPERATION):
        if not entry.need(key).items():
            raise entry.need(key).refuse("an empty list means nothing; leave it out")
    if not entry.present(*_OPERATION):
        raise field.refuse("needs at least one field")
    return Operation(
        ports=entry.each("ports", lambda f: int(f.checked(_policy_port))),
        not_ports=entry.each("notPorts", lambda f: int(f.checked(_policy_port))),
        hosts=_values(entry, "hosts"),
        not_hosts=_values(entry, "notHosts"),
        methods=_values(entry, "methods"),
        not_methods=_values(entry, "notMethods"),
        paths=entry.each("paths", lambda f: f.checked(_path)),
        not_paths=entry.each("notPaths", lambda f: f.checked(_path)),
    )


def _some(value: str) -> str:
    if len(value) > _MAX_VALUE:
        return f"{value[:40]!r}...: longer than {_MAX_VALUE} characters"
    return "" if value else "an empty value matches nothing"


def _path(value: str) -> str:
    """What no request's path can be is refused: such a DENY would never deny."""
    return _path_pattern(value) or ("" if value == "*" else _unlike_requests(value))


def _path_pattern(value: str) -> str:
    plain = _TEMPLATE.sub("", value)
    if plain == value:
        return _wildcard(value)
    if "*" in plain or "{" in plain or "}" in plain:
        return f"{value[:40]!r}: beside {{*}} and {{**}} neither * nor braces mean anything"
    return _some(value)


def _unlike_requests(value: str) -> str:
    if not value.isascii():
        return f"{value[:40]!r}: write what is not ASCII as %XX, as requests do"
    if escaped := _NEVER_ESCAPED.search(value):
        return f"{value[:40]!r}: requests are judged without {escaped[0]!r}, write what it stands for"
    # A part that is left open may be anything, and may hold the slash that a path begins with.
    begins = "/" if value.startswith(("*", "{**}")) else ""
    return plain_path(begins + _TEMPLATE.sub("x", value).replace("*", "x"))


def _when(field: Field) -> When:
    entry = field.object(("key", "values", "notValues"))
    key = entry.need("key").text()
    if len(key) > _MAX_VALUE:
        raise entry.need("key").refuse(f"{key[:40]!r}...: longer than {_MAX_VALUE} characters")
    if key not in _WHEN_KEYS and not _WHEN_PATTERNS.fullmatch(key):
        raise entry.need("key").refuse(f"{key!r} is not a known attribute")
    name = _HEADER_KEY.fullmatch(key)
    if name is not None and not name[1].startswith(":") and syntax.header_name(name[1]):
        raise entry.need("key").refuse(f"{key[:40]!r} names no header")
    if not entry.texts("values") and not entry.texts("notValues"):
        raise field.refuse("needs values or notValues")
    check = {
        "source.ip": syntax.ip_block,
        "destination.ip": syntax.ip_block,
        "remote.ip": syntax.ip_block,
        "destination.port": _policy_port,
        "source.principal": _identity,
        "source.namespace": _wildcard,
        "source.trustDomain": _wildcard,
        "source.serviceAccount": _account,
    }.get(key, _some)
    return When(
        key=key,
        values=entry.each("values", lambda f: f.checked(check)),
        not_values=entry.each("notValues", lambda f: f.checked(check)),
    )
