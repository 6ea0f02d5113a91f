"""What each waypoint stands in front of, from what was derived for ztunnels and the policies that name it. Pure.

Kept from snapshot to snapshot: which workloads are behind which service, and which policies have targetRefs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from ambient.control.derive import Changes, Derived
from ambient.control.derive_backends import Asked, Backends, Judged
from ambient.control.derive_direct import Directs
from ambient.control.derive_endpoints import Labels, ports_of
from ambient.control.derive_gateway import Gateways, Laid, Told, targeting
from ambient.control.derive_judged import closes, fetched_keys, judged, meant, rank
from ambient.control.derive_kept import Kept
from ambient.control.derive_limiter import Counting, Limiter
from ambient.control.derive_moves import moved, relabelled
from ambient.control.derive_origination import Asker, Originations
from ambient.control.derive_provider import Providers
from ambient.control.derive_routes import CONSUMERS, Routing, led_to
from ambient.control.derive_seen import Seen, SeenGateway, SeenGateways
from ambient.control.derive_telemetry import Telemetries
from ambient.control.derive_traffic_policy import Rules
from ambient.control.derive_virtual import Virtuals
from ambient.control.derive_waypoint import Waypoint
from ambient.control.derive_wild import Wilds
from ambient.control.gateway_pools import Pools
from ambient.kube.backend_tls import BackendTLSPolicy
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.mesh_config import MeshConfig
from ambient.kube.networking import DestinationRule, Gateway
from ambient.kube.objects import (
    AuthorizationPolicy,
    Condition,
    Records,
    ReferenceGrant,
    RefusedObject,
    Telemetry,
    VirtualService,
)
from ambient.kube.objects import Service as KubeService
from ambient.kube.routing import CONTROLLER, GATEWAY_CONTROLLER, AttachedRoute
from ambient.model.waypoints import waypoints_of
from ambient.model.workload import Service, Workload
from ambient.waypoint.deploy import XFCC
from ambient.waypoint.exports import read_exports
from ambient.waypoint.front import Direct, Front, FrontPort, View
from ambient.xds.steps import finish

_SLICE: Final = 50
"""Services looked at in one go: some milliseconds."""
_TRUE: Final = frozenset({"true", "1"})


class Fronts:
    """`update` with every snapshot and what was derived from it, then `view` of any waypoint."""

    def __init__(
        self,
        trust_domains: tuple[str, ...],
        root_namespace: str,
        keys: Callable[[str], str] = lambda url: "",
        counting: Counting | None = None,
        domain: str = "cluster.local",
        roots: str = "",
    ) -> None:
        """`trust_domains`: our own, then its aliases. `keys(url)`: the key set there, "" when it is not had.
        `counting`: who counts limits for all proxies. `domain`: what names of Kubernetes' Services end in. `roots`: PEM
        of the authorities that the system believes."""
        self._keys, self._domain = keys, domain
        self._providers = Providers(MeshConfig(), root_namespace)
        self._telemetries = Telemetries(root_namespace=root_namespace)
        self._trust_domains, self._root_namespace = trust_domains, root_namespace
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
        self._views: dict[str, Seen] = {}
        self._doors = SeenGateways(self._laying, self._look)
        self._gateways = Gateways(trust_domains)
        self.evidence = self._gateways.evidence
        self._limiter = Limiter(counting, lambda one, home: self._pool(one, Asker(home)), self.behind)
        self.originations = Originations(root_namespace, roots, self.evidence)
        self._directs, self._wilds = Directs(), Wilds(self._records, {}, root_namespace)
        self._current, self._renewed = False, 0

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
        if any(rule.subsets for rule in self._kept.of(DestinationRule)):
            for key in relabelled(self._records, before, self._services_of):
                self._touch(key)

    def _move(self, news: Changes | None) -> None:
        """Endpoints alone: all else stays as it was made, routes and policies and what is said of them."""
        if news is not None:
            for uid in news.gone_addresses:
                self._take(uid)
            self._place(one for one in news.put if isinstance(one, Workload))

    def _start(self, records: Records, derived: Derived) -> None:
        self._services, self._records, self._judged = derived.services, records, {}
        self._wilds = Wilds(records, derived.services, self._root_namespace)
        self._views, self._said = {}, None
        self._doors.forget()
        news = derived.changes
        if news is None:
            self._behind, self._services_of, self._ports, self._directs = {}, {}, {}, Directs()
            self._place(derived.workloads.values())
        self._move(news)
        self._directs.renew()
        keys: Iterable[str] = records.by_key if records.changed is None or news is None else records.changed
        if records.changed is None or news is None:
            self._kept = Kept()
        self._kept.update(records, keys)
        self._refused = tuple(one for one in records.refused if closes(one))
        self._telemetries = replace(self._telemetries, records=tuple(self._kept.of(Telemetry)))
        self._traffic = Rules(self._kept.of(DestinationRule), self._root_namespace)
        if any(rule.subsets for rule in self._kept.of(DestinationRule)):
            self._ports = {}
        routes, virtuals = self._kept.of(AttachedRoute), self._kept.of(VirtualService)
        backends = self._backends() if routes or virtuals else Backends({}, {}, (), self._traffic, self._judged_for)
        self._routing, self._virtuals = Routing(routes, backends), Virtuals(virtuals, backends)
        self._asked = {}
        self.originations.update(records, self._kept.of(BackendTLSPolicy))

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
            self._directs.put(workload)
            self._services_of[workload.uid] = tuple(workload.services)
            for key in workload.services:
                self._behind.setdefault(key, {})[workload.uid] = workload
                self._touch(key)

    def _touch(self, key: str) -> None:
        self._ports.pop(key, None)
        if self._limiter.is_of(key):
            self._said = None
            self._doors.forget()
        for seen in self._views.values():
            seen.touched.add(key)
        self._doors.touch(key)

    def _take(self, uid: str) -> None:
        self._directs.take(uid)
        for key in self._services_of.pop(uid, ()):
            self._touch(key)
            held = self._behind[key]
            held.pop(uid, None)
            if not held:
                del self._behind[key]

    def configure(self, mesh: MeshConfig) -> Iterable[str]:
        """Keys of the policies that it is for."""
        self._providers = Providers(mesh, self._root_namespace)
        self._telemetries = replace(self._telemetries, mesh=mesh)
        self.renew()
        asking = [one.key for one in self._kept.of(AuthorizationPolicy) if one.provider]
        return [*asking, *(one.key for one in self._kept.of(Telemetry))]

    def untold(self, key: str) -> str:
        """Why nobody is told what a Telemetry says, "" when somebody is, or when there is no such record."""
        record = self._kept.find(Telemetry, key)
        return self._telemetries.trouble(record) if record is not None else ""

    def unasked(self, key: str) -> str:
        """Why the provider of a CUSTOM policy is not asked, "" when it is, or when there is no such policy."""
        record = self._kept.find(AuthorizationPolicy, key)
        return self._providers.trouble(record.provider, self._services) if record is not None else ""

    def renew(self) -> None:
        """Keys are other ones."""
        self._renewed += 1
        self._judged, self._asked = {}, {}
        self._views, self._said = {}, None
        self._doors.renew()

    @property
    def key_urls(self) -> Mapping[str, Mapping[int, JwtRule]]:
        """By the RequestAuthentication's key: the rules, by their number, whose keys are to be fetched."""
        return fetched_keys(self._kept)

    def view(self, waypoint: Waypoint, gateway: Gateway) -> View:
        """What the waypoint is to be configured from. What has not changed is the same object as before."""
        return finish(self.viewing(waypoint, gateway))

    def viewing(self, waypoint: Waypoint, gateway: Gateway) -> Generator[None, None, View]:
        """`view` in small steps. Between them there may be a `renew`, and no `update`."""
        seen = self._views.get(str(waypoint))
        if seen is not None and (seen.waypoint, seen.gateway) == (waypoint, gateway):
            seen.view, seen.touched = self._moved(seen), set()
            return seen.view
        renewed = -1
        while renewed != self._renewed:
            renewed = self._renewed
            view = yield from self._whole(waypoint, gateway)
        self._views[str(waypoint)] = Seen(waypoint, gateway, view)
        return view

    def _moved(self, seen: Seen) -> View:
        """With the endpoints as they are now."""
        direct = self._called(seen.waypoint)
        if not seen.touched and direct == seen.view.direct:
            return seen.view

        def now(front: Front) -> Front:
            key = f"{front.namespace}/{front.hostname}"
            if key not in seen.touched:
                return front
            numbers = {port.number for port in front.ports}
            asker = Asker(seen.waypoint.namespace, seen.waypoint.name, CONTROLLER)
            ports = self._ports_of(self._services[key], asker)
            return replace(front, ports=tuple(port for port in ports if port.number in numbers))

        view = seen.view
        fronts, beyond, asked = (tuple(map(now, part)) for part in (view.fronts, view.beyond, view.asked))
        limiter = now(view.limiter) if view.limiter is not None else None
        return replace(view, fronts=fronts, beyond=beyond, asked=asked, limiter=limiter, direct=direct)

    def _called(self, waypoint: Waypoint) -> tuple[Direct, ...]:
        """Workloads that it stands before, with what is judged for them."""
        found = []
        for one in self._directs.of(waypoint.address, self._services):
            passed = self._judged_for(None, waypoint, one.namespace)
            providers = tuple(self._providers.of(passed.policies, self._services))
            found.append(replace(one, policies=passed.policies, tokens=passed.tokens, providers=providers))
        return tuple(found)

    def _whole(self, waypoint: Waypoint, gateway: Gateway) -> Generator[None, None, View]:
        exports, _ = read_exports(gateway.annotations)
        fronts: list[Front] = []
        for key, service in sorted(self._services.items()):
            if service.addresses and waypoint.address in waypoints_of(service):
                means = meant(service, self._of_kubernetes(service), waypoint, self._root_namespace)
                own = self._telemetries.exports(exports, waypoint.namespace, means)
                front = self._routed(key, service, waypoint, gateway)
                fronts.append(front if own is exports else replace(front, exports=own))
                if len(fronts) % _SLICE == 0:
                    yield
        xfcc = gateway.annotations.get(XFCC, "") in _TRUE
        beyond = tuple(self._beyond(fronts, waypoint))
        direct = self._called(waypoint)
        asking = [one for front in fronts for one in front.providers]
        asking += [one for called in direct for one in called.providers]
        named = self._providers.services(asking, self._services)
        asked = tuple(replace(self._front(one.key, one, waypoint), policies=(), providers=()) for one in named)
        names = (waypoint.namespace, waypoint.name, self._trust_domains)
        limiter = self._limiter.front(self._services, waypoint.namespace)
        return View(*names, tuple(fronts), xfcc, beyond, exports, asked, limiter=limiter, direct=direct)

    def _routed(self, key: str, service: Service, waypoint: Waypoint, gateway: Gateway) -> Front:
        front = self._front(key, service, waypoint)
        consumers = gateway.annotations.get(CONSUMERS, "") in _TRUE
        asked = self._asked[key] = Asked(service, waypoint, Judged(front.policies, front.tokens), consumers)
        requests, streams = self._routing.requests(asked), self._routing.streams(asked)
        more, carried = self._virtuals.look(asked, {one.port for one in requests})
        taken = {one.port for one in streams}
        streams += tuple(one for one in carried if one.port not in taken)
        theirs = self._routing.consumers(asked)
        found = theirs + requests + more
        found += self._routing.itself(asked, theirs, requests + more)
        return replace(front, routes=found, streams=streams, read=frozenset(one.port for one in requests))

    def _beyond(self, fronts: Iterable[Front], waypoint: Waypoint) -> Iterable[Front]:
        """The services and ports that routes lead to."""
        for key, ports in sorted(led_to(fronts).items()):
            front = self._front(key, self._services[key], waypoint)
            yield replace(front, ports=tuple(port for port in front.ports if port.number in ports), policies=())

    def route_conditions(self) -> Mapping[str, tuple[Condition, ...]]:
        """Of every route, once the waypoints have been looked at; equal ones are the same object as before."""
        if self._said is None:
            found = {one.key: self._conditions(one) for one in self._kept.of(AttachedRoute)}
            found |= self._virtuals.conditions()
            found |= self.originations.conditions()
            before = self._told
            self._said = {key: before[key] if before.get(key) == one else one for key, one in found.items() if one}
            self._told = self._said
        return self._said

    def _conditions(self, route: AttachedRoute) -> tuple[Condition, ...]:
        said = self._routing.conditions(route, self._asked)
        return (*said, *self._limiter.conditions(route, self._services)) if said else ()

    def _front(self, key: str, service: Service, waypoint: Waypoint) -> Front:
        passed = self._judged_for(service, waypoint)
        return replace(
            self._pool(service, Asker(waypoint.namespace, waypoint.name, CONTROLLER)),
            policies=passed.policies,
            tokens=passed.tokens,
            providers=tuple(self._providers.of(passed.policies, self._services)),
            rank=rank(service, self._of_kubernetes(service), waypoint),
        )

    def _pool(self, service: Service, asker: Asker) -> Front:
        """A service with its ports and endpoints, as a proxy is to use them, and nothing that is judged."""
        addresses = tuple(address.ip for address in service.addresses)
        return Front(service.namespace, service.hostname, addresses, self._ports_of(service, asker))

    def behind(self, key: str) -> list[Workload]:
        """The workloads of a service."""
        return [one for _, one in sorted(self._behind.get(key, {}).items())]

    def told(self, gateway: Gateway) -> Told:
        """What an ingress gateway is to be configured from, and what is said of it; the same where nothing changed."""
        return finish(self.telling(gateway))

    def telling(self, gateway: Gateway) -> Generator[None, None, Told]:
        """`told` in small steps. Between them there may be a `renew`, and no `update`."""
        return self._doors.telling(gateway)

    def _laying(self, gateway: Gateway) -> Generator[None, None, Laid]:
        pools = self._pools(lambda one: self._pool(one, Asker(gateway.namespace)), self.behind)
        more = partial(self._limiter.conditions, services=self._services)
        return self._gateways.laying(gateway, self._kept.of(AttachedRoute), pools, more)

    def _look(self, laid: Laid) -> SeenGateway:
        gateway = laid.gateway
        read: set[str] = set()

        def pool(service: Service) -> Front:
            read.add(service.key)
            return self._pool(service, Asker(gateway.namespace, gateway.name, GATEWAY_CONTROLLER))

        def behind(key: str) -> list[Workload]:
            read.add(key)
            return self.behind(key)

        means, spaces = targeting(gateway, self._root_namespace), (gateway.namespace, self._root_namespace)
        passed = judged(self._kept, self._refused, self._keys, means, spaces)
        limiter = self._limiter.front(self._services, gateway.namespace)
        return SeenGateway(laid, self._gateways.told(laid, self._pools(pool, behind), passed, limiter), frozenset(read))

    def _pools(self, pool: Callable[[Service], Front], behind: Callable[[str], list[Workload]]) -> Pools:
        backends = self._backends()
        return Pools(backends.by_name, backends.granted, pool, behind)

    def _ports_of(self, service: Service, asker: Asker) -> tuple[FrontPort, ...]:
        key, rule = service.key, self._traffic.of(service, asker.namespace)
        found = self._ports.get(key)
        if found is None or found[0] is not service or found[1] is not rule:
            ports = ports_of(service, self.behind(key), rule, self._labels)
            found = self._ports[key] = (service, rule, ports)
        return self.originations.applied(service, self._wilds.ports(service, found[2], asker.namespace), rule, asker)

    def _of_kubernetes(self, service: Service) -> bool:
        """A Service, and not a ServiceEntry, which may be the only owner of its name as well."""
        known = self._records.find(KubeService, service.namespace, service.name)
        return known is not None and service.hostname == f"{service.name}.{service.namespace}.svc.{self._domain}"

    def _judged_for(self, service: Service | None, waypoint: Waypoint, namespace: str = "") -> Judged:
        """Looked up once per snapshot: each backend of each route asks again. `service` None: for workloads of
        `namespace` that are called by their own addresses."""
        asked = (service.key if service is not None else namespace, str(waypoint))
        found = self._judged.get(asked)
        if found is None:
            of_kubernetes = service is not None and self._of_kubernetes(service)
            means = meant(service, of_kubernetes, waypoint, self._root_namespace)
            where = service.namespace if service is not None else namespace
            spaces = (where, waypoint.namespace, self._root_namespace)
            found = self._judged[asked] = judged(self._kept, self._refused, self._keys, means, spaces)
        return found
