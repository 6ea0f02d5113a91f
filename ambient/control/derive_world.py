"""All objects, indexed for the questions that derivation asks, and a note of what each answer rested on. Pure.

Whatever is derived asks through `World`, which notes the facts it read. A change of objects says which facts changed
(and which labelled things it selects or selected), so only what rested on them has to be derived again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ambient.control.derive_closed import closed_peer, closing
from ambient.control.derive_policy import is_sent
from ambient.control.derive_select import ByLabel, Labelled
from ambient.kube.networking import LabelSelector
from ambient.kube.objects import (
    AuthorizationPolicy,
    EndpointSlice,
    Gateway,
    GatewayClass,
    Namespace,
    PeerAuthentication,
    Pod,
    Record,
    RefusedObject,
    ServiceEntry,
    WorkloadEntry,
    record_key,
)
from ambient.kube.objects import Service as KubeService
from ambient.waypoint.deploy import INGRESS_CLASSES

R = TypeVar("R", bound=Record)
NETWORK = "topology.istio.io/network"
GLOBAL = "istio.io/global"


@dataclass(frozen=True, slots=True)
class DeriveSettings:
    """What of the mesh's configuration matters here. `network` "" means: the label of the root namespace, if any."""

    cluster_id: str = "Kubernetes"
    trust_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    domain: str = "cluster.local"
    network: str = ""
    dry_run_policies: bool = False
    trust_domain_aliases: frozenset[str] = frozenset()
    """Other names of our trust domain: principals of policies that name one of them mean all of them."""
    discovery_selectors: tuple[LabelSelector, ...] = ()
    """Namespaces that none of these fits are as if they were not there (the root namespace is always); (): all are."""

    ingress_classes: frozenset[str] = INGRESS_CLASSES
    """GatewayClasses whose Gateways are ours whoever has made them; of others the controller says whose they are."""

    @property
    def same_domains(self) -> frozenset[str]:
        """Trust domains that stand for each other; empty when there is only the one."""
        return self.trust_domain_aliases | {self.trust_domain} if self.trust_domain_aliases else frozenset()


