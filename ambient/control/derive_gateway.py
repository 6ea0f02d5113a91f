"""What each ingress gateway serves, and what is said of its listeners and of the routes on it. Pure, but that good
certificates are remembered.

What cannot be served as it is written is not served, and said where it is written; everything else is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ambient.control.derive_attached import ANY, GROUP, SERVED, Face, attach, faces
from ambient.control.derive_backends import Judged, Unresolved
from ambient.control.derive_evidence import EvidenceStore, Missing
from ambient.control.derive_sites import MOST_ADDED, Behind, behind
from ambient.control.gateway_evidence import granted as permitted
from ambient.control.gateway_pools import Pools
from ambient.kube.networking import Gateway, Listener, ObjectRef
from ambient.kube.objects import Condition, Namespace, Records
from ambient.kube.policies import TargetRef
from ambient.kube.routing import AttachedRoute, ParentRef, RequestRoute, StreamRoute
from ambient.kube.status_values import ListenerStatus, ParentStatus
from ambient.waypoint.door import Clients, Door, GatewayView, Topology
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Front

HOPS: Final = "ambient.mesh/trusted-proxies"
PROXY_PROTOCOL: Final = "ambient.mesh/proxy-protocol"
_CORE: Final = ("", "core")
_MOST_HOPS: Final = 10
_SLICE: Final = 50
"""Routes looked at in one go: some milliseconds."""
_LEFT: Final = Condition(
    "PartiallyInvalid",
    "True",
    "UnsupportedValue",
    f"not tried for host names more exact than its own: routes of a namespace may add {MOST_ADDED} to these on a "
    "Gateway (matches times host names), and those of its older routes are that many",
)


@dataclass(frozen=True, slots=True)
class Told:
    """A gateway, derived. `parents`: by key of the route, of each of its parents that is this Gateway."""

    view: GatewayView
    listeners: tuple[ListenerStatus, ...]
    parents: Mapping[str, tuple[ParentStatus, ...]]
    accepted: Condition
    programmed: bool

    @property
    def resolved(self) -> bool:
        """All that its listeners refer to is there."""
        said = (one for listener in self.listeners for one in listener.conditions)
        return all(one.status == "True" for one in said if one.type == "ResolvedRefs")

    def listeners_with(self, refused: Mapping[str, tuple[str, bool]]) -> tuple[ListenerStatus, ...]:
        """What is said of them where proxies refuse what they rest on: why, by name, and whether they had a good one
        before."""
        if not refused:
            return self.listeners
        doors = {one.name: one for one in self.view.doors}
        return tuple(
            _with_refused(one, doors[one.name], refused) if one.name in doors else one for one in self.listeners
        )


@dataclass(frozen=True, slots=True)
class Laid:
    """A Gateway with the routes that are on its listeners: nothing of that changes with endpoints, keys, certificates.
    `behind`: of listeners that can be served, by name. `parents`: as in Told."""

    gateway: Gateway
    faces: tuple[Face, ...]
    behind: Mapping[str, Behind]
    parents: Mapping[str, tuple[ParentStatus, ...]]


@dataclass(slots=True)
class _Build:
    """What comes together while the listeners of one Gateway are looked at."""

    evidence: dict[str, Evidence] = field(default_factory=dict)
    wanted: set[tuple[str, int]] = field(default_factory=set)
    doors: list[Door] = field(default_factory=list)
    listeners: list[ListenerStatus] = field(default_factory=list)


class Gateways:
    """`update` with every snapshot, then for any Gateway `laying`, and `told` of what is laid."""

    def __init__(self, trust_domains: tuple[str, ...]) -> None:
        self._trust_domains = trust_domains
        self._records = Records()
        self.evidence = EvidenceStore()

    def update(self, records: Records) -> None:
        self._records = records
        self.evidence.update(records)

    def laying(
        self,
        gateway: Gateway,
        routes: Collection[AttachedRoute],
        pools: Pools,
        more: Callable[[AttachedRoute], tuple[Condition, ...]] = lambda route: (),
    ) -> Generator[None, None, Laid]:
        """In small steps. `routes`: all there are; `pools`: the services that they may lead to; `more(route)`: what
        else is to be said of a route."""
        found = faces(gateway)
        parents: dict[str, tuple[ParentStatus, ...]] = {}
        for number, route in enumerate(routes):
            said = list(attach(route, gateway, found, self._lets))
            if said:
                resolved = _resolved(route, pools)
                told = (ParentStatus(_written(route, one), (ok, resolved, *more(route))) for one, ok in said)
                parents[route.key] = tuple(told)
            if number % _SLICE == 0:
                yield
        led: dict[str, Behind] = {}
        added: Counter[str] = Counter()
        for face in found:
            if face.usable:
                peers = [one for one in found if one.usable and one.listener.port == face.listener.port]
                led[face.listener.name] = yield from behind(face, peers, pools, added)
        for key in frozenset[str]().union(*(one.left for one in led.values())):
            parents[key] = tuple(replace(one, conditions=(*one.conditions, _LEFT)) for one in parents[key])
        return Laid(gateway, tuple(found), led, parents)

    def told(self, laid: Laid, pools: Pools, judged: Judged, limiter: Front | None = None) -> Told:
        """`pools`: the services that its routes may lead to, as they are now; `judged`: what has to be passed;
        `limiter`: who counts for all proxies."""
        gateway, found = laid.gateway, laid.faces
        build = _Build()
        for face in found:
            self._listener(laid, face, build)
        usable = [one for one in found if one.usable]
        view = GatewayView(
            gateway.namespace,
            gateway.name,
            self._trust_domains,
            tuple(build.doors),
            *pools.wanted(build.wanted),
            evidence=tuple(one for _, one in sorted(build.evidence.items())),
            policies=judged.policies,
            tokens=judged.tokens,
            topology=topology(gateway),
            limiter=limiter,
        )
        accepted = Condition("Accepted", "True", "Accepted", "Resource accepted")
        if len(usable) < len(found):
            which = ", ".join(one.listener.name for one in found if not one.usable)
            status = "True" if usable else "False"
            accepted = Condition("Accepted", status, "ListenersNotValid", f"not served: {which}")
        return Told(view, tuple(build.listeners), laid.parents, accepted, bool(build.doors))

    def _lets(self, gateway: Gateway, listener: Listener, namespace: str) -> bool:
        match listener.allowed:
            case "All":
                return True
            case "Same":
                return namespace == gateway.namespace
            case "Selector":
                asking = self._records.find(Namespace, "", namespace)
                labels = dict(asking.labels) if asking is not None else {}
                return listener.namespaces.fits({"kubernetes.io/metadata.name": namespace, **labels})
        return False

    def _listener(self, laid: Laid, face: Face, build: _Build) -> None:
        gateway, listener = laid.gateway, face.listener
        wrong: list[Missing] = []
        door = Door(listener.name, listener.port, listener.protocol, listener.hostname)
        if listener.protocol == "HTTPS":
            door, wrong = self._proved(gateway, listener, door, build)
        # Where it is to be known who clients are, and nobody vouches for any, nobody could be told from anybody.
        unknown = listener.protocol == "HTTPS" and listener.clients is not None and door.clients is None
        served = face.usable and not unknown and (listener.protocol != "HTTPS" or bool(door.certificates))
        if served:
            led = laid.behind[listener.name]
            elsewhere = tuple(_elsewhere(face, laid.faces))
            door = replace(door, sites=led.sites, destinations=led.destinations, elsewhere=elsewhere)
            build.doors.append(door)
            build.wanted |= led.wanted
        build.listeners.append(_said(face, wrong, served, unknown=unknown))

    def _proved(self, gateway: Gateway, listener: Listener, door: Door, build: _Build) -> tuple[Door, list[Missing]]:
        """The door with what it proves itself with, and what of that is wrong."""
        wrong, names = [], []

        def granted(ref: ObjectRef) -> bool:
            return permitted(self._records, gateway, ref)

        for ref in listener.certificates:
            evidence, trouble = self.evidence.certificate(gateway.namespace, ref, granted)
            wrong += [trouble] if trouble is not None else []
            if evidence is not None:
                build.evidence[evidence.name] = evidence
                names.append(evidence.name)
        if not listener.certificates:
            wrong.append(Missing("InvalidCertificateRef", "needs tls.certificateRefs"))
        clients = None
        if listener.clients is not None:
            vouching, trouble = self.evidence.authority(gateway.namespace, listener.clients, granted)
            wrong += [trouble] if trouble is not None else []
            if vouching is not None:
                build.evidence[vouching.name] = vouching
                clients = Clients(vouching.name, listener.clients.insecure)
        return replace(door, certificates=tuple(dict.fromkeys(names)), clients=clients), wrong


def targeting(gateway: Gateway, root_namespace: str) -> Callable[[TargetRef, str], bool]:
    """Whether a target of a policy of some namespace is this gateway, or its class."""

    def means(ref: TargetRef, namespace: str) -> bool:
        if ref.group != GROUP or ref.namespace not in ("", namespace):
            return False
        if ref.kind == "Gateway":
            return (gateway.namespace, gateway.name) == (namespace, ref.name)
        return (ref.kind, ref.name, namespace) == ("GatewayClass", gateway.class_name, root_namespace)

    return means


def lenient(gateway: Gateway) -> Iterator[Condition]:
    """What is said for as long as a listener takes clients for whom nobody vouches."""
    names = [one.name for one in gateway.listeners if one.clients is not None and one.clients.insecure]
    if names:
        why = f"anybody is let in by {', '.join(names)[:900]}, with or without a certificate that can be verified"
        yield Condition("InsecureFrontendValidationMode", "True", "ConfigurationChanged", why)


def topology(gateway: Gateway) -> Topology:
    """What its owner says of what stands before it; a number that is none counts as 0."""
    marks = {**gateway.annotations, **gateway.infrastructure.annotations}
    hops = marks.get(HOPS, "0")
    number = int(hops) if hops.isascii() and hops.isdigit() and len(hops) < 3 else 0
    return Topology(min(number, _MOST_HOPS), marks.get(PROXY_PROTOCOL, "") == "true")


def _elsewhere(face: Face, found: Iterable[Face]) -> Iterator[str]:
    """Host names of the port's other listeners: only over TLS do connections belong to one of them."""
    if face.listener.protocol != "HTTPS":
        return
    own = face.listener.hostname or ANY
    peers = (one for one in found if one.usable and one.listener.port == face.listener.port)
    for name in dict.fromkeys(one.listener.hostname or ANY for one in peers):
        if name != own:
            yield name


