"""networking.istio.io: ServiceEntry, WorkloadEntry and WorkloadGroup, every field known, any other refused."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.networking import Endpoint, EntryPort, ServiceEntry, WorkloadEntry, WorkloadGroup
from ambient.kube.read import Field, Object
from ambient.model.address import IpAddress, parse_ip
from ambient.model.forbidden import nowhere_below

VERSIONS: Final = tuple(f"networking.istio.io/{version}" for version in ("v1", "v1beta1", "v1alpha3"))
SHAPE: Final = Shape(VERSIONS, True, syntax.dns_subdomain, ("spec",), strict=True)

RESOLUTIONS: Final = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")
PROTOCOLS: Final = syntax.words("HTTP HTTP_PROXY HTTP2 HTTPS GRPC GRPC-WEB TCP TLS UDP MONGO MYSQL REDIS")
_ENDPOINT: Final = syntax.words("address ports labels network locality weight serviceAccount")
_SERVICE_ENTRY: Final = syntax.words(
    "hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames"
)
_PROBE: Final = syntax.words(
    "initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold httpGet tcpSocket exec grpc"
)
_MOST_WEIGHT: Final = 2**32 - 1
_MOST_HOSTS: Final = 256
_MOST_PORTS: Final = 256
_MOST_ENDPOINTS: Final = 4096
_MOST_NAMED: Final = 4096
"""Hosts times ports: each endpoint is told with all of them, to every ztunnel."""
_MOST_TOLD: Final = 100_000
"""The same times the endpoints that an entry names itself."""


def parse_service_entry(top: Object, raw: Mapping[str, Any]) -> ServiceEntry:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(_SERVICE_ENTRY)
    hosts = _hosts(spec.need("hosts"))
    resolution = spec.read("resolution", lambda field: field.one_of(RESOLUTIONS), "NONE")
    endpoints = spec.each("endpoints", lambda field: _endpoint(field.object(_ENDPOINT), needed=True))
    selector = spec.read("workloadSelector", _selector, None)
    if endpoints and selector is not None:
        raise spec.need("workloadSelector").refuse("may not stand beside endpoints")
    ports = spec.each("ports", _port)
    _check_ports(spec, ports)
    _check_size(spec, len(hosts), len(ports), len(endpoints))
    _check_resolution(spec, resolution, hosts, endpoints, ports)
    addresses = spec.each("addresses", lambda field: ip_network(field.checked(syntax.ip_block), strict=False))
    if resolution not in ("NONE", "STATIC") and any(one.prefixlen < one.max_prefixlen for one in addresses):
        raise spec.need("addresses").refuse(f"a range of addresses does not go with resolution {resolution}")
    return ServiceEntry(
        **common,
        hosts=hosts,
        addresses=addresses,
        ports=ports,
        location=spec.read("location", lambda field: field.one_of(("MESH_EXTERNAL", "MESH_INTERNAL")), "MESH_EXTERNAL"),
        resolution=resolution,
        endpoints=endpoints,
        selector=selector,
        export_to=exported(spec),
        subject_alt_names=spec.each("subjectAltNames", lambda field: field.checked(_non_empty)),
        allocated=_allocated(top, hosts),
    )


def parse_workload_entry(top: Object, raw: Mapping[str, Any]) -> WorkloadEntry:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(_ENDPOINT)
    endpoint = _endpoint(spec, needed=False)
    if not endpoint.address and not endpoint.network:
        raise Field(None, "spec.address", top.at.what).refuse("is required where no network is named")
    return WorkloadEntry(**common, endpoint=endpoint)


def parse_workload_group(top: Object, raw: Mapping[str, Any]) -> WorkloadGroup:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(("metadata", "template", "probe"))
    metadata = spec.read("metadata", lambda field: field.object(("labels", "annotations")), None)
    template = spec.need("template").object(_ENDPOINT)
    if template.get("address") is not None:
        raise template.need("address").refuse("each workload brings its own")
    probe = spec.read("probe", lambda field: field.object(_PROBE), None)
    if probe is not None and len(probe.present("httpGet", "tcpSocket", "exec", "grpc")) != 1:
        raise probe.at.refuse("a probe needs exactly one of httpGet, tcpSocket, exec and grpc")
    return WorkloadGroup(
        **common,
        entry_labels=MappingProxyType(metadata.text_map("labels", syntax.label) if metadata else {}),
        entry_annotations=MappingProxyType(metadata.text_map("annotations", syntax.annotation) if metadata else {}),
        template=_endpoint(template, needed=False),
        probe=MappingProxyType(dict(probe.at.value)) if probe else MappingProxyType({}),
    )


def exported(spec: Object) -> tuple[str, ...]:
    """exportTo: ".", "*" or names of namespaces."""
    return spec.each("exportTo", lambda field: field.checked(_export))


def _export(value: str) -> str:
    return "" if value in (".", "*", "~") else syntax.dns_label(value)


def _non_empty(value: str) -> str:
    return "" if value else "an empty value matches nothing"


def _host(value: str) -> str:
    if value == "*":
        return "'*' alone would take every host; name a domain"
    return syntax.dns_subdomain(value.removeprefix("*.").lower())


def _hosts(field: Field) -> tuple[str, ...]:
    """In lower case, as DNS does not tell cases apart."""
    items = field.items()
    if not items:
        raise field.refuse("needs at least one host")
    if len(items) > _MOST_HOSTS:
        raise field.refuse(f"{len(items)} hosts: at most {_MOST_HOSTS}")
    found: dict[str, None] = {}
    for item in items:
        host = item.checked(_host).lower()
        if host in found:
            raise field.refuse(f"{host!r} is there twice")
        found[host] = None
    return tuple(found)


def _selector(field: Field) -> Mapping[str, str]:
    labels = field.object(("labels",)).text_map("labels", syntax.label)
    if not labels:
        raise field.refuse("needs at least one label")
    return MappingProxyType(labels)


def _port(field: Field) -> EntryPort:
    entry = field.object(("number", "protocol", "name", "targetPort"))
    protocol = entry.text("protocol")
    if protocol.upper() not in (*PROTOCOLS, ""):
        raise entry.need("protocol").refuse(f"{protocol!r} is not one of {', '.join(PROTOCOLS)}")
    return EntryPort(
        entry.need("number").port(),
        entry.need("name").checked(syntax.dns_label),
        protocol.upper(),
        entry.integer("targetPort", 0, 0, 65535),
    )


def _check_ports(spec: Object, ports: tuple[EntryPort, ...]) -> None:
    names: set[str] = set()
    numbers: set[int] = set()
    for port in ports:
        if port.name in names:
            raise spec.need("ports").refuse(f"two ports are called {port.name!r}")
        if port.number in numbers:
            raise spec.need("ports").refuse(f"port {port.number} is there twice")
        names.add(port.name)
        numbers.add(port.number)


def _check_size(spec: Object, hosts: int, ports: int, endpoints: int) -> None:
    for name, count, most in (("ports", ports, _MOST_PORTS), ("endpoints", endpoints, _MOST_ENDPOINTS)):
        if count > most:
            raise spec.need(name).refuse(f"{count} {name}: at most {most}")
    if hosts * ports > _MOST_NAMED:
        raise spec.at.refuse(f"{hosts} hosts with {ports} ports each: at most {_MOST_NAMED} together")
    if hosts * ports * endpoints > _MOST_TOLD:
        told = f"{hosts} hosts with {ports} ports and {endpoints} endpoints each"
        raise spec.at.refuse(f"{told}: at most {_MOST_TOLD} together")


def _check_resolution(
    spec: Object,
    resolution: str,
    hosts: tuple[str, ...],
    endpoints: tuple[Endpoint, ...],
    ports: tuple[EntryPort, ...],
) -> None:
    if resolution == "NONE":
        if endpoints:
            raise spec.need("endpoints").refuse("resolution NONE goes to the address that was asked for")
        if any(port.target not in (0, port.number) for port in ports):
            raise spec.need("ports").refuse("a targetPort does not go with resolution NONE")
    elif resolution == "STATIC":
        for field, endpoint in zip(spec.need("endpoints").items() if endpoints else (), endpoints, strict=True):
            if not endpoint.address.startswith("unix://") and syntax.ip(endpoint.address):
                at = Field(None, f"{field.path}.address", field.what)
                raise at.refuse(f"{endpoint.address!r} is not an IP address, as resolution STATIC needs")
    elif resolution == "DYNAMIC_DNS":
        if endpoints or spec.get("workloadSelector") is not None:
            raise spec.need("resolution").refuse("DYNAMIC_DNS has no endpoints of its own")
        for host in hosts:
            if not host.startswith("*."):
                raise spec.need("hosts").refuse(f"{host!r}: DYNAMIC_DNS is for hosts that begin with '*.'")
            if nowhere_below(host.removeprefix("*.")):
                raise spec.need("hosts").refuse(f"{host!r}: below it are addresses, or names of the machine's own")
    known = {port.name for port in ports}
    for i, endpoint in enumerate(endpoints):
        for name in endpoint.ports:
            if name not in known:
                raise spec.need("endpoints").items()[i].refuse(f"no port of this entry is called {name!r}")


def _endpoint(entry: Object, *, needed: bool) -> Endpoint:
    address = entry.need("address").checked(_address) if needed else entry.read("address", _optional_address, "")
    ports = entry.get("ports")
    if address.startswith("unix://") and ports is not None:
        raise ports.refuse("a socket of this machine has no ports")
    return Endpoint(
        address=address,
        ports=MappingProxyType(_endpoint_ports(ports) if ports else {}),
        labels=MappingProxyType(entry.text_map("labels", syntax.label)),
        network=entry.text("network"),
        locality=entry.read("locality", lambda field: field.checked(_locality), ""),
        weight=entry.integer("weight", 0, 0, _MOST_WEIGHT),
        service_account=entry.read(
            "serviceAccount", lambda field: field.checked(lambda text: syntax.dns_subdomain(text) if text else ""), ""
        ),
    )


def _optional_address(field: Field) -> str:
    return field.checked(lambda value: _address(value) if value else "")


def _address(value: str) -> str:
    if value.startswith("unix://"):
        path = value.removeprefix("unix://")
        return "" if path.startswith(("/", "@")) else f"{value!r}: the path of the socket must be absolute"
    if not syntax.ip(value):
        return ""
    return f"{value!r} is neither an IP address nor a host name" if syntax.dns_subdomain(value.lower()) else ""


def _endpoint_ports(field: Field) -> dict[str, int]:
    found = {}
    for name, value in field.mapping().items():
        at = Field(value, f"{field.path}[{name}]", field.what)
        complaint = syntax.dns_label(name)
        if complaint:
            raise at.refuse(complaint)
        found[name] = at.port()
    return found


def _locality(value: str) -> str:
    parts = value.split("/")
    if value and (len(parts) > 3 or not all(parts)):
        return f"{value!r} is not region, region/zone or region/zone/subzone"
    return ""


def _allocated(top: Object, hosts: tuple[str, ...]) -> tuple[tuple[str, IpAddress], ...]:
    status = top.read("status", Field.open_object, None)
    if status is None:
        return ()
    entries = status.each("addresses", Field.open_object)
    pairs = tuple((entry.text("host").lower() or hosts[0], entry.need("value").checked(syntax.ip)) for entry in entries)
    return tuple((host, parse_ip(value)) for host, value in pairs)
