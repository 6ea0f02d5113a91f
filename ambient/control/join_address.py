"""Whose an address is, for a machine that wants to join with it: nobody takes over what belongs to somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from ambient.errors import InvalidInput, Refused
from ambient.kube.networking import ServiceEntry, WorkloadEntry
from ambient.kube.objects import Node, Pod, Record, Records, Service
from ambient.model.address import IpAddress


def check_address(address: IpAddress, records: Records) -> None:
    """Raises InvalidInput for one that others cannot reach, Refused for one that somebody has.

    A range that a ServiceEntry claims is no address of somebody's, unless it is a range of one.
    """
    if address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local:
        raise InvalidInput("address", str(address), "others cannot reach it")
    for owner, addresses in _held(records):
        if address in addresses:
            raise Refused("address", str(address), f"is that of {owner.key}")
    single, text = ip_network(address), str(address)
    for service in records.of(ServiceEntry):
        given = [other for _, other in service.allocated]
        ends = [endpoint.address for endpoint in service.endpoints]
        if not service.deleting and (single in service.addresses or address in given or text in ends):
            raise Refused("address", text, f"is that of {service.key}")
    for entry in records.of(WorkloadEntry):
        if entry.endpoint.address == text and not entry.deleting:
            raise Refused("address", text, f"is that of {entry.key}")


def _held(records: Records) -> Iterable[tuple[Record, tuple[IpAddress, ...]]]:
    yield from ((pod, pod.ips) for pod in records.of(Pod) if pod.phase not in ("Succeeded", "Failed"))
    yield from ((service, service.cluster_ips) for service in records.of(Service))
    yield from ((node, node.addresses) for node in records.of(Node))


def doubles(joined: Iterable[WorkloadEntry]) -> list[tuple[WorkloadEntry, WorkloadEntry]]:
    """The entries that came with an address that an older one has, with that: two replicas may have let them in."""
    first: dict[tuple[str, str], WorkloadEntry] = {}
    found = []
    for entry in sorted(joined, key=lambda entry: (entry.created, entry.key)):
        older = first.setdefault((entry.endpoint.network, entry.endpoint.address), entry)
        if older is not entry:
            found.append((entry, older))
    return found


class Arrivals:
    """Addresses of machines that have been let in and are not seen among the objects yet."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._held: dict[IpAddress, tuple[str, float]] = {}

    def take(self, address: IpAddress, key: str, known: Mapping[str, object], now_s: float) -> None:
        """Hold it for the entry of this key; raises Refused when another one has it."""
        self._held = {
            held: (owner, until) for held, (owner, until) in self._held.items() if until > now_s and owner not in known
        }
        if address in self._held:
            raise Refused("address", str(address), f"is that of {self._held[address][0]}")
        self._held[address] = (key, now_s + self._patience_s)

    def give_back(self, address: str) -> None:
        """It did not join after all, or has left."""
        self._held = {held: entry for held, entry in self._held.items() if str(held) != address}
