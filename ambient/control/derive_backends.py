"""Where the backends of routes lead: to which service, port and subset, or why nowhere. Pure.

A route may change where a request goes, never who may ask: a backend whose policies let less through than those of the
service that was asked for is not sent to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ambient.control.derive_changes import Changes, changes
from ambient.control.derive_traffic_policy import Rules, policy_of
from ambient.control.derive_waypoint import Waypoint
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.objects import Record, ReferenceGrant
from ambient.kube.policies import PolicyRule
from ambient.kube.route_parts import GROUP
from ambient.kube.routing import AttachedRoute, BackendRef
from ambient.model.waypoints import waypoints_of
from ambient.model.workload import Service
from ambient.waypoint.front import Destination, Policy

CORE: Final = ("", "core")


@dataclass(frozen=True, slots=True)
class Judged:
    """What requests to a service have to pass at its waypoint."""

    policies: tuple[Policy, ...] = ()
    tokens: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """The service that a route is on, as its waypoint has it. `waypoint` None: it has none that serves. `consumers`:
    routes of other namespaces may be on it, for their own clients."""

    service: Service
    waypoint: Waypoint | None
    judged: Judged = Judged()
    consumers: bool = False


@dataclass(frozen=True, slots=True)
class Unresolved(Exception):
    """A backend that is not sent to; `reason` is the Gateway API's."""

    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Backends:
    """Of one snapshot. `by_name`: (namespace, name) -> service; `judged(service, waypoint)`: what is judged there for
    it."""

    by_name: Mapping[tuple[str, str], Service]
    by_host: Mapping[str, tuple[Service, ...]]
    grants: Iterable[ReferenceGrant]
    rules: Rules
    judged: Callable[[Service, Waypoint], Judged]
    _changes: dict[str, Mapping[BackendRef, Changes]] = field(default_factory=dict, init=False)
    """By the route's key, looked at once."""

    def destination(self, route: Record, ref: BackendRef, asked: Asked, port: int) -> Destination:
        """Nowhere when it is none that is sent to."""
        try:
            return self.resolve(route, ref, asked, port)
        except Unresolved:
            return Destination("", 0, ref.weight)

    def resolve(self, route: Record, ref: BackendRef, asked: Asked, port: int) -> Destination:
        """Raises Unresolved."""
        wanted = ref.port or port
        service = self._service(route, ref, asked.service)
        if service is None or all(one.service_port != wanted for one in service.ports):
            raise Unresolved("BackendNotFound", f"there is no Service {ref.name} with port {wanted}")
        waypoint = asked.waypoint
        elsewhere = (service.key, wanted) != (asked.service.key, port)
        consumers = isinstance(route, AttachedRoute) and route.namespace != asked.service.namespace
        if elsewhere and service.hostname.startswith("*."):
            # Which name of it, and that it is one of these, is known where that port of it was asked for alone.
            raise Unresolved("RefNotPermitted", f"only requests to {ref.name}, port {wanted}, are led there")
        if waypoint is not None and elsewhere:
            self._may_lead(asked, service, waypoint)
        if waypoint is not None and (elsewhere or consumers):
            own = service.key == asked.service.key and not consumers
            self._may_change(service, waypoint, self._changed(route, ref), own=own)
        return self._leading(asked, service, ref, wanted)

    def itself(self, asked: Asked, port: int) -> Destination:
        """The service that was asked for, as if no route was on it."""
        return self._leading(asked, asked.service, BackendRef(asked.service.name, port), port)

    def _leading(self, asked: Asked, service: Service, ref: BackendRef, wanted: int) -> Destination:
        waypoint = asked.waypoint
        rule = self.rules.of(service, waypoint.namespace) if waypoint is not None else None
        subset = next((one for one in rule.subsets if one.name == ref.subset), None) if rule is not None else None
        if ref.subset and subset is None and waypoint is not None:
            raise Unresolved("BackendNotFound", f"{ref.name} has no subset {ref.subset}: no DestinationRule has it")
        balancer = policy_of(rule, wanted, subset).balancer
        return Destination(
            service.hostname,
            wanted,
            ref.weight,
            ref.subset,
            "" if service.namespace == asked.service.namespace else service.namespace,
            balancer.hash_by if balancer is not None else None,
            ref.request,
            ref.response,
        )

    def _service(self, route: Record, ref: BackendRef, asked: Service) -> Service | None:
        if ref.kind == "Hostname":
            return self._of_host(route.namespace, ref.name)
        if ref.group not in CORE or ref.kind != "Service":
            raise Unresolved("InvalidKind", f"{ref.kind} {ref.name}: only a Service can be sent to")
        home = ref.namespace or route.namespace
        itself = (home, ref.name) == (asked.namespace, asked.name)
        if home != route.namespace and not itself and not self.granted(route, home, ref.name):
            raise Unresolved("RefNotPermitted", f"no ReferenceGrant in {home} lets this route send to {ref.name}")
        return self.by_name.get((home, ref.name))

    def _of_host(self, namespace: str, host: str) -> Service | None:
        """A name without a dot is one of the namespace's own; of several with one host name that of the namespace, or
        of Kubernetes."""
        if "." not in host:
            return self.by_name.get((namespace, host))
        found = self.by_host.get(host, ())
        own = [one for one in found if one.namespace == namespace]
        return next(iter(own or [one for one in found if one.canonical]), None)

    def granted(self, route: Record, namespace: str, name: str) -> bool:
        """A route may send to the Service of that name in another namespace."""
        group = GROUP if isinstance(route, AttachedRoute) else ""
        return any(
            (one.group, one.kind, one.namespace) == (group, route.kind, route.namespace)
            and one.to_group in CORE
            and one.to_kind == "Service"
            and one.name in ("", name)
            for grant in self.grants
            if grant.namespace == namespace
            for one in grant.grants
        )

    def _changed(self, route: Record, ref: BackendRef) -> Changes:
        found = self._changes.get(route.key)
        if found is None:
            found = self._changes[route.key] = changes(route)
        return found.get(ref, Changes())

    def _may_lead(self, asked: Asked, service: Service, waypoint: Waypoint) -> None:
        through = waypoints_of(service)
        if through and waypoint.address not in through:
            raise Unresolved("RefNotPermitted", f"Service {service.name} is behind another waypoint")
        judged = self.judged(service, waypoint)
        if not _as_strict(asked.judged, judged):
            why = f"Service {service.name} has policies of its own that {asked.service.name} has not"
            raise Unresolved("RefNotPermitted", why)

    def _may_change(self, service: Service, waypoint: Waypoint, changed: Changes, *, own: bool) -> None:
        """`own`: the route is the service's own, which knows best what its requests are to be."""
        judged = self.judged(service, waypoint)
        theirs = _enforced(judged.policies)
        told = changed.headers & {name for rule in judged.tokens for name in rule.told_headers}
        if not own and told:
            why = f"the route changes {', '.join(sorted(told))}, which tells Service {service.name} of a token"
            raise Unresolved("RefNotPermitted", why)
        if not own and changed != Changes() and any(policy.action == "CUSTOM" for policy in theirs):
            # Who is asked sees the request as it came, and may ask about anything of it, or tell in headers what it is.
            why = f"the route changes requests that a CUSTOM policy of Service {service.name} asks about"
            raise Unresolved("RefNotPermitted", why)
        if any(changed.concern(rule) for policy in theirs for rule in policy.rules):
            why = f"the route changes what policies of Service {service.name} ask about"
            raise Unresolved("RefNotPermitted", why)


