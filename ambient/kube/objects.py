"""The border: one decoded Kubernetes object in, one valid record out, or InvalidInput and nothing.

Kinds that are not in `KINDS` are refused by name. Of Kubernetes' own kinds the fields that we do not use are tolerated
when they are in a known list; of Istio's kinds every field is understood, so any other is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.kube import (
    backend_tls,
    entries,
    gateways,
    grpc_routes,
    httproutes,
    pods,
    secrets,
    security,
    services,
    slices,
    stream_routes,
    syntax,
    telemetry,
    traffic,
    virtual_services,
)
from ambient.kube.backend_tls import BackendTLSPolicy
from ambient.kube.metadata import Shape, read_common
from ambient.kube.networking import (
    DestinationRule,
    EndpointSlice,
    Gateway,
    GatewayClass,
    RequestAuthentication,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
)
from ambient.kube.read import Field, Object
from ambient.kube.records import (
    AuthorizationPolicy,
    Condition,
    ConfigMap,
    Container,
    ContainerPort,
    EnvVar,
    HttpGet,
    Namespace,
    Node,
    PeerAuthentication,
    Pod,
    Probe,
    Record,
    Records,
    RefusedObject,
    Service,
    ServiceAccount,
    ServicePort,
    TcpSocket,
    WriterState,
    record_key,
)
from ambient.kube.resource import Resource
from ambient.kube.routing import GRPCRoute, HTTPRoute, ReferenceGrant, TCPRoute, TLSRoute, VirtualService
from ambient.kube.secrets import Secret
from ambient.kube.telemetry_values import Telemetry
from ambient.model.address import parse_ip

__all__ = [
    "KINDS",
    "AuthorizationPolicy",
    "BackendTLSPolicy",
    "Condition",
    "ConfigMap",
    "Container",
    "ContainerPort",
    "DestinationRule",
    "EndpointSlice",
    "EnvVar",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "HttpGet",
    "Namespace",
    "Node",
    "PeerAuthentication",
    "Pod",
    "Probe",
    "Record",
    "Records",
    "ReferenceGrant",
    "RefusedObject",
    "RequestAuthentication",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServiceEntry",
    "ServicePort",
    "TCPRoute",
    "TLSRoute",
    "TcpSocket",
    "Telemetry",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
    "WriterState",
    "parse_object",
    "record_key",
    "resources",
]

_NAMESPACE: Final = Shape(("v1",), False, syntax.dns_label, ("spec",))
_ACCOUNT: Final = Shape(
    ("v1",), True, syntax.dns_subdomain, ("automountServiceAccountToken", "imagePullSecrets", "secrets")
)
_CONFIG_MAP: Final = Shape(("v1",), True, syntax.dns_subdomain, ("data", "binaryData", "immutable"))
_NODE: Final = Shape(("v1",), False, syntax.dns_subdomain, ("spec",))


def _namespace(top: Object, raw: Mapping[str, Any]) -> Namespace:
    common = read_common(top, _NAMESPACE, raw)
    top.read("spec", lambda field: field.object(("finalizers",)), None)
    return Namespace(**common)


def _account(top: Object, raw: Mapping[str, Any]) -> ServiceAccount:
    return ServiceAccount(**read_common(top, _ACCOUNT, raw))


def _config_map(top: Object, raw: Mapping[str, Any]) -> ConfigMap:
    return ConfigMap(
        **read_common(top, _CONFIG_MAP, raw),
        data=MappingProxyType(top.text_map("data", lambda k, _: syntax.file_key(k))),
    )


def _node(top: Object, raw: Mapping[str, Any]) -> Node:
    common = read_common(top, _NODE, raw)
    known = syntax.words("podCIDR podCIDRs providerID unschedulable taints configSource externalID")
    spec = top.read("spec", lambda field: field.object(known), None)
    cidrs: tuple[str, ...] = ()
    if spec is not None:
        cidrs = spec.each("podCIDRs", lambda field: field.checked(syntax.ip_block))
        cidrs = cidrs or tuple(c for c in (spec.read("podCIDR", lambda f: f.checked(syntax.ip_block), ""),) if c)
    status = top.read("status", Field.open_object, None)
    listed = status.each("addresses", Field.open_object) if status is not None else ()
    texts = [entry.need("address") for entry in listed if entry.text("type") in ("InternalIP", "ExternalIP")]
    return Node(**common, addresses=tuple(parse_ip(field.checked(syntax.ip)) for field in texts), pod_cidrs=cidrs)


_PARSERS: Final[Mapping[str, tuple[Shape, Callable[[Object, Mapping[str, Any]], Record], str]]] = MappingProxyType(
    {
        "Namespace": (_NAMESPACE, _namespace, "namespaces"),
        "ServiceAccount": (_ACCOUNT, _account, "serviceaccounts"),
        "ConfigMap": (_CONFIG_MAP, _config_map, "configmaps"),
        "Secret": (secrets.SHAPE, secrets.parse_secret, "secrets"),
        "Node": (_NODE, _node, "nodes"),
        "Pod": (pods.SHAPE, pods.parse_pod, "pods"),
        "Service": (services.SHAPE, services.parse_service, "services"),
        "AuthorizationPolicy": (security.SHAPE, security.parse_authorization_policy, "authorizationpolicies"),
        "PeerAuthentication": (security.SHAPE, security.parse_peer_authentication, "peerauthentications"),
        "RequestAuthentication": (security.SHAPE, traffic.parse_request_authentication, "requestauthentications"),
        "Telemetry": (telemetry.SHAPE, telemetry.parse_telemetry, "telemetries"),
        "EndpointSlice": (slices.SHAPE, slices.parse_endpoint_slice, "endpointslices"),
        "ServiceEntry": (entries.SHAPE, entries.parse_service_entry, "serviceentries"),
        "WorkloadEntry": (entries.SHAPE, entries.parse_workload_entry, "workloadentries"),
        "WorkloadGroup": (entries.SHAPE, entries.parse_workload_group, "workloadgroups"),
        "DestinationRule": (entries.SHAPE, traffic.parse_destination_rule, "destinationrules"),
        "Gateway": (gateways.SHAPE, gateways.parse_gateway, "gateways"),
        "GatewayClass": (gateways.CLASS_SHAPE, gateways.parse_gateway_class, "gatewayclasses"),
        "HTTPRoute": (httproutes.SHAPE, httproutes.parse_http_route, "httproutes"),
        "GRPCRoute": (grpc_routes.SHAPE, grpc_routes.parse_grpc_route, "grpcroutes"),
        "TCPRoute": (stream_routes.TCP_SHAPE, stream_routes.parse_tcp_route, "tcproutes"),
        "TLSRoute": (stream_routes.TLS_SHAPE, stream_routes.parse_tls_route, "tlsroutes"),
        "ReferenceGrant": (stream_routes.GRANT_SHAPE, stream_routes.parse_reference_grant, "referencegrants"),
        "BackendTLSPolicy": (backend_tls.SHAPE, backend_tls.parse_backend_tls_policy, "backendtlspolicies"),
        "VirtualService": (entries.SHAPE, virtual_services.parse_virtual_service, "virtualservices"),
    }
)
"""Of each kind its shape, its parser and its plural, the name it has in the API's paths."""

