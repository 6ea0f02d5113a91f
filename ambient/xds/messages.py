"""The messages of delta discovery as values, and their bytes. Pure; the cores and the shells speak only in these."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """Who asks. `metadata` is NODE_NAME, NAME, NAMESPACE, CLUSTER_ID, ... to text, or to any JSON value."""

    id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node_name(self) -> str:
        name = self.metadata.get("NODE_NAME", "")
        return name if isinstance(name, str) else ""


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
    resources: Sequence[Resource] = ()
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
    extra: Iterable[tuple[str, Any]] = (),
) -> NodeInfo:
    """The identification a ztunnel sends (istiod reads the kind of client from the first part of the id).

    `extra` metadata (text or JSON values) does not replace what is our own.
    """
    ip = ip or "1.1.1.1"
    own = {"NAME": pod, "NAMESPACE": namespace, "INSTANCE_IPS": ip, "NODE_NAME": node_name, "CLUSTER_ID": cluster}
    metadata = {**dict(extra), **own}
    return NodeInfo(f"ztunnel~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local", metadata)


def encode_request(request: DeltaRequest) -> bytes:
    wire = message("envoy.service.discovery.v3.DeltaDiscoveryRequest")(
        type_url=request.type_url,
        resource_names_subscribe=request.subscribe,
        resource_names_unsubscribe=request.unsubscribe,
        response_nonce=request.nonce,
    )
    if request.node is not None:
        wire.node.id = request.node.id
        wire.node.metadata.update(dict(request.node.metadata))
    if request.error is not None:
        wire.error_detail.SetInParent()
        wire.error_detail.message = request.error
    return bytes(wire.SerializeToString()) + b"".join(_version_entries(request.versions))


def _version_entries(versions: Mapping[str, str]) -> Iterator[bytes]:
    """`initial_resource_versions` (field 5) one by one: the library would take it in one go that nothing interrupts,
    and there may be a hundred thousand. Fields of a message may come in any order."""
    for name, version in versions.items():
        key, value = name.encode(), version.encode()
        entry = b"".join((b"\x0a", _size(key), key, b"\x12", _size(value), value))
        yield b"".join((b"\x2a", _size(entry), entry))


def _size(data: bytes) -> bytes:
    """Length prefix: base 128, lowest first."""
    size, octets = len(data), bytearray()
    while size > 0x7F:
        octets.append(size & 0x7F | 0x80)
        size >>= 7
    octets.append(size)
    return bytes(octets)


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
    response = open_response(data)
    return replace(response, resources=tuple(response.resources))


def open_response(data: bytes) -> DeltaResponse:
    """Like `decode_response`, but each resource is read when it is asked for: a response may carry a whole mesh, of
    which nothing but `data` is then in memory twice. Iterating `resources` may raise ProtocolError.
    """
    spans, rest = _split(data)
    wire = _parse("DeltaDiscoveryResponse", rest)
    return DeltaResponse(
        type_url=wire.type_url,
        nonce=wire.nonce,
        resources=_Resources(data, spans),
        removed=tuple(wire.removed_resources),
        system_version=wire.system_version_info,
    )


class _Resources(Sequence[Resource]):
    """Resources that still are bytes; `spans` are begin and end of each within `data`."""

    __slots__ = ("_data", "_spans")

    def __init__(self, data: bytes, spans: array[int]) -> None:
        self._data = data
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans) // 2

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = 2 * (index % len(self))
        return _resource(self._data[self._spans[at] : self._spans[at + 1]])

    def __iter__(self) -> Iterator[Resource]:
        data, spans = self._data, self._spans
        for at in range(0, len(spans), 2):
            yield _resource(data[spans[at] : spans[at + 1]])


def _resource(data: bytes) -> Resource:
    item = _parse("Resource", data)
    return Resource(item.resource.type_url, item.name, item.version, item.resource.value, tuple(item.aliases))


_RESOURCES_TAG: Final = 0x12
"""Field 2, length-delimited."""


def _split(data: bytes) -> tuple[array[int], bytes]:
    """Where the resources of a response are, and the response without them. Raises ProtocolError."""
    spans = array("Q")
    rest: list[bytes] = []
    at = end = 0
    try:
        while at < len(data):
            begin = at
            if data[at] == _RESOURCES_TAG:
                size, at = _varint(data, at + 1)
                end = at + size
                spans.extend((at, end))
            else:
                tag, at = _varint(data, at)
                end = _skip(data, at, tag & 7)
                rest.append(data[begin:end])
            at = end
    except IndexError:
        raise _not_that_message("DeltaDiscoveryResponse") from None
    if end > len(data):
        raise _not_that_message("DeltaDiscoveryResponse")
    return spans, b"".join(rest)


def _skip(data: bytes, at: int, kind: int) -> int:
    """Where a field's value ends that begins at `at`."""
    match kind:
        case 0:
            return _varint(data, at)[1]
        case 1:
            return at + 8
        case 2:
            size, at = _varint(data, at)
            return at + size
        case 5:
            return at + 4
    raise _not_that_message("DeltaDiscoveryResponse")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends. Raises IndexError at the end of the data, ProtocolError beyond 64 bits."""
    value = shift = 0
    while True:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        at += 1
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _not_that_message("DeltaDiscoveryResponse")


def _parse(name: str, data: bytes) -> Any:
    try:
        return message(f"envoy.service.discovery.v3.{name}").FromString(data)
    except DecodeError:
        raise _not_that_message(name) from None


def _not_that_message(name: str) -> ProtocolError:
    return ProtocolError("discovery message", name, "bytes are not that message")
