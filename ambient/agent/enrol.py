"""Which pods of this node belong in the mesh, how each is captured, and what has to be done about it.

Pure: objects and what is enrolled now in, actions out. May not do I/O, look at a clock, or know how an action is
carried out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ambient.kube.records import Namespace, Pod, record_key
from ambient.model.address import IpAddress

MODE_LABEL: Final = "istio.io/dataplane-mode"
REDIRECTION_ANNOTATION: Final = "ambient.istio.io/redirection"
SIDECAR_ANNOTATION: Final = "sidecar.istio.io/status"
BYPASS_INBOUND_ANNOTATION: Final = "ambient.istio.io/bypass-inbound-capture"
DNS_CAPTURE_ANNOTATION: Final = "ambient.istio.io/dns-capture"
FAIL_MODE_ANNOTATION: Final = "ambient.mesh/fail-mode"
SAME_NODE: Final = "ambient.mesh/same-node"
"""Label or annotation of a namespace, annotation of a pod: "kernel" or "tunnel"; the pod's word counts first, then the
namespace's, then the node's setting."""
_TERMINAL: Final = frozenset({"Succeeded", "Failed"})


class NotEnrolled(StrEnum):
    """Why a pod stays out of the mesh."""

    OTHER_NODE = "runs-on-another-node"
    TERMINAL = "has-ended"
    HOST_NETWORK = "uses-the-host-network"
    SIDECAR = "has-a-sidecar"
    EXCLUDED_NAMESPACE = "namespace-is-excluded"
    ZTUNNEL = "is-ztunnel"
    OPTED_OUT = "opted-out-by-label"
    NOT_LABELLED = "not-labelled"
    NO_ADDRESS = "has-no-address-yet"
    ADDRESS_TAKEN = "address-is-held-by-another-pod"
    UNREADABLE = "its-object-or-namespace-is-invalid"
    NO_SANDBOX = "its-sandbox-was-taken-down"


_LEFT_AS_IT_IS: Final = frozenset({NotEnrolled.NO_ADDRESS, NotEnrolled.UNREADABLE})
_OVER: Final = frozenset({NotEnrolled.TERMINAL, NotEnrolled.NO_SANDBOX})
NO_SANDBOXES: Final[Mapping[str, tuple[IpAddress, ...]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides on this node besides the objects. `mesh_namespace` is where ztunnel itself runs."""

    node: str
    mesh_namespace: str = "ambient-system"
    excluded_namespaces: frozenset[str] = frozenset({"kube-system"})
    dns_capture: bool = True
    same_node: str = "tunnel"


@dataclass(frozen=True, slots=True)
class Capture:
    """How an enrolled pod's traffic is taken. `fail_open`: without ztunnel, traffic goes on directly. `direct`: between
    it and pods of its node it may take the kernel path."""

    inbound: bool = True
    dns: bool = True
    fail_open: bool = False
    direct: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTarget:
    """A pod that has to be in the mesh. `addresses` is never empty and keeps the order of the pod's status."""

    uid: str
    namespace: str
    name: str
    service_account: str
    addresses: tuple[IpAddress, ...]
    capture: Capture = Capture()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Enrol:
    """Bring the pod in, or back in while it is being released."""

    pod: PodTarget


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """An enrolled pod is to be captured differently or has other addresses; its connections go on."""

    pod: PodTarget


@dataclass(frozen=True, slots=True)
class Release:
    """The pod runs on outside the mesh: let its proxied connections end, then take everything out."""

    uid: str
    why: NotEnrolled


@dataclass(frozen=True, slots=True)
class Gone:
    """The pod is no more: its addresses may belong to another pod already; take everything out at once."""

    uid: str
    why: str


Action = Enrol | UpdateRow | Release | Gone


