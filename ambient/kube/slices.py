"""EndpointSlice: where a service's endpoints are, as Kubernetes or somebody else's controller found them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.networking import EndpointSlice, SliceEndpoint, SlicePort
from ambient.kube.read import Field, Object
from ambient.model.address import parse_ip

SHAPE: Final = Shape(("discovery.k8s.io/v1",), True, syntax.dns_subdomain, ("addressType", "endpoints", "ports"))

_TYPES: Final = ("IPv4", "IPv6", "FQDN")
_ENDPOINT: Final = syntax.words("addresses conditions hostname targetRef deprecatedTopology nodeName zone hints")
_REFERENCE: Final = syntax.words("kind namespace name uid apiVersion resourceVersion fieldPath")
_MOST_ENDPOINTS: Final = 1000
_MOST_ADDRESSES: Final = 100
_MOST_PORTS: Final = 100


def parse_endpoint_slice(top: Object, raw: Mapping[str, Any]) -> EndpointSlice:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    kind = top.need("addressType").one_of(_TYPES)
    check = syntax.dns_subdomain if kind == "FQDN" else _of_family(4 if kind == "IPv4" else 6)
    ports = top.each("ports", _port)
    if len(ports) > _MOST_PORTS:
        raise top.need("ports").refuse(f"at most {_MOST_PORTS} entries")
    names = [port.name for port in ports]
    for name in names:
        if names.count(name) > 1:
            raise top.need("ports").refuse(f"two ports are called {name!r}")
    endpoints = top.each("endpoints", lambda field: _endpoint(field, check))
    if len(endpoints) > _MOST_ENDPOINTS:
        raise top.need("endpoints").refuse(f"at most {_MOST_ENDPOINTS} entries")
    return EndpointSlice(**common, address_type=kind, endpoints=endpoints, ports=ports)


def _of_family(version: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        return syntax.ip(value) or ("" if parse_ip(value).version == version else f"{value!r} is not IPv{version}")

    return check


def _port(field: Field) -> SlicePort:
    entry = field.object(("name", "protocol", "port", "appProtocol"))
    return SlicePort(
        entry.read("name", lambda f: f.checked(lambda text: syntax.dns_label(text) if text else ""), ""),
        entry.read("port", Field.port, None),
        entry.read("protocol", lambda f: f.one_of(("TCP", "UDP", "SCTP")), "TCP"),
    )


def _endpoint(field: Field, check: Callable[[str], str]) -> SliceEndpoint:
    entry = field.object(_ENDPOINT)
    addresses = tuple(item.checked(check) for item in entry.need("addresses").items())
    if not addresses:
        raise entry.need("addresses").refuse("needs at least one address")
    if len(addresses) > _MOST_ADDRESSES:
        raise entry.need("addresses").refuse(f"at most {_MOST_ADDRESSES} entries")
    said = entry.get("conditions")
    conditions = said.object(("ready", "serving", "terminating")) if said else Object(Field({}, "", field.what))
    ready = conditions.flag("ready", True)
    return SliceEndpoint(
        addresses=addresses,
        ready=ready,
        serving=conditions.flag("serving", ready),
        terminating=conditions.flag("terminating"),
        target=entry.read("targetRef", _target, None),
        node=entry.read("nodeName", lambda f: f.checked(syntax.dns_subdomain), ""),
        zone=entry.text("zone"),
    )


def _target(field: Field) -> tuple[str, str, str]:
    entry = field.object(_REFERENCE)
    return entry.text("kind"), entry.text("namespace"), entry.text("name")
