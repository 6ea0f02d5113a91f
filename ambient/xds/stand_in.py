"""What takes the place of an address that was refused and of which there is no good version. Pure.

Without it nobody would have the address, and what nobody has is dialled in clear. The stand-in keeps whatever of the
refused resource says where it is (addresses, names, the services it is behind), read as far as it can be; everything
that leads there is refused, and nothing else of it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from ambient.errors import InvalidInput
from ambient.model.address import IpAddress, parse_ip
from ambient.model.workload import NetworkAddress, NetworkMode, Port, Service, Visibility, Workload
from ambient.xds.fields import read_ip
from ambient.xds.wire import message


def closed_address(name: str, body: bytes, why: str) -> Workload | Service | None:
    """A stand-in for the refused Address `name`; None without a name."""
    if not name:
        return None
    try:
        wire = message("istio.workload.Address").FromString(body)
        kind = wire.WhichOneof("type")
    except DecodeError:
        wire, kind = None, None
    namespace, slash, hostname = name.partition("/")
    if kind == "service" or (kind is None and slash and namespace and hostname and "/" not in hostname):
        return _service(namespace, hostname, wire.service if kind else None, why) if namespace and hostname else None
    return _workload(name, wire.workload if kind else None, why)


def _workload(uid: str, wire: Any, why: str) -> Workload:
    if wire is None:
        # Some names end with the address they are about.
        return Workload(uid=uid, name="", namespace="", addresses=tuple(_parsed(uid.rpartition("/")[2])), refused=why)
    keys = (key for key in wire.services if key.count("/") == 1 and all(key.split("/")))
    none: tuple[Port, ...] = ()
    return Workload(
        uid=uid,
        name=wire.name,
        namespace=wire.namespace,
        addresses=tuple(_readable(wire.addresses)),
        network=wire.network,
        node=wire.node,
        hostname=wire.hostname,
        services=MappingProxyType(dict.fromkeys(keys, none)),
        network_mode=NetworkMode.HOST_NETWORK if wire.network_mode == 1 else NetworkMode.STANDARD,
        refused=why,
    )


def _service(namespace: str, hostname: str, wire: Any, why: str) -> Service | None:
    if "/" in hostname:
        return None
    if wire is None:
        return Service(name="", namespace=namespace, hostname=hostname, refused=why)
    vips = []
    for vip in wire.addresses:
        length = vip.length if vip.HasField("length") else None
        for ip in _readable((vip.address,)):
            # A block of which the length makes no sense is closed at the one address that is certain.
            sane = length is None or length <= ip.max_prefixlen == len(vip.address) * 8
            vips.append(NetworkAddress(vip.network, ip, length if sane else None))
    return Service(
        name=wire.name,
        namespace=namespace,
        hostname=hostname,
        addresses=tuple(vips),
        canonical=wire.canonical,
        visibility=Visibility.NAMESPACE if wire.visibility == Visibility.NAMESPACE else Visibility.PUBLIC,
        refused=why,
    )


def _readable(raw: Iterable[bytes]) -> Iterable[IpAddress]:
    for one in raw:
        try:
            yield read_ip(one, "address")
        except InvalidInput:
            continue


def _parsed(text: str) -> Iterable[IpAddress]:
    try:
        yield parse_ip(text)
    except InvalidInput:
        return
