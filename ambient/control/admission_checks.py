"""What is worth telling whoever writes an object that is valid and yet may not do what he thinks. Pure.

Warnings, never refusals: what is missing now may come a moment later, and order of arrival is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ambient.control.derive_policy import derive_policy
from ambient.control.derive_target import unfetched
from ambient.control.derive_waypoint import USE
from ambient.kube.networking import Gateway, RequestAuthentication, ServiceEntry, WorkloadEntry
from ambient.kube.objects import (
    AuthorizationPolicy,
    Namespace,
    PeerAuthentication,
    Pod,
    Record,
    Records,
    Service,
    ServiceAccount,
    record_key,
)

DATAPLANE: Final = "istio.io/dataplane-mode"
WAYPOINT_NAMESPACE: Final = "istio.io/use-waypoint-namespace"
NO_WAYPOINT: Final = "none"
_POLICY_KINDS: Final = (AuthorizationPolicy, PeerAuthentication, RequestAuthentication)


@dataclass(frozen=True, slots=True)
class View:
    """What is known of the cluster. `known` is False before everything was read: then only the object itself counts."""

    records: Records = field(default_factory=Records)
    known: bool = False
    root_namespace: str = "istio-system"
    own_namespace: str = "ambient-system"
    trust_domains: frozenset[str] = frozenset({"cluster.local"})
    dry_run: bool = False


def warnings(record: Record, view: View) -> Iterator[str]:
    """Each a sentence that names the field."""
    if isinstance(record, AuthorizationPolicy):
        yield from _at_layer_4(record, view)
        yield from _principals(record, view)
        if not record.rules and record.action == "DENY":
            yield "spec.rules: a DENY policy without rules denies nothing; to deny everything write rules: [{}]"
    if isinstance(record, RequestAuthentication):
        yield from unfetched(record)
    if isinstance(record, Namespace | Pod | Service | ServiceEntry | WorkloadEntry):
        yield from _mode(record)
    if not view.known:
        return
    if isinstance(record, _POLICY_KINDS):
        yield from _selects_nothing(record, view)
        yield from _targets(record, view)
    if isinstance(record, AuthorizationPolicy):
        yield from _callers(record, view)
    if isinstance(record, PeerAuthentication):
        yield from _ports(record, view)
        yield from _second(record, view)
    if isinstance(record, Namespace | Pod | Service | ServiceEntry | WorkloadEntry):
        yield from _waypoint(record, view)


def _at_layer_4(record: AuthorizationPolicy, view: View) -> Iterator[str]:
    """What an L4 proxy leaves out of a policy, as its condition will say."""
    if record.target_refs:
        return
    _, condition = derive_policy(record, view.root_namespace, dry_run=view.dry_run)
    if condition.reason != "Accepted" or "no boolean" in condition.message:
        yield f"spec: {condition.message}"


def _principals(record: AuthorizationPolicy, view: View) -> Iterator[str]:
    """Principals are compared as text: one of another trust domain matches no peer of this mesh."""
    seen = set()
    for rule in record.rules:
        for source in rule.sources:
            for principal in (*source.principals, *source.not_principals):
                domain, slash, _ = principal.partition("/")
                if slash and "*" not in domain and domain not in view.trust_domains and domain not in seen:
                    seen.add(domain)
                    ours = ", ".join(sorted(view.trust_domains))
                    yield f"spec.rules: no peer has a principal of trust domain {domain!r}; this mesh's is {ours}"


def _selects_nothing(record: Record, view: View) -> Iterator[str]:
    selector: Mapping[str, str] | None = getattr(record, "selector", None)
    if selector is None or any(True for _ in _selected(selector, record.namespace, view)):
        return
    labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
    where = "any namespace" if record.namespace == view.root_namespace else f"namespace {record.namespace}"
    yield f"spec.selector: no pod in {where} has the labels {labels}; the policy waits for one"


def _selected(selector: Mapping[str, str], namespace: str, view: View) -> Iterator[Pod]:
    everywhere = namespace == view.root_namespace
    for record in view.records.by_key.values():
        if not isinstance(record, Pod) or not (everywhere or record.namespace == namespace):
            continue
        if selector.items() <= record.labels.items():
            yield record


def _targets(record: Record, view: View) -> Iterator[str]:
    for ref in getattr(record, "target_refs", ()):
        namespace = ref.namespace or record.namespace
        known = record_key(ref.kind, namespace, ref.name) in view.records.by_key
        if ref.kind in ("Service", "ServiceEntry", "Gateway") and not known:
            yield f"spec.targetRefs: there is no {ref.kind} {namespace}/{ref.name} yet"
        if ref.namespace and ref.namespace != record.namespace:
            yield f"spec.targetRefs: {ref.kind} {ref.namespace}/{ref.name} is not in the namespace of the policy"


def _callers(record: AuthorizationPolicy, view: View) -> Iterator[str]:
    """Namespaces and accounts that do not exist are most often misspelt."""
    said = set()
    for rule in record.rules:
        for source in rule.sources:
            for name in (*source.namespaces, *source.not_namespaces):
                if "*" not in name and record_key("Namespace", "", name) not in view.records.by_key:
                    said.add(f"spec.rules: there is no namespace {name!r} yet")
            for account in (*source.service_accounts, *source.not_service_accounts):
                namespace, _, name = account.rpartition("/")
                if view.records.find(ServiceAccount, namespace or record.namespace, name) is None:
                    said.add(f"spec.rules: there is no service account {namespace or record.namespace}/{name} yet")
    yield from sorted(said)


def _ports(record: PeerAuthentication, view: View) -> Iterator[str]:
    """Ports of portLevelMtls are the pod's; people write the service's."""
    if record.selector is None or not record.mtls.ports:
        return
    pods = list(_selected(record.selector, record.namespace, view))
    declared = {port.port for pod in pods for container in pod.containers for port in container.ports}
    for port, _ in record.mtls.ports:
        if port in declared:
            continue
        for other in view.records.by_key.values():
            if not isinstance(other, Service) or other.namespace != record.namespace or not other.selector:
                continue
            targets = [one.target for one in other.ports if one.port == port and one.target != port]
            if targets and any(other.selector.items() <= pod.labels.items() for pod in pods):
                yield (
                    f"spec.portLevelMtls[{port}]: this is a port of Service {other.name}; the pods listen on"
                    f" {targets[0]}, and it is the pod's port that counts"
                )
                break


def _second(record: PeerAuthentication, view: View) -> Iterator[str]:
    if record.selector is not None:
        return
    for other in view.records.by_key.values():
        same = isinstance(other, PeerAuthentication) and other.namespace == record.namespace
        if same and isinstance(other, PeerAuthentication) and other.selector is None and other.name != record.name:
            yield (
                f"spec: {other.name} is for all of namespace {record.namespace} too; of several the oldest holds,"
                " the others do nothing"
            )
            return


def _mode(record: Record) -> Iterator[str]:
    mode = record.labels.get(DATAPLANE)
    if mode is not None and mode not in ("ambient", "none"):
        yield f"metadata.labels[{DATAPLANE}]: {mode!r} means nothing; write ambient or none"


def _waypoint(record: Record, view: View) -> Iterator[str]:
    name = record.labels.get(USE)
    if name is None or name == NO_WAYPOINT:
        return
    own = record.name if isinstance(record, Namespace) else record.namespace
    namespace = record.labels.get(WAYPOINT_NAMESPACE, own)
    if view.records.find(Gateway, namespace, name) is None:
        yield (
            f"metadata.labels[{USE}]: there is no Gateway {namespace}/{name}; until there is, nothing goes through"
            " a waypoint and no rule about HTTP is enforced"
        )
