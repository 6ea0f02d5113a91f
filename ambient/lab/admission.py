"""What the lab decides for an object before it is stored: its node, its addresses, whether its references exist. Pure.

`Cluster` is the state while one `apply` goes through its objects: each admitted object is there for the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ambient.errors import Refused
from ambient.kube.objects import (
    Namespace,
    Node,
    Pod,
    Record,
    Records,
    Service,
    ServiceAccount,
    parse_object,
    record_key,
)
from ambient.lab.addresses import Plan, contains, free_node_number
from ambient.lab.apply import check_pod, families, family_policy
from ambient.lab.names import Names
from ambient.model.address import IpAddress


@dataclass(slots=True)
class Cluster:
    """All objects there are so far, by key, and the nodes made on the way."""

    names: Names
    plan: Plan
    objects: dict[str, Record] = field(default_factory=dict)
    new_nodes: list[Node] = field(default_factory=list)

    @classmethod
    def of(cls, names: Names, plan: Plan, records: Records) -> Cluster:
        return cls(names, plan, dict(records.by_key))

    def all(self, kind: type[Record]) -> list[Any]:
        return [record for _, record in sorted(self.objects.items()) if isinstance(record, kind)]

    def admit(self, record: Record, raw: dict[str, Any]) -> Record:
        """The complete new object, remembered; raises Refused or InvalidInput with the reason."""
        self._check_namespace(record)
        if isinstance(record, Pod):
            raw = self._pod(record, raw)
        elif isinstance(record, Service):
            raw = self._service(record, raw)
        elif isinstance(record, Node):
            return self._node(record.name, raw)
        return self.remember(parse_object(raw, "apply"))

    def remember(self, record: Record) -> Record:
        self.objects[record.key] = record
        return record

    def _check_namespace(self, record: Record) -> None:
        if not record.namespace:
            return
        namespace = self.objects.get(record_key("Namespace", "", record.namespace))
        if namespace is None:
            raise Refused(f'namespaces "{record.namespace}" not found')
        if namespace.deleting:
            raise Refused(f'namespace "{record.namespace}" is being deleted')

    def default_account(self, namespace: Namespace) -> Record:
        """The service account every namespace has."""
        metadata = {"name": "default", "namespace": namespace.name}
        raw = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        return self.remember(parse_object(raw, "default service account"))

    # --- pods and nodes

    def _pod(self, pod: Pod, raw: dict[str, Any]) -> dict[str, Any]:
        check_pod(pod)
        self.names.pod(pod.namespace, pod.name)
        if record_key(ServiceAccount.kind, pod.namespace, pod.service_account) not in self.objects:
            account = f"{pod.namespace}/{pod.service_account}"
            raise Refused(
                f'error looking up service account {account}: serviceaccount "{pod.service_account}" not found'
            )
        wanted = self._wanted(pod)  # before a node is made for a pod that is refused
        name = pod.node_name or self._spread()
        key = record_key("Node", "", name)
        number = None if key in self.objects else self._free_number()
        number = number or self.plan.node_number(self._known_node(key).pod_cidrs)
        own: tuple[IpAddress, ...] = self.plan.node(number).both()
        ips = own if pod.host_network else wanted or self._free(number)
        if key not in self.objects:
            self._node(name, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        status = {
            "phase": "Pending",
            "hostIP": str(self.plan.node(number).v4),
            "podIP": str(ips[0]),
            "podIPs": [{"ip": str(ip)} for ip in ips],
        }
        return {**raw, "spec": {**raw["spec"], "nodeName": name}, "status": status}

    def _known_node(self, key: str) -> Node:
        node = self.objects[key]
        assert isinstance(node, Node)
        return node

    def _wanted(self, pod: Pod) -> tuple[IpAddress, ...]:
        taken = {ip: other for other in self.all(Pod) for ip in other.ips}
        networks = (*self.plan.underlay.both(), *self.plan.services.both())
        for ip in pod.wanted_ips:
            where = "metadata.annotations[ambient.mesh/pod-ips]"
            if ip in taken:
                raise Refused(where, why=f"{ip} is the address of pod {taken[ip].namespace}/{taken[ip].name}")
            if any(contains(network, ip) for network in networks):
                raise Refused(where, why=f"{ip} is in a range of nodes or services")
            if ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_link_local:
                raise Refused(where, why=f"{ip} cannot be a pod's address")
        versions = [ip.version for ip in pod.wanted_ips]
        if len(versions) != len(set(versions)):
            raise Refused("metadata.annotations[ambient.mesh/pod-ips]", why="at most one address of each family")
        return pod.wanted_ips

    def _free(self, number: int) -> tuple[IpAddress, ...]:
        return self.plan.free_pod_address(number, {ip for pod in self.all(Pod) for ip in pod.ips}).both()

    def _spread(self) -> str:
        """The node with the fewest pods; a lab without nodes gets n1 and n2."""
        nodes: list[str] = [node.name for node in self.all(Node)]
        if not nodes:
            nodes = ["n1", "n2"]
            for name in nodes:
                self._node(name, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        placed = [pod.node_name for pod in self.all(Pod)]
        return min(nodes, key=lambda name: (placed.count(name), name))

    def _free_number(self) -> int:
        return free_node_number({self.plan.node_number(node.pod_cidrs) for node in self.all(Node)})

    def _node(self, name: str, raw: Mapping[str, Any]) -> Record:
        if (raw.get("spec") or {}).get("podCIDRs") or (raw.get("spec") or {}).get("podCIDR"):
            raise Refused("spec.podCIDRs", why="a node's pod range is given by the lab")
        self.names.node(name)
        number = self._free_number()
        pods, address = self.plan.pods(number), self.plan.node(number)
        labels = {"kubernetes.io/hostname": name, **(raw["metadata"].get("labels") or {})}
        node = parse_object(
            {
                **raw,
                "metadata": {**raw["metadata"], "labels": labels},
                "spec": {
                    **(raw.get("spec") or {}),
                    "podCIDR": str(pods.v4),
                    "podCIDRs": [str(network) for network in pods.both()],
                },
                "status": {"addresses": [{"type": "InternalIP", "address": str(ip)} for ip in address.both()]},
            },
            f"node {name}",
        )
        assert isinstance(node, Node)
        self.new_nodes.append(node)
        return self.remember(node)

    # --- services

    def _service(self, service: Service, raw: dict[str, Any]) -> dict[str, Any]:
        taken = {ip: other for other in self.all(Service) for ip in other.cluster_ips if other.key != service.key}
        for ip in service.cluster_ips:
            if ip in taken:
                raise Refused("spec.clusterIPs", why=f"{ip} is the address of service {taken[ip].name}")
            if ip not in self.plan.services or ip in self.plan.dns.both():
                low, high = self.plan.services.both()
                raise Refused("spec.clusterIPs", why=f"{ip} is not a free address of the service ranges {low}, {high}")
        versions = families(service)
        if not versions:
            return raw
        fresh = self.plan.free_service_address({*taken, *self.plan.dns.both()})
        by_version: dict[int, IpAddress] = {4: fresh.v4, 6: fresh.v6, **{ip.version: ip for ip in service.cluster_ips}}
        if service.cluster_ips and not (service.ip_families or service.ip_family_policy):
            versions = tuple(ip.version for ip in service.cluster_ips)
        addresses = [str(by_version[version]) for version in versions]
        spec = {
            **raw["spec"],
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": [f"IPv{version}" for version in versions],
            "ipFamilyPolicy": family_policy(service),
        }
        return {**raw, "spec": spec}