def _as_strict(judged: Judged, wanted: Judged) -> bool:
    """Whether what `judged` lets through is let through by `wanted` as well, as far as can be seen: every DENY of
    theirs is among ours, and where they have an ALLOW, all of ours are theirs. A rule about ports means another thing
    at another port, and one about tokens where others are believed."""
    ours, theirs = _enforced(judged.policies), _enforced(wanted.policies)
    if judged.tokens != wanted.tokens and (wanted.tokens or theirs):
        return False
    refusing = {one for one in theirs if one.action != "ALLOW"}
    allows = {one for one in ours if one.action == "ALLOW"}
    wanted_allows = {one for one in theirs if one.action == "ALLOW"}
    if any(_about_ports(rule) for one in (*theirs, *ours) for rule in one.rules) and theirs:
        return False
    if not refusing <= {one for one in ours if one.action != "ALLOW"}:
        return False
    return not wanted_allows or (bool(allows) and allows <= wanted_allows)


def _enforced(policies: tuple[Policy, ...]) -> set[Policy]:
    return {one for one in policies if one.action != "AUDIT" and not one.dry_run}


def _about_ports(rule: PolicyRule) -> bool:
    return any(one.ports or one.not_ports for one in rule.operations) or any(
        when.key.startswith("destination.") for when in rule.when
    )
