"""What each waypoint stands in front of, from what was derived for ztunnels and the policies that name it. Pure.

Kept from snapshot to snapshot: which workloads are behind which service, and which policies have targetRefs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ambient.control.derive import Changes, Derived
from ambient.control.derive_backends import Asked, Backends, Judged
from ambient.control.derive_endpoints import Labels, ports_of
from ambient.control.derive_gateway import Gateways, Told, targeting
from ambient.control.derive_judged import closes, judged
from ambient.control.derive_kept import Kept
from ambient.control.derive_moves import moved
from ambient.control.derive_provider import Providers
from ambient.control.derive_routes import Routing
from ambient.control.derive_traffic_policy import Rules
from ambient.control.derive_virtual import Virtuals
from ambient.control.derive_waypoint import Waypoint
from ambient.control.gateway_pools import Pools
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.mesh_config import MeshConfig
from ambient.kube.networking import DestinationRule, Gateway
from ambient.kube.objects import (
    AuthorizationPolicy,
    Condition,
    Records,
    ReferenceGrant,
    RefusedObject,
    RequestAuthentication,
    VirtualService,
)
from ambient.kube.objects import Service as KubeService
from ambient.kube.policies import TargetRef
from ambient.kube.routing import AttachedRoute, HTTPRoute, TLSRoute
from ambient.model.waypoints import waypoints_of
from ambient.model.workload import Service, Workload
from ambient.waypoint.deploy import CLASS, XFCC
from ambient.waypoint.exports import read_exports
from ambient.waypoint.front import Front, FrontPort, View

_TRUE: Final = frozenset({"true", "1"})


@dataclass(slots=True)
class _Seen:
    """What a waypoint was configured from; `touched`: services whose endpoints have changed since."""

    waypoint: Waypoint
    gateway: Gateway
    view: View
    touched: set[str] = field(default_factory=set)


class Fronts:
    """`update` with every snapshot and what was derived from it, then `view` of any waypoint."""

    def __init__(
        self, trust_domains: tuple[str, ...], root_namespace: str, keys: Callable[[str], str] = lambda url: ""
    ) -> None:
        """`trust_domains`: our own, then its aliases. `keys(url)`: the key set there, "" when it is not had."""
        self._keys = keys
        self._providers = Providers(MeshConfig())
        self._trust_domains = trust_domains
        self._root_namespace = root_namespace
        self._behind: dict[str, dict[str, Workload]] = {}
        self._services_of: dict[str, tuple[str, ...]] = {}
        self._services: Mapping[str, Service] = {}
        self._records = Records()
        self._labels = Labels(self._records)
        self._judged: dict[tuple[str, str], Judged] = {}
        self._kept = Kept()
        self._refused: tuple[RefusedObject, ...] = ()
        self._traffic = Rules((), root_namespace)
        backends = Backends({}, {}, (), self._traffic, self._judged_for)
        self._routing, self._virtuals = Routing((), backends), Virtuals((), backends)
        self._asked: dict[str, Asked] = {}
        self._said: dict[str, tuple[Condition, ...]] | None = None
        self._told: dict[str, tuple[Condition, ...]] = {}
        self._ports: dict[str, tuple[Service, DestinationRule | None, tuple[FrontPort, ...]]] = {}
        self._views: dict[str, _Seen] = {}
        self._gateways = Gateways(trust_domains)
        self._current = False

    def update(self, records: Records, derived: Derived) -> None:
        """After one that raised all is looked at anew: what had changed then is not told again."""
        if not self._current:
            records, derived = replace(records, changed=None), replace(derived, changes=None)
        self._current = False
        self._gateways.update(records)
        before, self._labels = self._records, Labels(records)
        if moved(records, before, derived, self._services_of):
            self._services, self._records = derived.services, records
            self._relabel(before)
            self._move(derived.changes)
        else:
            self._start(records, derived)
        self._current = True

    def _relabel(self, before: Records) -> None:
        """Endpoints with other labels may be in other subsets, though nothing else of them has changed."""
        if not any(rule.subsets for rule in self._kept.of(DestinationRule)):
            return
        for key in self._records.changed or ():
            old, new = before.by_key.get(key), self._records.by_key.get(key)
            if old is None or new is None or old.labels == new.labels:
                continue
            for uid, services in self._services_of.items():
                if uid.endswith(f"/{key}"):
                    for one in services:
                        self._touch(one)

    def _move(self, news: Changes | None) -> None:
        """Endpoints alone: all else stays as it was made, routes and policies and what is said of them."""
        if news is not None:
            for uid in news.gone_addresses:
                self._take(uid)
            self._place(one for one in news.put if isinstance(one, Workload))

    def _start(self, records: Records, derived: Derived) -> None:
        self._services, self._records, self._judged = derived.services, records, {}
        self._views, self._said = {}, None
        news = derived.changes
        if news is None:
            self._behind, self._services_of, self._ports = {}, {}, {}
            self._place(derived.workloads.values())
        self._move(news)
        keys: Iterable[str] = records.by_key if records.changed is None or news is None else records.changed
        if records.changed is None or news is None:
            self._kept = Kept()
        self._kept.update(records, keys)
        self._refused = tuple(one for one in records.refused if closes(one))
        self._traffic = Rules(self._kept.of(DestinationRule), self._root_namespace)
        if any(rule.subsets for rule in self._kept.of(DestinationRule)):
            self._ports = {}
        routes, virtuals = self._kept.of(AttachedRoute), self._kept.of(VirtualService)
        backends = self._backends() if routes or virtuals else Backends({}, {}, (), self._traffic, self._judged_for)
        self._routing, self._virtuals = Routing(routes, backends), Virtuals(virtuals, backends)
        self._asked = {}

    def _backends(self) -> Backends:
        by_host: dict[str, tuple[Service, ...]] = {}
        for one in self._services.values():
            by_host[one.hostname] = (*by_host.get(one.hostname, ()), one)
        # A ServiceEntry may have the name of a Service, and is not what a route means by it.
        by_name = {(one.namespace, one.name): one for one in self._services.values() if self._of_kubernetes(one)}
        return Backends(by_name, by_host, self._kept.of(ReferenceGrant), self._traffic, self._judged_for)

    def _place(self, workloads: Iterable[Workload]) -> None:
        for workload in workloads:
            self._take(workload.uid)
            self._services_of[workload.uid] = tuple(workload.services)
            for key in workload.services:
                self._behind.setdefault(key, {})[workload.uid] = workload
                self._touch(key)

    def _touch(self, key: str) -> None:
        self._ports.pop(key, None)
        for seen in self._views.values():
            seen.touched.add(key)

    def _take(self, uid: str) -> None:
        for key in self._services_of.pop(uid, ()):
            self._touch(key)
            held = self._behind[key]
            held.pop(uid, None)
            if not held:
                del self._behind[key]

    def configure(self, mesh: MeshConfig) -> Iterable[str]:
        """Keys of the policies that it is for."""
        self._providers = Providers(mesh)
        self.renew()
        return [one.key for one in self._kept.of(AuthorizationPolicy) if one.provider]

    def unasked(self, key: str) -> str:
        """Why the provider of a CUSTOM policy is not asked, "" when it is, or when there is no such policy."""
        record = self._kept.find(AuthorizationPolicy, key)
        return self._providers.trouble(record.provider, self._services) if record is not None else ""

    def renew(self) -> None:
        """Keys are other ones."""
        self._judged, self._asked = {}, {}
        self._views, self._said = {}, None

    @property
    def key_urls(self) -> Mapping[str, Mapping[int, JwtRule]]:
        """By the RequestAuthentication's key: the rules, by their number, whose keys are to be fetched."""
        found = {
            one.key: {number: rule for number, rule in enumerate(one.rules) if rule.keys_url}
            for one in self._kept.of(RequestAuthentication)
        }
        return {key: rules for key, rules in found.items() if rules}

    def view(self, waypoint: Waypoint, gateway: Gateway) -> View:
        """What the waypoint is to be configured from. What has not changed is the same object as before."""
        seen = self._views.get(str(waypoint))
        if seen is not None and (seen.waypoint, seen.gateway) == (waypoint, gateway):
            seen.view, seen.touched = self._moved(seen), set()
        else:
            seen = self._views[str(waypoint)] = _Seen(waypoint, gateway, self._whole(waypoint, gateway))
        return seen.view

    def _moved(self, seen: _Seen) -> View:
        """With the endpoints as they are now."""

        def now(front: Front) -> Front:
            key = f"{front.namespace}/{front.hostname}"
            if key not in seen.touched:
                return front
            numbers = {port.number for port in front.ports}
            ports = self._ports_of(self._services[key], seen.waypoint.namespace)
            return replace(front, ports=tuple(port for port in ports if port.number in numbers))

        view = seen.view
        fronts, beyond, asked = (tuple(map(now, part)) for part in (view.fronts, view.beyond, view.asked))
        return replace(view, fronts=fronts, beyond=beyond, asked=asked)

    def _whole(self, waypoint: Waypoint, gateway: Gateway) -> View:
        fronts = [
            self._routed(key, service, waypoint)
            for key, service in sorted(self._services.items())
            if service.addresses and waypoint.address in waypoints_of(service)
        ]
        xfcc = gateway.annotations.get(XFCC, "") in _TRUE
        beyond = tuple(self._beyond(fronts, waypoint))
        exports, _ = read_exports(gateway.annotations)
        named = self._providers.services((one for front in fronts for one in front.providers), self._services)
        asked = tuple(replace(self._front(one.key, one, waypoint), policies=(), providers=()) for one in named)
        names = (waypoint.namespace, waypoint.name, self._trust_domains)
        return View(*names, tuple(fronts), xfcc, beyond, exports, asked)

    def _routed(self, key: str, service: Service, waypoint: Waypoint) -> Front:
        front = self._front(key, service, waypoint)
        asked = self._asked[key] = Asked(service, waypoint, Judged(front.policies, front.tokens))
        requests, streams = self._routing.requests(asked), self._routing.streams(asked)
        more, carried = self._virtuals.look(asked, {one.port for one in requests})
        taken = {one.port for one in streams}
        streams += tuple(one for one in carried if one.port not in taken)
        return replace(front, routes=requests + more, streams=streams)

    def _beyond(self, fronts: Iterable[Front], waypoint: Waypoint) -> Iterable[Front]:
        """The services and ports that routes lead to."""
        wanted: dict[str, set[int]] = {}
        for front in fronts:
            leads = [one for route in front.routes for one in (*route.destinations, *route.mirrors)]
            for one in (*leads, *(one for stream in front.streams for one in stream.destinations)):
                if one.hostname:
                    wanted.setdefault(f"{one.namespace or front.namespace}/{one.hostname}", set()).add(one.port)
        for key, ports in sorted(wanted.items()):
            front = self._front(key, self._services[key], waypoint)
            yield replace(front, ports=tuple(port for port in front.ports if port.number in ports), policies=())

    def route_conditions(self) -> Mapping[str, tuple[Condition, ...]]:
        """Of every route, once the waypoints have been looked at; equal ones are the same object as before."""
        if self._said is None:
            found = {one.key: self._routing.conditions(one, self._asked) for one in self._kept.of(AttachedRoute)}
            found |= self._virtuals.conditions()
            before = self._told
            self._said = {key: before[key] if before.get(key) == one else one for key, one in found.items() if one}
            self._told = self._said
        return self._said

    def _front(self, key: str, service: Service, waypoint: Waypoint) -> Front:
        passed = self._judged_for(service, waypoint)
        return replace(
            self.pool(service, waypoint.namespace),
            policies=passed.policies,
            tokens=passed.tokens,
            providers=tuple(self._providers.of(passed.policies, self._services)),
            rank=self._rank(service, waypoint),
        )

    def pool(self, service: Service, home: str) -> Front:
        """A service with its ports and endpoints, as a proxy in namespace `home` is to use them, and nothing that is
        judged."""
        addresses = tuple(address.ip for address in service.addresses)
        return Front(service.namespace, service.hostname, addresses, self._ports_of(service, home))

    def behind(self, key: str) -> list[Workload]:
        """The workloads of a service."""
        return [one for _, one in sorted(self._behind.get(key, {}).items())]

    def told(self, gateway: Gateway) -> Told:
        """What an ingress gateway is to be configured from, and what is said of it."""
        means, spaces = targeting(gateway, self._root_namespace), (gateway.namespace, self._root_namespace)
        passed = judged(self._kept, self._refused, self._keys, means, spaces)
        backends = self._backends()
        pools = Pools(backends.by_name, backends.granted, self.pool, self.behind)
        routes = [one for one in self._kept.of(AttachedRoute) if isinstance(one, HTTPRoute | TLSRoute)]
        return self._gateways.told(gateway, routes, pools, passed)

    def _ports_of(self, service: Service, home: str) -> tuple[FrontPort, ...]:
        key, rule = service.key, self._traffic.of(service, home)
        found = self._ports.get(key)
        if found is None or found[0] is not service or found[1] is not rule:
            ports = ports_of(service, self.behind(key), rule, self._labels)
            found = self._ports[key] = (service, rule, ports)
        return found[2]

    def _rank(self, service: Service, waypoint: Waypoint) -> int:
        """What Kubernetes gave its address to goes before what the waypoint's own namespace says, that before what
        others say."""
        if self._of_kubernetes(service):
            return 0
        return 1 if service.namespace == waypoint.namespace else 2 if service.canonical else 3

    def _of_kubernetes(self, service: Service) -> bool:
        """A Service, and not a ServiceEntry, which may be the only owner of its name as well."""
        known = self._records.find(KubeService, service.namespace, service.name)
        return known is not None and service.hostname.startswith(f"{service.name}.{service.namespace}.svc.")

    def _judged_for(self, service: Service, waypoint: Waypoint) -> Judged:
        """Looked up once per snapshot: each backend of each route asks again."""
        asked = (service.key, str(waypoint))
        found = self._judged.get(asked)
        if found is None:

            def means(ref: TargetRef, namespace: str) -> bool:
                return self._means(ref, namespace, service, waypoint)

            spaces = (service.namespace, waypoint.namespace, self._root_namespace)
            found = self._judged[asked] = judged(self._kept, self._refused, self._keys, means, spaces)
        return found

    def _means(self, ref: TargetRef, namespace: str, service: Service, waypoint: Waypoint) -> bool:
        if ref.namespace not in ("", namespace):
            return False
        match ref.group, ref.kind:
            case "" | "core", "Service":
                return self._of_kubernetes(service) and (service.namespace, service.name) == (namespace, ref.name)
            case "networking.istio.io", "ServiceEntry":
                return not self._of_kubernetes(service) and (service.namespace, service.name) == (namespace, ref.name)
            case "gateway.networking.k8s.io", "Gateway":
                return (waypoint.namespace, waypoint.name) == (namespace, ref.name)
            case "gateway.networking.k8s.io", "GatewayClass":
                return ref.name == CLASS and namespace == self._root_namespace
        return False
