"""Gateway API: Gateway and GatewayClass, as far as waypoints and gateways between networks need them.

Fields that only an HTTP proxy looks at are known and passed over; any other is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.networking import (
    ClientCheck,
    Gateway,
    GatewayClass,
    Infrastructure,
    LabelRequirement,
    LabelSelector,
    Listener,
    ObjectRef,
    TypedAddress,
)
from ambient.kube.read import Field, Object

VERSIONS: Final = ("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1")
SHAPE: Final = Shape(VERSIONS, True, syntax.dns_subdomain, ("spec",))
CLASS_SHAPE: Final = Shape(VERSIONS, False, syntax.dns_subdomain, ("spec",))

_SPEC: Final = syntax.words("gatewayClassName listeners addresses infrastructure backendTLS allowedListeners tls")
_LISTENER: Final = syntax.words("name hostname port protocol tls allowedRoutes")
_TLS: Final = syntax.words("mode certificateRefs options frontendValidation")
_FROM: Final = ("Same", "All", "Selector", "None")
_MODES: Final = ("AllowValidOnly", "AllowInsecureFallback")
_GROUP: Final = "gateway.networking.k8s.io"
_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_MOST_LISTENERS: Final = 64
_MOST_REFS: Final = 64


def parse_gateway(top: Object, raw: Mapping[str, Any]) -> Gateway:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(_SPEC)
    listeners = spec.each("listeners", _listener)
    if not listeners:
        raise Field(None, "spec.listeners", top.at.what).refuse("needs at least one listener")
    if len(listeners) > _MOST_LISTENERS:
        raise spec.need("listeners").refuse(f"at most {_MOST_LISTENERS} entries")
    names = [listener.name for listener in listeners]
    served = [(listener.port, listener.protocol, listener.hostname) for listener in listeners]
    for i, listener in enumerate(listeners):
        if listener.name in names[:i]:
            raise spec.need("listeners").refuse(f"two listeners are called {listener.name!r}")
        if served[i] in served[:i]:
            raise spec.need("listeners").refuse(
                f"{listener.name!r} has port, protocol and hostname of another listener"
            )
    status = top.read("status", Field.open_object, None)
    tls = spec.read("tls", lambda f: f.object(("backend", "frontend")), None)
    backend = tls.read("backend", lambda f: f.object(("clientCertificateRef",)), None) if tls else None
    return Gateway(
        **common,
        class_name=spec.need("gatewayClassName").checked(syntax.dns_subdomain),
        listeners=_checked_clients(tls, listeners),
        wanted=spec.each("addresses", _address),
        assigned=status.each("addresses", _address) if status else (),
        infrastructure=spec.read("infrastructure", _infrastructure, Infrastructure()),
        own=backend.read("clientCertificateRef", lambda f: _ref(f, "Secret"), None) if backend else None,
    )


def parse_gateway_class(top: Object, raw: Mapping[str, Any]) -> GatewayClass:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, CLASS_SHAPE, raw)
    spec = top.need("spec").object(("controllerName", "parametersRef", "description"))
    return GatewayClass(**common, controller=spec.need("controllerName").checked(_controller))


def label_selector(field: Field) -> LabelSelector:
    """A Kubernetes label selector: matchLabels and matchExpressions."""
    entry = field.object(("matchLabels", "matchExpressions"))
    return LabelSelector(
        MappingProxyType(entry.text_map("matchLabels", syntax.label)),
        entry.each("matchExpressions", _requirement),
    )


def _infrastructure(field: Field) -> Infrastructure:
    entry = field.object(("labels", "annotations", "parametersRef"))
    wanted = entry.read("parametersRef", lambda f: f.object(("group", "kind", "name")), None)
    return Infrastructure(
        MappingProxyType(entry.text_map("labels", syntax.label)),
        MappingProxyType(entry.text_map("annotations", syntax.annotation)),
        _parameters(wanted) if wanted else "",
    )


def _parameters(wanted: Object) -> str:
    group = wanted.text("group")
    return f"{wanted.need('kind').text()}{f'.{group}' if group else ''}/{wanted.need('name').text()}"


def _controller(value: str) -> str:
    domain, slash, path = value.partition("/")
    if not slash or not path or syntax.dns_subdomain(domain):
        return f"{value!r} is not <domain>/<path>"
    return ""


def _requirement(field: Field) -> LabelRequirement:
    entry = field.object(("key", "operator", "values"))
    operator = entry.need("operator").one_of(_OPERATORS)
    values = entry.texts("values")
    if bool(values) is not (operator in ("In", "NotIn")):
        raise field.refuse(f"{operator} needs {'at least one value' if operator in ('In', 'NotIn') else 'no values'}")
    return LabelRequirement(entry.need("key").checked(syntax.qualified_name), operator, values)


def _checked_clients(tls: Object | None, listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    """`listeners`, those that end TLS with what the Gateway says of all of them, or of their ports, about clients."""
    frontend = tls.read("frontend", lambda f: f.object(("default", "perPort")), None) if tls else None
    if frontend is None:
        return listeners
    every = frontend.read("default", _clients, None)
    ports = {
        entry.need("port").port(): entry.need("tls").object(("validation",)).read("validation", _client_check, None)
        for entry in frontend.each("perPort", lambda f: f.object(("port", "tls")))
    }
    return tuple(
        replace(one, clients=ports.get(one.port, every)) if one.protocol == "HTTPS" and one.clients is None else one
        for one in listeners
    )


def _clients(field: Field) -> ClientCheck | None:
    return field.object(("validation",)).read("validation", _client_check, None)


def _client_check(field: Field) -> ClientCheck:
    entry = field.object(("caCertificateRefs", "mode"))
    refs = entry.need("caCertificateRefs")
    found = tuple(_ref(one, "ConfigMap") for one in refs.items())
    if not 1 <= len(found) <= _MOST_REFS:
        raise refs.refuse(f"1..{_MOST_REFS} entries")
    mode = entry.read("mode", lambda f: f.one_of(_MODES), "AllowValidOnly")
    return ClientCheck(found, mode == "AllowInsecureFallback")


def _ref(field: Field, kind: str) -> ObjectRef:
    entry = field.object(("group", "kind", "name", "namespace"))
    return ObjectRef(
        entry.text("group"),
        entry.text("kind", kind),
        entry.need("name").checked(syntax.dns_subdomain),
        entry.read("namespace", lambda f: f.checked(syntax.dns_label), ""),
    )


def _listener(field: Field) -> Listener:
    entry = field.object(_LISTENER)
    tls = entry.read("tls", lambda f: f.object(_TLS), None)
    allowed, namespaces = entry.read("allowedRoutes", _allowed, ("Same", LabelSelector()))
    certificates = tls.each("certificateRefs", lambda f: _ref(f, "Secret")) if tls else ()
    if tls is not None and len(certificates) > _MOST_REFS:
        raise tls.need("certificateRefs").refuse(f"at most {_MOST_REFS} entries")
    return Listener(
        name=entry.need("name").checked(syntax.dns_subdomain),
        port=entry.need("port").port(),
        protocol=entry.need("protocol").checked(_protocol),
        hostname=entry.read("hostname", lambda f: f.checked(_hostname), ""),
        tls_mode=tls.read("mode", lambda f: f.one_of(("Terminate", "Passthrough")), "Terminate") if tls else "",
        allowed=allowed,
        namespaces=namespaces,
        certificates=certificates,
        clients=tls.read("frontendValidation", _client_check, None) if tls else None,
        kinds=entry.read("allowedRoutes", _kinds, None),
    )


def _protocol(value: str) -> str:
    return "" if value and len(value) < 256 else "a protocol has 1..255 characters"


def _hostname(value: str) -> str:
    return syntax.dns_subdomain(value.removeprefix("*.")) if value else ""


def _allowed(field: Field) -> tuple[str, LabelSelector]:
    entry = field.object(("namespaces", "kinds"))
    namespaces = entry.read("namespaces", lambda f: f.object(("from", "selector")), None)
    if namespaces is None:
        return "Same", LabelSelector()
    choice = namespaces.read("from", lambda f: f.one_of(_FROM), "Same")
    if choice == "Selector":
        return choice, label_selector(namespaces.need("selector"))
    return choice, LabelSelector()


def _kinds(field: Field) -> tuple[tuple[str, str], ...] | None:
    listed = field.object(("namespaces", "kinds")).get("kinds")
    if listed is None:
        return None
    entries = [one.object(("group", "kind")) for one in listed.items()]
    return tuple((one.text("group", _GROUP), one.need("kind").text()) for one in entries) or None


def _address(field: Field) -> TypedAddress:
    entry = field.object(("type", "value"))
    kind = entry.text("type", "IPAddress")
    value = entry.text("value")
    if kind == "IPAddress" and value and syntax.ip(value):
        raise entry.need("value").refuse(syntax.ip(value))
    if kind == "Hostname" and value and syntax.dns_subdomain(value):
        raise entry.need("value").refuse(syntax.dns_subdomain(value))
    return TypedAddress(kind, value)