class World:
    """The objects. `put` and `drop` change them; the rest answers, noting in `read` what was looked at."""

    def __init__(self, settings: DeriveSettings) -> None:
        self.settings = settings
        self.read: set[Hashable] = set()
        self.dirty: set[Hashable] = set()
        """Facts that changed since somebody emptied it."""
        self.touched: set[str] = set()
        """Keys of labelled things that a changed selector selects or selected."""
        self._records: dict[str, Record] = {}
        self._refused: dict[str, RefusedObject] = {}
        self._services = ByLabel()
        self._entries = ByLabel()
        self._policies = ByLabel()
        self._peers = ByLabel()
        self._wide_peers: dict[str, dict[str, PeerAuthentication]] = {}
        self._narrow_peers: dict[str, PeerAuthentication] = {}
        self._any_peers: set[str] = set()
        self._hosts: dict[str, set[str]] = {}
        self._slices: dict[str, set[str]] = {}
        self._gateways: set[str] = set()
        self._labelled = Labelled()

    # --- changing

    def put(self, record: Record) -> None:
        self.drop(record.key)
        self._records[record.key] = record
        self._index(record, present=True)

    def drop(self, key: str) -> None:
        """Forget a record; nothing when it is not there."""
        self.dirty.add(key)
        old = self._records.pop(key, None)
        if old is not None:
            self._index(old, present=False)

    def put_refused(self, refused: RefusedObject) -> None:
        self.drop_refused(refused.key)
        self._refused[refused.key] = refused
        self._index_refused(refused, present=True)

    def drop_refused(self, key: str) -> None:
        self.dirty.add(("refused", key))
        old = self._refused.pop(key, None)
        if old is not None:
            self._index_refused(old, present=False)

    def _index(self, record: Record, *, present: bool) -> None:
        match record:
            case Pod():
                self._label(record, record.labels, present=present)
            case WorkloadEntry():
                self._label(record, record.merged_labels, present=present)
                for key in (*self._services.names(record.namespace, record.merged_labels),):
                    self.dirty.add(("remote", key))
                for key in (*self._entries.names(record.namespace, record.merged_labels),):
                    self.dirty.add(("remote", key))
            case KubeService():
                if record.selector and record.type != "ExternalName":
                    self._select(self._services, record.namespace, record.selector, record.key, present=present)
            case ServiceEntry():
                self._label(record, record.labels, present=present)
                if record.selector is not None:
                    self._select(self._entries, record.namespace, record.selector, record.key, present=present)
                for host in record.hosts:
                    self._member(self._hosts, host, record.key, present=present)
                    self.dirty.add(("host", host))
                self.dirty.add("entries")
            case EndpointSlice():
                for pod in {e.target[1:] for e in record.endpoints if e.target is not None and e.target[0] == "Pod"}:
                    key = record_key("Pod", pod[0] or record.namespace, pod[1])
                    self._member(self._slices, key, record.key, present=present)
                    self.dirty.add(("slices", key))
            case Gateway() | GatewayClass():
                if isinstance(record, Gateway):
                    (self._gateways.add if present else self._gateways.discard)(record.key)
                self.dirty.add("gateways")
            case AuthorizationPolicy():
                if record.selector is not None and is_sent(record, dry_run=self.settings.dry_run_policies):
                    name = f"{record.namespace}/{record.name}"
                    self._select(self._policies, record.namespace, record.selector, name, present=present)
            case PeerAuthentication():
                self._peer(record, present=present)

    def _index_refused(self, refused: RefusedObject, *, present: bool) -> None:
        if refused.stands:
            return
        if refused.kind == PeerAuthentication.kind:
            self._peer(closed_peer(refused), present=present)
        elif refused.kind == AuthorizationPolicy.kind:
            instead = closing(refused, self.settings.root_namespace)
            if instead is not None and instead[1]:
                policy, selector = instead
                self._select(self._policies, refused.namespace, selector or {}, policy.key, present=present)

    def _label(self, record: Record, labels: Mapping[str, str], *, present: bool) -> None:
        if present:
            self._labelled.put(record.namespace, labels, record.key)
        else:
            self._labelled.discard(record.key)

    def _select(self, index: ByLabel, namespace: str, selector: Mapping[str, str], name: str, *, present: bool) -> None:
        (index.add if present else index.discard)(namespace, selector, name)
        everywhere = index is self._policies and namespace == self.settings.root_namespace
        self.touched |= self._labelled.selected(None if everywhere else namespace, selector)

    def _peer(self, record: PeerAuthentication, *, present: bool) -> None:
        (self._any_peers.add if present else self._any_peers.discard)(record.key)
        self.dirty.add("any peer")
        if record.selector is None:
            held = self._wide_peers.setdefault(record.namespace, {})
            if present:
                held[record.key] = record
            else:
                held.pop(record.key, None)
            self.dirty.add(("peers", record.namespace))
        elif record.namespace != self.settings.root_namespace:
            if present:
                self._narrow_peers[record.key] = record
            else:
                self._narrow_peers.pop(record.key, None)
            self._select(self._peers, record.namespace, record.selector, record.key, present=present)

    @staticmethod
    def _member(index: dict[str, set[str]], place: str, key: str, *, present: bool) -> None:
        if present:
            index.setdefault(place, set()).add(key)
            return
        held = index.get(place, set())
        held.discard(key)
        if not held:
            index.pop(place, None)

    # --- asking

    def find(self, kind: type[R], namespace: str, name: str) -> R | None:
        key = record_key(kind.kind, namespace, name)
        self.read.add(key)
        record = self._records.get(key)
        return record if isinstance(record, kind) else None

    def at(self, key: str) -> Record | None:
        """A record by its key."""
        self.read.add(key)
        return self._records.get(key)

    def refused(self, key: str) -> RefusedObject | None:
        self.read.add(("refused", key))
        return self._refused.get(key)

    def namespace(self, name: str) -> Namespace | None:
        return self.find(Namespace, "", name)

    @property
    def network(self) -> str:
        """The one that pods of this cluster are on. Not noted: when it changes everything is derived again."""
        root = self._records.get(record_key("Namespace", "", self.settings.root_namespace))
        return self.settings.network or (root.labels.get(NETWORK, "") if root is not None else "")

    def services_selecting(self, namespace: str, labels: Mapping[str, str]) -> list[KubeService]:
        """Services by order of key. (Selections are not noted: `touched` says whom a changed selector concerns.)"""
        found = [self._records[key] for key in sorted(self._services.names(namespace, labels))]
        return [service for service in found if isinstance(service, KubeService)]

    def entries_selecting(self, namespace: str, labels: Mapping[str, str]) -> list[ServiceEntry]:
        found = [self._records[key] for key in sorted(self._entries.names(namespace, labels))]
        return [entry for entry in found if isinstance(entry, ServiceEntry)]

    def policies_selecting(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the policies whose selector fits, sorted; those of the root namespace select everywhere."""
        names = {*self._policies.names(namespace, labels)}
        return tuple(sorted(names.union(self._policies.names(self.settings.root_namespace, labels))))

    def peers_selecting(self, namespace: str, labels: Mapping[str, str]) -> list[PeerAuthentication]:
        return [self._narrow_peers[key] for key in self._peers.names(namespace, labels)]

    def wide_peers(self, namespace: str) -> Iterable[PeerAuthentication]:
        """Those without a selector."""
        self.read.add(("peers", namespace))
        return self._wide_peers.get(namespace, {}).values()

    def has_peers(self) -> bool:
        """There is a PeerAuthentication at all."""
        self.read.add("any peer")
        return bool(self._any_peers)

    def slices_with(self, pod: Pod) -> list[EndpointSlice]:
        """EndpointSlices one of whose endpoints is this pod, by order of key."""
        self.read.add(("slices", pod.key))
        found = [self._records[key] for key in sorted(self._slices.get(pod.key, ()))]
        return [one for one in found if isinstance(one, EndpointSlice)]

    def owners(self, host: str) -> list[ServiceEntry]:
        """ServiceEntries with this host, the oldest first."""
        self.read.add(("host", host))
        found = [self._records[key] for key in self._hosts.get(host, ())]
        return sorted((one for one in found if isinstance(one, ServiceEntry)), key=age)

    def gateways(self) -> list[Gateway]:
        """Every Gateway, the oldest first."""
        self.read.add("gateways")
        found = [self._records[key] for key in self._gateways]
        return sorted((one for one in found if isinstance(one, Gateway)), key=age)

    def all_entries(self) -> list[ServiceEntry]:
        """Every ServiceEntry, the oldest first."""
        self.read.add("entries")
        found = [self._records[key] for key in {key for keys in self._hosts.values() for key in keys}]
        return sorted((one for one in found if isinstance(one, ServiceEntry)), key=age)

    def selected_entries(self, owner: Record, selector: Mapping[str, str]) -> list[WorkloadEntry]:
        """WorkloadEntries that a Service's or ServiceEntry's selector fits, by order of key."""
        self.read.add(("remote", owner.key))
        keys = sorted(self._labelled.selected(owner.namespace, selector)) if selector else []
        found = [self._records[key] for key in keys]
        return [one for one in found if isinstance(one, WorkloadEntry)]


def age(record: Record) -> tuple[str, str]:
    """To sort by: the oldest first, what was never stored last."""
    return record.created or "~", record.key