@dataclass(frozen=True, slots=True)
class Held:
    """A pod that is in the mesh or on its way in or out."""

    pod: PodTarget
    releasing: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`actions` in the order to start them; `out` says why each other pod of the node is not in the mesh."""

    actions: tuple[Action, ...]
    out: Mapping[str, NotEnrolled] = field(default_factory=lambda: MappingProxyType({}))


def target(pod: Pod, namespace: Namespace | None, rules: Rules, *, policies_apply: bool) -> PodTarget | NotEnrolled:
    """How this pod should be enrolled, or why not.

    `policies_apply` is True when STRICT or any policy selects the pod, or when that is not known yet: then the pod
    fails closed whatever its annotation says.
    """
    out = _kept_out(pod, namespace, rules)
    if out is not None:
        return out
    dns = pod.annotations.get(DNS_CAPTURE_ANNOTATION)
    return PodTarget(
        uid=pod.uid,
        namespace=pod.namespace,
        name=pod.name,
        service_account=pod.service_account,
        addresses=pod.ips,
        capture=Capture(
            inbound=pod.annotations.get(BYPASS_INBOUND_ANNOTATION) != "true",
            dns=dns == "true" if dns in ("true", "false") else rules.dns_capture,
            fail_open=pod.annotations.get(FAIL_MODE_ANNOTATION) == "open" and not policies_apply,
            direct=_same_node(pod, namespace, rules) == "kernel",
        ),
    )


def _same_node(pod: Pod, namespace: Namespace | None, rules: Rules) -> str:
    """What is not understood asks for the tunnel."""
    said = [pod.annotations.get(SAME_NODE)]
    if namespace is not None:
        said += [namespace.labels.get(SAME_NODE), namespace.annotations.get(SAME_NODE)]
    return next((one for one in said if one is not None), rules.same_node)


def _kept_out(pod: Pod, namespace: Namespace | None, rules: Rules) -> NotEnrolled | None:
    mode = pod.labels.get(MODE_LABEL)
    namespace_mode = namespace.labels.get(MODE_LABEL) if namespace is not None else None
    if pod.node_name != rules.node:
        return NotEnrolled.OTHER_NODE
    if pod.phase in _TERMINAL:
        return NotEnrolled.TERMINAL
    if pod.host_network:
        return NotEnrolled.HOST_NETWORK
    if SIDECAR_ANNOTATION in pod.annotations:
        return NotEnrolled.SIDECAR
    if pod.namespace in rules.excluded_namespaces:
        return NotEnrolled.EXCLUDED_NAMESPACE
    if pod.namespace == rules.mesh_namespace and pod.labels.get("app") == "ztunnel":
        return NotEnrolled.ZTUNNEL
    if mode == "none":
        return NotEnrolled.OPTED_OUT
    if mode != "ambient" and namespace_mode != "ambient":
        return NotEnrolled.NOT_LABELLED
    return None if pod.ips else NotEnrolled.NO_ADDRESS


def plan(
    pods: Iterable[Pod],
    namespaces: Mapping[str, Namespace],
    held: Mapping[str, Held],
    rules: Rules,
    policies_apply: Mapping[str, bool],
    unreadable: frozenset[str] = frozenset(),
    *,
    sandboxes: Mapping[str, tuple[IpAddress, ...]] = NO_SANDBOXES,
    ended: Collection[str] = frozenset(),
) -> Plan:
    """The actions that lead from `held` (by uid) to what the objects ask for.

    `policies_apply` by pod uid; a pod that is not in it counts as selected. `unreadable` holds the record keys of
    objects that are stored but invalid: what we cannot read neither joins nor leaves the mesh. Pods that are gone come
    first, so that their addresses are free for the pods that enrol; of two living pods with one address the one that is
    held keeps it. `sandboxes` are the addresses that the runtime gave pods at their start: they count before those of
    a pod's status, which comes later and may still be of the sandbox before. A held pod that has neither for a moment
    keeps those it is held with. A pod in `ended` has no sandbox until another one starts.
    """
    out: dict[str, NotEnrolled] = {}
    targets: dict[str, PodTarget] = {}
    for uid, entry in held.items():
        if {record_key("Pod", entry.pod.namespace, entry.pod.name), _namespace_key(entry.pod.namespace)} & unreadable:
            out[uid] = NotEnrolled.UNREADABLE
    for pod in pods:
        if pod.uid in out or _namespace_key(pod.namespace) in unreadable:
            out[pod.uid] = NotEnrolled.UNREADABLE
            continue
        if pod.uid in ended:
            out[pod.uid] = NotEnrolled.NO_SANDBOX
            continue
        if pod.uid in sandboxes:
            pod = replace(pod, ips=sandboxes[pod.uid])
        elif not pod.ips and pod.uid in held:
            pod = replace(pod, ips=held[pod.uid].pod.addresses)
        answer = target(pod, namespaces.get(pod.namespace), rules, policies_apply=policies_apply.get(pod.uid, True))
        if isinstance(answer, PodTarget):
            targets[pod.uid] = answer
        elif answer is not NotEnrolled.OTHER_NODE:
            out[pod.uid] = answer
    gone = [uid for uid in held if uid not in targets and out.get(uid, NotEnrolled.TERMINAL) in _OVER]
    release = [
        uid
        for uid in held
        if uid in out and out[uid] not in _LEFT_AS_IT_IS and uid not in gone and not held[uid].releasing
    ]
    owners = {ip: uid for uid in held if uid not in gone for ip in held[uid].pod.addresses}
    actions: list[Action] = [Gone(uid, out[uid].value if uid in out else "was-deleted") for uid in gone]
    actions += [Release(uid, out[uid]) for uid in release]
    for uid, wanted in sorted(targets.items(), key=lambda item: (item[1].namespace, item[1].name, item[0])):
        if any(owners.get(ip, uid) != uid for ip in wanted.addresses):
            out[uid] = NotEnrolled.ADDRESS_TAKEN
            if uid in held and not held[uid].releasing:
                actions.append(Release(uid, NotEnrolled.ADDRESS_TAKEN))
            continue
        owners.update(dict.fromkeys(wanted.addresses, uid))
        now = held.get(uid)
        if now is None or now.releasing:
            actions.append(Enrol(wanted))
        elif now.pod != wanted:
            actions.append(UpdateRow(wanted))
    return Plan(tuple(actions), out)


def _namespace_key(name: str) -> str:
    return record_key("Namespace", "", name)