def _resolved(route: AttachedRoute, pools: Pools) -> Condition:
    wrong, refs = [], []
    for rule in route.rules if isinstance(route, RequestRoute) else ():
        refs += [*rule.backends, *(one.backend for one in rule.mirrors)]
    for stream in route.streams if isinstance(route, StreamRoute) else ():
        refs += stream.backends
    for ref in refs:
        try:
            pools.resolve(route, ref)
        except Unresolved as error:
            wrong.append(error)
    if not wrong:
        return Condition("ResolvedRefs", "True", "ResolvedRefs", "All references resolved")
    told = "; ".join(dict.fromkeys(one.why for one in wrong))[:900]
    return Condition("ResolvedRefs", "False", wrong[0].reason, f"{told}: what is for that is refused")


def _said(face: Face, wrong: list[Missing], served: bool, *, unknown: bool) -> ListenerStatus:
    """The four conditions of a listener. `unknown`: nobody vouches for its clients."""
    listener = face.listener
    reason, why = face.unserved
    accepted = Condition("Accepted", "True", "Accepted", "No errors found")
    if reason:
        accepted = Condition("Accepted", "False", reason, why)
    elif face.conflict[0]:
        accepted = Condition("Accepted", "False", *face.conflict)
    elif unknown:
        accepted = Condition("Accepted", "False", "NoValidCACertificate", "no authority for its clients can be had")
    conflicted = Condition("Conflicted", "False", "NoConflicts", "No errors found")
    if face.conflict[0]:
        conflicted = Condition("Conflicted", "True", *face.conflict)
    resolved = Condition("ResolvedRefs", "True", "ResolvedRefs", "No errors found")
    if face.wrong:
        resolved = Condition(
            "ResolvedRefs", "False", "InvalidRouteKinds", f"cannot have routes of kind {', '.join(face.wrong)}"
        )
    elif wrong:
        resolved = Condition("ResolvedRefs", "False", wrong[0].reason, "; ".join(one.why for one in wrong)[:900])
    programmed = Condition("Programmed", "True", "Programmed", "No errors found")
    if not served:
        programmed = Condition("Programmed", "False", "Invalid", "it is not served")
    kinds = face.kinds or (SERVED.get(listener.protocol, ()) if listener.kinds is None else ())
    conditions = (accepted, programmed, resolved, conflicted)
    return ListenerStatus(listener.name, kinds, len(face.attached), conditions)


