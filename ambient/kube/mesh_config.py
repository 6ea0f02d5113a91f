"""Istio's MeshConfig, of which `extensionProviders` that authorize requests or are told of them are read, and which of
those are `defaultProviders`; all else is for others.

A provider with one bad field is no provider: policies that name it refuse what they match.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube import syntax
from ambient.kube.durations import positive_duration
from ambient.kube.mesh_telemetry import KINDS, Told, read_defaults, read_told
from ambient.kube.read import Field, Object
from ambient.kube.yaml import decode_documents

_COMMON: Final = syntax.words("service port timeout failOpen statusOnError includeRequestBodyInCheck clearRouteCache")
_HTTP: Final = syntax.words(
    "pathPrefix includeHeadersInCheck includeRequestHeadersInCheck includeAdditionalHeadersInCheck"
    " headersToUpstreamOnAllow headersToDownstreamOnDeny headersToDownstreamOnAllow"
)
_KINDS: Final[Mapping[str, str]] = {"envoyExtAuthzGrpc": "grpc", "envoyExtAuthzHttp": "http"}
_DEFAULT_MS: Final = 10_000
_MOST_BODY: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,99}")
_STATUSES: Final = frozenset(range(400, 600))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who is asked whether a request may pass. `kind` is grpc (Envoy's ext_authz) or http. `namespace` "": the host
    name says it. Header names may have one * at an end, but not in `upstream`, what its answer tells the service.
    `body`: bytes of it that are sent along, 0: none."""

    name: str
    kind: str
    hostname: str
    port: int
    namespace: str = ""
    timeout_ms: int = _DEFAULT_MS
    fail_open: bool = False
    status: int = 403
    path_prefix: str = ""
    asked_with: tuple[str, ...] = ()
    added: tuple[tuple[str, str], ...] = ()
    upstream: tuple[str, ...] = ()
    told_denied: tuple[str, ...] = ()
    told_allowed: tuple[str, ...] = ()
    body: int = 0
    body_in_part: bool = False
    body_packed: bool = False
    route_again: bool = False


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """`providers`, who are asked, and `told`, who are told, by name. `defaults`: of those told, where a Telemetry names
    none. `refused`: what was not understood, in words."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    told: Mapping[str, Told] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)


def read_mesh_config(text: str, where: str) -> MeshConfig:
    """Raises InvalidInput when it is no YAML, or no mapping."""
    documents = [value for _, value in decode_documents(text, where)]
    top = documents[0] if documents else {}
    if len(documents) > 1 or not isinstance(top, Mapping):
        raise InvalidInput("mesh config", where, "is not one mapping")
    listed = top.get("extensionProviders")
    found: dict[str, Provider] = {}
    told: dict[str, Told] = {}
    refused: list[str] = []
    names: list[str] = []
    for number, value in enumerate(listed if isinstance(listed, list) else []):
        try:
            provider = _provider(Field(value, f"extensionProviders[{number}]", "mesh config"))
        except InvalidInput as error:
            refused.append(": ".join(part for part in (error.where, error.why) if part))
            name = value.get("name") if isinstance(value, Mapping) else None
            names += [name] if isinstance(name, str) else []
            continue
        if provider is not None:
            names.append(provider.name)
            if isinstance(provider, Provider):
                found[provider.name] = provider
            else:
                told[provider.name] = provider
    if listed is not None and not isinstance(listed, list):
        refused.append("extensionProviders: expected a list")
    for name in [name for name, count in Counter(names).items() if count > 1]:
        refused.append(f"extensionProviders: {name!r} is there twice")
        found.pop(name, None)
        told.pop(name, None)
    try:
        defaults = read_defaults(top, "mesh config")
    except InvalidInput as error:
        refused.append(": ".join(part for part in (error.where, error.why) if part))
        defaults = {}
    return MeshConfig(found, tuple(refused), told, defaults)


def _provider(entry: Field) -> Provider | Told | None:
    """None for one of another kind."""
    top = entry.open_object()
    name = top.need("name").checked(_name)
    kinds = [kind for kind in (*_KINDS, *KINDS) if isinstance(entry.value, Mapping) and kind in entry.value]
    if not kinds:
        return None
    if len(kinds) > 1 or len(entry.mapping()) > 2:
        raise entry.refuse("has more than one kind")
    if kinds[0] in KINDS:
        return read_told(name, kinds[0], top.need(kinds[0]))
    http = _KINDS[kinds[0]] == "http"
    spec = top.need(kinds[0]).object((*_COMMON, *(_HTTP if http else ())))
    namespace, slash, hostname = spec.need("service").text().rpartition("/")
    for complaint in (syntax.dns_label(namespace) if slash else "", syntax.dns_subdomain(hostname)):
        if complaint:
            raise spec.need("service").refuse(complaint)
    return Provider(
        name=name,
        kind=_KINDS[kinds[0]],
        hostname=hostname,
        namespace=namespace,
        port=spec.need("port").port(),
        timeout_ms=spec.read("timeout", positive_duration, _DEFAULT_MS),
        fail_open=spec.flag("failOpen"),
        status=spec.read("statusOnError", _status, 403),
        route_again=spec.flag("clearRouteCache"),
        **_body(spec),
        **(_of_http(spec) if http else {}),
    )


def _name(value: str) -> str:
    return "" if _NAME.fullmatch(value) else f"{value[:40]!r} is no name of a provider: letters, digits, . _ and -"


def _of_http(spec: Object) -> dict[str, Any]:
    added = spec.text_map("includeAdditionalHeadersInCheck", _added)
    asked = (*_names(spec, "includeHeadersInCheck"), *_names(spec, "includeRequestHeadersInCheck"))
    return {
        "path_prefix": spec.read("pathPrefix", lambda f: f.checked(_prefix), ""),
        "asked_with": asked,
        "added": tuple(sorted(added.items())),
        "upstream": spec.each("headersToUpstreamOnAllow", lambda f: f.checked(_filled)),
        "told_denied": _names(spec, "headersToDownstreamOnDeny"),
        "told_allowed": _names(spec, "headersToDownstreamOnAllow"),
    }


def _body(spec: Object) -> dict[str, Any]:
    found = spec.read(
        "includeRequestBodyInCheck", lambda f: f.object(("maxRequestBytes", "allowPartialMessage", "packAsBytes")), None
    )
    if found is None:
        return {}
    return {
        "body": found.need("maxRequestBytes").integer(1, _MOST_BODY),
        "body_in_part": found.flag("allowPartialMessage"),
        "body_packed": found.flag("packAsBytes"),
    }


def _names(spec: Object, key: str) -> tuple[str, ...]:
    return spec.each(key, lambda f: f.checked(_pattern))


def _pattern(value: str) -> str:
    plain = value.removeprefix("*") if value.startswith("*") else value.removesuffix("*")
    return "" if value == "*" else syntax.header_name(plain)


def _filled(value: str) -> str:
    """Such headers are taken from what clients send, and that can only be done by their whole names."""
    return f"{value[:40]!r}: a wildcard is not supported here" if "*" in value else syntax.header_name(value)


def _added(name: str, value: str) -> str:
    return syntax.header_name(name) or syntax.header_value(value)


def _prefix(value: str) -> str:
    return "" if value.startswith("/") and value.isprintable() and " " not in value else f"{value[:40]!r} is no path"


def _status(entry: Field) -> int:
    text = str(entry.value)
    if not text.isdecimal() or int(text) not in _STATUSES:
        raise entry.refuse(f"{text[:20]!r} is not a status of 400 to 599")
    return int(text)
