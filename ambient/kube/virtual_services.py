"""networking.istio.io: VirtualService, read whole into the rules that routes have. What a waypoint cannot tell of a
request is refused, for a match that is passed over would fit too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.durations import istio_duration, positive_duration
from ambient.kube.entries import SHAPE, exported
from ambient.kube.metadata import read_common
from ambient.kube.read import Field, Object
from ambient.kube.route_parts import few
from ambient.kube.routing import (
    Answer,
    BackendRef,
    HeaderEdit,
    Mirror,
    Retry,
    RouteRule,
    StreamRule,
    VirtualRule,
    VirtualService,
)
from ambient.kube.traffic_policy import percentage
from ambient.kube.virtual_matches import request_matches, stream_matches
from ambient.kube.virtual_parts import cors_policy, fault, header_edit, redirect, rewrite

_SPEC: Final = syntax.words("hosts gateways exportTo http tls tcp")
_RULE: Final = syntax.words(
    "name match route redirect directResponse rewrite timeout retries fault mirror mirrors mirrorPercentage"
    " mirrorPercent mirror_percent corsPolicy headers"
)
_DESTINATION: Final = syntax.words("host subset port")
_RETRIES: Final = syntax.words("attempts perTryTimeout retryOn retryRemoteLocalities retryIgnorePreviousHosts backoff")
_RETRY_ON: Final = syntax.words(
    "5xx gateway-error reset reset-before-request connect-failure envoy-ratelimited retriable-4xx refused-stream"
    " retriable-status-codes cancelled deadline-exceeded internal resource-exhausted unavailable"
)
_MOST_RULES: Final = 128
_MOST_MATCHES: Final = 256
_MOST_DESTINATIONS: Final = 512
_MOST_BODY: Final = 4096


def parse_virtual_service(top: Object, raw: Mapping[str, Any]) -> VirtualService:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(_SPEC)
    hosts = few(spec, "hosts", lambda field: field.checked(_host), 256)
    gateways = spec.texts("gateways")
    http = few(spec, "http", _rule, _MOST_RULES)
    if sum(len(one.ports) for one in http) > _MOST_MATCHES:
        raise spec.need("http").refuse(f"at most {_MOST_MATCHES} matches in all rules together")
    _few_destinations(spec, "http", (len(one.rule.backends) + len(one.rule.mirrors) for one in http))
    streams = [*_streams(spec, "tls"), *_streams(spec, "tcp")]
    if not http and not streams:
        raise spec.at.refuse("needs at least one of http, tls and tcp")
    return VirtualService(
        **common,
        hosts=hosts,
        export_to=exported(spec),
        mesh=not gateways or "mesh" in gateways,
        http=http,
        streams=tuple(streams),
    )


def _streams(spec: Object, key: str) -> list[StreamRule]:
    rules = few(spec, key, lambda field: _stream(field, tls=key == "tls"), _MOST_RULES)
    found = [one for rule in rules for one in rule]
    _few_destinations(spec, key, (len(one.backends) for one in found))
    return found


def _few_destinations(spec: Object, key: str, counts: Iterable[int]) -> None:
    """Of requests they are counted by rule, of connections by match."""
    if sum(counts) > _MOST_DESTINATIONS:
        raise spec.need(key).refuse(f"at most {_MOST_DESTINATIONS} destinations in all rules together")


def _host(value: str) -> str:
    return "" if value == "*" else syntax.dns_subdomain(value.removeprefix("*.").lower())


def _rule(field: Field) -> VirtualRule:
    entry = field.object(_RULE)
    entry.text("name")
    found = request_matches(entry)
    backends = few(entry, "route", _weighted, 64)
    answers = entry.present("redirect", "directResponse", "route")
    if len(answers) != 1:
        raise field.refuse("needs exactly one of route, redirect and directResponse")
    if len(backends) > 1 and not sum(one.weight for one in backends):
        raise entry.need("route").refuse("all weights are 0")
    if len(backends) == 1 and not entry.need("route").items()[0].open_object().present("weight"):
        backends = (replace(backends[0], weight=1),)
    edit = entry.read("headers", _headers, (HeaderEdit(), HeaderEdit()))
    matches = tuple(match for match, _ in found)
    made = RouteRule(
        matches=matches,
        backends=backends,
        request=edit[0],
        response=edit[1],
        redirect=entry.read("redirect", redirect, None),
        rewrite=entry.read("rewrite", rewrite, None),
        mirrors=_mirrors(entry),
        timeout_ms=entry.read("timeout", istio_duration, None),
        retry=entry.read("retries", _retry, None),
        cors=entry.read("corsPolicy", cors_policy, None),
        fault=entry.read("fault", fault, None),
        answer=entry.read("directResponse", _answer, None),
    )
    if made.rewrite is not None and not backends:
        raise entry.need("rewrite").refuse("may not stand without a route")
    return VirtualRule(made, tuple(port for _, port in found))


def _headers(field: Field) -> tuple[HeaderEdit, HeaderEdit]:
    entry = field.object(("request", "response"))
    return entry.read("request", header_edit, HeaderEdit()), entry.read("response", header_edit, HeaderEdit())


def _weighted(field: Field) -> BackendRef:
    entry = field.object(("destination", "weight", "headers"))
    request, response = entry.read("headers", _headers, (HeaderEdit(), HeaderEdit()))
    found = replace(_destination(entry.need("destination"), wild=True), request=request, response=response)
    return replace(found, weight=entry.integer("weight", 0, 0, 1_000_000))


def _destination(field: Field, *, wild: bool = False) -> BackendRef:
    """`wild`: it may begin with "*."."""
    entry = field.object(_DESTINATION)
    port = entry.read("port", lambda f: f.object(("number",)).need("number").port(), 0)
    head = "*." if wild else ""
    host = entry.need("host").checked(lambda value: syntax.dns_subdomain(value.lower().removeprefix(head))).lower()
    subset = entry.read("subset", lambda f: f.checked(syntax.dns_label), "")
    return BackendRef(host, port, kind="Hostname", subset=subset)


def _mirrors(entry: Object) -> tuple[Mirror, ...]:
    one = entry.read("mirror", _destination, None)
    if one is None:
        return few(entry, "mirrors", _mirror)
    if entry.present("mirrors"):
        raise entry.need("mirrors").refuse("may not stand beside mirror")
    for key in ("mirrorPercent", "mirror_percent"):
        if entry.present(key):
            return (Mirror(one, entry.integer(key, 100, 0, 100) * 10_000),)
    return (Mirror(one, entry.read("mirrorPercentage", _share, 1_000_000)),)


def _mirror(field: Field) -> Mirror:
    entry = field.object(("destination", "percentage"))
    return Mirror(_destination(entry.need("destination")), entry.read("percentage", _share, 1_000_000))


def _share(field: Field) -> int:
    return round(field.object(("value",)).read("value", percentage, 0.0) * 10_000)


def _answer(field: Field) -> Answer:
    entry = field.object(("status", "body"))
    body = entry.read("body", lambda f: f.object(("string", "bytes")), None)
    text = ""
    if body is not None:
        if body.present("bytes"):
            raise body.need("bytes").refuse("not supported: give it as string")
        text = body.need("string").text()
        if len(text.encode()) > _MOST_BODY:
            raise body.need("string").refuse(f"longer than {_MOST_BODY} bytes")
    return Answer(entry.need("status").integer(200, 599, "a status"), text)


def _retry(field: Field) -> Retry:
    entry = field.object(_RETRIES)
    reasons: list[str] = []
    codes: list[int] = []
    for word in [part.strip() for part in entry.text("retryOn").split(",") if part.strip()]:
        if word.isascii() and word.isdigit() and 100 <= int(word) <= 599:
            codes.append(int(word))
        elif word in _RETRY_ON:
            reasons.append(word)
        else:
            raise entry.need("retryOn").refuse(f"{word[:40]!r} is no reason to retry, nor a status")
    return Retry(
        entry.integer("attempts", 2, 0, 100),
        tuple(dict.fromkeys(codes)),
        tuple(dict.fromkeys(reasons)),
        entry.read("backoff", positive_duration, None),
        entry.read("perTryTimeout", positive_duration, None),
    )


def _stream(field: Field, *, tls: bool) -> tuple[StreamRule, ...]:
    entry = field.object(("match", "route"))
    backends = few(entry, "route", _weighted, 64)
    if not backends:
        raise field.refuse("needs a route")
    if len(backends) == 1:
        backends = (replace(backends[0], weight=1),)
    return tuple(StreamRule(backends, names, port) for names, port in stream_matches(entry, tls=tls))