def _with_refused(said: ListenerStatus, door: Door, refused: Mapping[str, tuple[str, bool]]) -> ListenerStatus:
    """A refusal says more of what is wrong than what was found out here."""
    wrong = [one for one in door.evidence if one in refused]
    if not wrong:
        return said
    reason = "InvalidCertificateRef" if wrong[0] in door.certificates else "InvalidCACertificateRef"
    told = "; ".join(f"{_title(name)}: its proxies refuse it: {refused[name][0]}" for name in wrong)[:900]
    instead = {"ResolvedRefs": Condition("ResolvedRefs", "False", reason, told)}
    if not all(refused[name][1] for name in wrong):
        instead["Programmed"] = Condition("Programmed", "False", "Invalid", "it is not served")
    return replace(said, conditions=tuple(instead.get(one.type, one) for one in said.conditions))


def _title(evidence: str) -> str:
    kind, _, name = evidence.partition("/")
    return f"Secret/{name}" if kind == "server" else name


def _written(route: AttachedRoute, parent: ParentRef) -> Mapping[str, object]:
    """The parentRef as its author wrote it."""
    found: dict[str, object] = {"group": parent.group, "kind": parent.kind, "name": parent.name}
    if parent.namespace:
        found["namespace"] = parent.namespace
    if parent.section:
        found["sectionName"] = parent.section
    if parent.port:
        found["port"] = parent.port
    return found
