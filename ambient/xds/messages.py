"""The messages of delta discovery as values, and their bytes. Pure; the cores and the shells speak only in these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import DecodeError

from ambient.errors import ProtocolError
from ambient.xds.codec import Resource
from ambient.xds.wire import message

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

_NO_VERSIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Who asks. `metadata` is text to text (NODE_NAME, NAME, NAMESPACE, CLUSTER_ID, ...)."""

    id: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def node_name(self) -> str:
        return self.metadata.get("NODE_NAME", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRequest:
    """Client to server. `error` None: not a refusal; any text (even ""): the response named by `nonce` is refused."""

    type_url: str
    node: NodeInfo | None = None
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: _NO_VERSIONS)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaResponse:
    """Server to client: resources to put and names that are gone. Aliases travel only with `with_aliases`."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()
    system_version: str = ""
    with_aliases: bool = False


def ztunnel_node(
    node_name: str,
    *,
    pod: str = "ztunnel",
    namespace: str = "ambient-system",
    cluster: str = "Kubernetes",
    ip: str = "",
) -> NodeInfo:
    """The identification a ztunnel sends (istiod reads the kind of client from the first part of the id)."""
    ip = ip or "1.1.1.1"
    metadata = {"NAME": pod, "NAMESPACE": namespace, "INSTANCE_IPS": ip, "NODE_NAME": node_name, "CLUSTER_ID": cluster}
    return NodeInfo(f"ztunnel~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local", metadata)


def encode_request(request: DeltaRequest) -> bytes:
    wire = message("envoy.service.discovery.v3.DeltaDiscoveryRequest")(
        type_url=request.type_url,
        resource_names_subscribe=request.subscribe,
        resource_names_unsubscribe=request.unsubscribe,
        initial_resource_versions=dict(request.versions),
        response_nonce=request.nonce,
    )
    if request.node is not None:
        wire.node.id = request.node.id
        wire.node.metadata.update(dict(request.node.metadata))
    if request.error is not None:
        wire.error_detail.SetInParent()
        wire.error_detail.message = request.error
    return bytes(wire.SerializeToString())


def decode_request(data: bytes) -> DeltaRequest:
    """Raises ProtocolError for bytes that are no request. Metadata that is not text is left out."""
    wire = _parse("DeltaDiscoveryRequest", data)
    node = None
    if wire.HasField("node"):
        fields = wire.node.metadata.fields
        texts = {key: fields[key].string_value for key in fields if fields[key].WhichOneof("kind") == "string_value"}
        node = NodeInfo(wire.node.id, texts)
    return DeltaRequest(
        type_url=wire.type_url,
        node=node,
        subscribe=tuple(wire.resource_names_subscribe),
        unsubscribe=tuple(wire.resource_names_unsubscribe),
        versions=dict(wire.initial_resource_versions),
        nonce=wire.response_nonce,
        error=wire.error_detail.message if wire.HasField("error_detail") else None,
    )


def encode_response(response: DeltaResponse) -> bytes:
    wire = message("envoy.service.discovery.v3.DeltaDiscoveryResponse")(
        system_version_info=response.system_version,
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed,
    )
    for resource in response.resources:
        item = wire.resources.add(version=resource.version, name=resource.name)
        if response.with_aliases:
            item.aliases.extend(resource.aliases)
        item.resource.type_url = resource.type_url
        item.resource.value = resource.body
    return bytes(wire.SerializeToString())


def decode_response(data: bytes) -> DeltaResponse:
    """Raises ProtocolError for bytes that are no response."""
    wire = _parse("DeltaDiscoveryResponse", data)
    return DeltaResponse(
        type_url=wire.type_url,
        nonce=wire.nonce,
        resources=tuple(
            Resource(item.resource.type_url, item.name, item.version, item.resource.value, tuple(item.aliases))
            for item in wire.resources
        ),
        removed=tuple(wire.removed_resources),
        system_version=wire.system_version_info,
    )


def _parse(name: str, data: bytes) -> Any:
    try:
        return message(f"envoy.service.discovery.v3.{name}").FromString(data)
    except DecodeError:
        raise ProtocolError("discovery message", name, "bytes are not that message") from None
