"""istio.workload.zds: the messages between node agent and ztunnel as values. Pure; descriptors travel beside them.

One message per packet of a SOCK_SEQPACKET socket, at most 1024 bytes. `AddWorkload` carries exactly one descriptor
(the pod's network namespace), every other message none. `uid` is the Kubernetes pod UID, not the xDS uid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from ambient.errors import ProtocolError
from ambient.xds.wire import message

MAX_PACKET: Final = 1024
V1: Final = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """ztunnel's first message."""

    version: int = V1


@dataclass(frozen=True, slots=True)
class AddWorkload:
    """Serve this pod; one descriptor comes with it. `name` "" when the sender has no workload info."""

    uid: str
    name: str = ""
    namespace: str = ""
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class KeepWorkload:
    """The pod exists but its namespace could not be opened; only before `SnapshotSent`."""

    uid: str


@dataclass(frozen=True, slots=True)
class DelWorkload:
    uid: str


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """Every pod of the node was named; the receiver drops those that were not."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to each request; `error` "" means done."""

    error: str = ""


Request = AddWorkload | KeepWorkload | DelWorkload | SnapshotSent


def descriptors_of(request: Request) -> int:
    """How many file descriptors must come with a request."""
    return 1 if isinstance(request, AddWorkload) else 0


def encode_hello(hello: Hello) -> bytes:
    return bytes(message("istio.workload.zds.ZdsHello")(version=hello.version).SerializeToString())


def decode_hello(packet: bytes) -> Hello:
    """Raises ProtocolError for anything but version 1."""
    hello = Hello(_parse("ZdsHello", packet).version)
    if hello.version != V1:
        raise ProtocolError("ZDS hello", why=f"version {hello.version} is not supported")
    return hello


def encode_request(request: Request) -> bytes:
    """Raises ProtocolError when the packet would be longer than a receiver's buffer."""
    wire = message("istio.workload.zds.WorkloadRequest")()
    if isinstance(request, AddWorkload):
        wire.add.uid = request.uid
        info = wire.add.workload_info
        info.name, info.namespace, info.service_account = request.name, request.namespace, request.service_account
    elif isinstance(request, KeepWorkload):
        wire.keep.uid = request.uid
    elif isinstance(request, DelWorkload):
        getattr(wire, "del").uid = request.uid
    else:
        wire.snapshot_sent.SetInParent()
    return _bounded(wire)


def decode_request(packet: bytes) -> Request:
    """Raises ProtocolError for bytes that are no request, an unknown kind or an empty uid."""
    wire = _parse("WorkloadRequest", packet)
    kind = wire.WhichOneof("payload")
    request: Request
    if kind == "add":
        info = wire.add.workload_info
        request = AddWorkload(wire.add.uid, info.name, info.namespace, info.service_account)
    elif kind == "keep":
        request = KeepWorkload(wire.keep.uid)
    elif kind == "del":
        request = DelWorkload(getattr(wire, "del").uid)
    elif kind == "snapshot_sent":
        return SnapshotSent()
    else:
        raise ProtocolError("ZDS request", why="of a kind that we do not know")
    if not request.uid:
        raise ProtocolError("ZDS request", kind, "uid is empty")
    return request


def encode_ack(ack: Ack) -> bytes:
    """The error text is cut so that the packet fits."""
    wire = message("istio.workload.zds.WorkloadResponse")()
    wire.ack.SetInParent()
    wire.ack.error = ack.error.encode()[: MAX_PACKET - 64].decode(errors="ignore")
    return _bounded(wire)


def decode_ack(packet: bytes) -> Ack:
    """Raises ProtocolError for anything but an ack."""
    wire = _parse("WorkloadResponse", packet)
    if wire.WhichOneof("payload") != "ack":
        raise ProtocolError("ZDS response", why="of a kind that we do not know")
    return Ack(wire.ack.error)


def _parse(name: str, packet: bytes) -> Any:
    try:
        return message(f"istio.workload.zds.{name}").FromString(packet)
    except DecodeError:
        raise ProtocolError("ZDS packet", name, "bytes are not that message") from None


def _bounded(wire: Any) -> bytes:
    packet = bytes(wire.SerializeToString())
    if len(packet) > MAX_PACKET:
        raise ProtocolError("ZDS packet", why=f"{len(packet)} bytes, the receiver reads at most {MAX_PACKET}")
    return packet