KINDS: Final = tuple(_PARSERS)


def resources(kind: str) -> tuple[Resource, ...]:
    """Where the API has objects of this kind: one per version that we read, the preferred one first."""
    shape, _, plural = _PARSERS[kind]
    return tuple(Resource(version, plural, shape.namespaced) for version in shape.versions)


def parse_object(raw: object, where: str, *, observed: bool = False) -> Record:
    """One object of a known kind from decoded JSON or YAML. `where` says where it came from ("pods.yaml: document 2").

    `observed`: it was read from a live API server, which may know more fields than we do (Istio's kinds
    are strict all the same: a field that is passed over could be the one that restricts).

    Raises InvalidInput: what = `where` and the object's kind and name, where = field path, why = the reason.
    """
    anonymous = Object(Field(raw, "", where))
    anonymous.at.mapping()
    kind = anonymous.need("kind").text()
    if kind not in _PARSERS:
        raise anonymous.need("kind").refuse(f"{kind!r} is not supported; supported are {', '.join(KINDS)}")
    shape, parser, _ = _PARSERS[kind]
    version = anonymous.need("apiVersion").text()
    if version not in shape.versions:
        raise anonymous.need("apiVersion").refuse(
            f"{version!r} does not have {kind}; expected {' or '.join(shape.versions)}"
        )
    metadata = anonymous.need("metadata").open_object()
    name = metadata.need("name").text() if metadata.get("generateName") is None else metadata.text("name")
    namespace = metadata.text("namespace", "default") if shape.namespaced else ""
    title = f"{where}: {kind} {namespace}/{name}" if namespace else f"{where}: {kind} {name}"
    assert isinstance(raw, Mapping)
    observed = observed and not shape.strict
    return parser(Object(Field(raw, "", title, observed)), raw)
