"""Model values <-> istio.workload.Address and istio.security.Authorization. Pure; knows no stream and no nonce.

Decoding is strict: a field that we cannot understand refuses that resource whole, by name and reason, because half
an understood policy is a hole. Fields that no part of us uses (extensions and `ingress_use_waypoint` of workloads and
services) are dropped. Unknown protobuf fields are new additions of the sender: harmless in an Address, never in a
policy (an old reader must not enforce half of a newer policy), unless `lax` is given (compat: istio).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from ambient.errors import InvalidInput
from ambient.model.policy import Authorization
from ambient.model.workload import Service, Workload
from ambient.xds import policies, workloads
from ambient.xds.wire import message

ADDRESS_TYPE: Final = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION_TYPE: Final = "type.googleapis.com/istio.security.Authorization"
TYPES: Final = (ADDRESS_TYPE, AUTHORIZATION_TYPE)


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it travels. `body` is the serialized message of `type_url`; `version` is opaque to the receiver.

    `aliases` are other names it can be asked for; `groups` are kept by the server only: "node:<name>" and
    "service:<key>", by which an on-demand client gets more than it asked for.
    """

    type_url: str
    name: str
    version: str
    body: bytes
    aliases: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


Record = Workload | Service | Authorization
Held = Record | Resource
"""What a catalogue holds; a Resource stands for itself, of whatever type it is."""


class Refusal(InvalidInput):
    """A resource that we do not accept; `where` is its name."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__("refused resource", where, why)


def name_of(record: Held) -> str:
    """The xDS name: uid of a workload, "namespace/hostname" of a service, "namespace/name" of a policy."""
    if isinstance(record, Resource):
        return record.name
    return record.uid if isinstance(record, Workload) else record.key


def type_of(record: Held) -> str:
    if isinstance(record, Resource):
        return record.type_url
    return AUTHORIZATION_TYPE if isinstance(record, Authorization) else ADDRESS_TYPE


def version_of(body: bytes) -> str:
    """16 hex digits that depend on the bytes alone."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def encode(record: Held) -> Resource:
    """The resource that carries `record`; equal records give equal bytes and versions."""
    if isinstance(record, Resource):
        return record
    if isinstance(record, Authorization):
        body = policies.encode(record).SerializeToString(deterministic=True)
        return Resource(AUTHORIZATION_TYPE, record.key, version_of(body), body)
    address = message("istio.workload.Address")()
    if isinstance(record, Workload):
        workloads.encode_workload(record, address.workload)
        aliases = tuple(f"{record.network}/{ip}" for ip in record.addresses)
        groups = (f"node:{record.node}", *(f"service:{key}" for key in record.services))
    else:
        workloads.encode_service(record, address.service)
        aliases, groups = tuple(str(vip) for vip in record.addresses), ()
    body = address.SerializeToString(deterministic=True)
    return Resource(ADDRESS_TYPE, name_of(record), version_of(body), body, aliases, groups)


def decode(type_url: str, name: str, body: bytes, *, lax: bool = False) -> Record:
    """Read one resource; raises Refusal. `name` "" skips the comparison of the name with the content."""
    try:
        record: Record
        if type_url == ADDRESS_TYPE:
            record = workloads.decode(message("istio.workload.Address").FromString(body))
        elif type_url == AUTHORIZATION_TYPE:
            record = policies.decode(body, lax=lax)
        else:
            raise InvalidInput(f"type {type_url!r} is not one we asked for")
    except DecodeError:
        raise Refusal(name, "bytes are not the message they claim to be") from None
    except InvalidInput as error:
        raise Refusal(name, str(error)) from None
    if name and name_of(record) != name:
        raise Refusal(name, f"its content is named {name_of(record)!r}")
    return record
