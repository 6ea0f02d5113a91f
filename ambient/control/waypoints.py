"""The waypoints of the mesh: what each is told, who may be told it, and what is said of it on its Gateway.

A waypoint's configuration is a catalogue of its own. Only what differs from before is made into bytes again, so a
change costs what it concerns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from ambient.ca.token import Caller
from ambient.control.derive import Derived
from ambient.control.derive_front import Fronts
from ambient.control.derive_gateway import Told, lenient
from ambient.control.derive_limiter import Counting
from ambient.control.derive_waypoint import Waypoint
from ambient.control.derive_workload import node_locality
from ambient.control.gateway_address import PROGRAMMED, addresses, unmet
from ambient.control.gateway_owner import is_ours, is_own_class
from ambient.control.key_sets import KeySets, fetched
from ambient.control.places import Places
from ambient.control.proxies import Proxies, Sight
from ambient.control.waypoint_refusals import SLICE, WaypointRefusals
from ambient.errors import InvalidInput, Refused
from ambient.kube.mesh_config import MeshConfig
from ambient.kube.networking import Gateway, GatewayClass, TypedAddress
from ambient.kube.objects import Condition, Node, Records, Service, record_key
from ambient.kube.status_values import AncestorStatus, ListenerStatus, ParentStatus
from ambient.waypoint.deploy import INGRESS_CLASSES, account_of, is_ingress, trouble, unread_networks
from ambient.waypoint.door import GatewayView
from ambient.waypoint.exports import read_exports
from ambient.waypoint.front import Place, View
from ambient.waypoint.ingress import gateway_resources
from ambient.waypoint.resources import ENVOY_ORDER, ENVOY_TYPES
from ambient.waypoint.typed import LISTENER_TYPE, Message
from ambient.waypoint.wire import encoding
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import Resource
from ambient.xds.server import DeltaStream
from ambient.xds.steps import finish

ACCEPTED: Final = "Accepted"
PROVIDER: Final = "ambient.mesh/ProviderFound"
CONFIGURED: Final = "ambient.mesh/Configured"

_log = logging.getLogger("ambient.control.waypoints")


@dataclass(slots=True)
class _Served:
    """One waypoint or gateway. `made`: content and bytes of each resource by type and name, `of`: the view that all was
    made of. `failures`: what could not be made. `streams`: of its proxies; true for one that has once had, and taken,
    all there was. `told`: of a gateway what it was made of. `busy`: it is being made, in steps; `again`: something that
    counts has happened meanwhile. `nodes`: where its proxies are."""

    gateway: Gateway
    waypoint: Waypoint | None = None
    refusals: WaypointRefusals = field(default_factory=WaypointRefusals)
    told: Told | None = None
    catalogue: Catalogue = field(default_factory=lambda: Catalogue(types=ENVOY_TYPES))
    places: Places = field(default_factory=Places)
    made: dict[tuple[str, str], tuple[Message, Resource]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    streams: dict[DeltaStream, bool] = field(default_factory=dict)
    nodes: dict[DeltaStream, str] = field(default_factory=dict)
    of: View | GatewayView | None = None
    busy: bool = False
    again: bool = False


class Waypoints:
    """`update` after each derivation. `say(key)`: something new is to be said of a Gateway. `obstacle(key)`: why what
    it stands for cannot be made, where that is known. `proxies` is to be run beside."""

    def __init__(
        self,
        trust_domains: tuple[str, ...],
        root_namespace: str,
        domain: str,
        keys: KeySets | None = None,
        *,
        roots: str = "",
        ingress_classes: Collection[str] = INGRESS_CLASSES,
        counting: Counting | None = None,
    ) -> None:
        """`keys`: those that are fetched; None: none are. `ingress_classes`: names of those that are ours whoever has
        made them. `counting`: who counts limits for all proxies. `roots`: PEM of the authorities that the system
        believes."""
        self._keys = keys
        fetched_keys = keys.keys if keys is not None else lambda url: ""
        self._fronts = Fronts(trust_domains, root_namespace, fetched_keys, counting, domain, roots)
        self.evidence = self._fronts.evidence
        self._domain = domain
        self._served: dict[str, _Served] = {}
        self._unfit: dict[str, Condition] = {}
        self._records = Records()
        self._own_classes: tuple[str, ...] = ()
        self._ingress_classes = ingress_classes
        self.say: Callable[[str], None] = lambda key: None
        self.obstacle: Callable[[str], Condition | None] = lambda key: None
        self.proxies = Proxies(self._seen, lambda name: self.say(f"{Gateway.kind}/{name}"))

    def update(self, records: Records, derived: Derived) -> bool:
        """Take a snapshot and what was derived from it; whether any waypoint has something new to be told."""
        return finish(self.updating(records, derived))

    def updating(self, records: Records, derived: Derived) -> Generator[None, None, bool]:
        """`update` in small steps, so that its caller can do other things in between; of each waypoint nothing is
        changed before all of it is made. One at a time.

        What a defect of ours keeps from being made stays as it was, and is said on its Gateway: nobody else's waypoint,
        and no ztunnel, waits for it."""
        try:
            self._fronts.update(records, derived)
        except Exception as error:
            for served in self._served.values():
                _keep(served, error)
            return False
        if self._keys is not None:
            urls: dict[str, list[str]] = {}
            for key, rules in self._fronts.key_urls.items():
                urls.setdefault(key.split("/")[1], []).extend(rule.keys_url for rule in rules.values())
            self._keys.want(urls)
        self._records = records
        classes = {one.name: one for one in records.of(GatewayClass)}
        self._own_classes = tuple(one.key for one in classes.values() if is_own_class(one))
        gateways = [
            one
            for one in records.of(Gateway)
            if is_ours(one, classes.get(one.class_name), self._ingress_classes) and not one.deleting
        ]
        self._unfit = {one.key: why for one in gateways if (why := trouble(one))}
        ours = {one.key: one for one in gateways if one.key not in self._unfit}
        for key in self._served.keys() - ours.keys():
            for stream in self._served.pop(key).streams:
                # Should the Gateway come back, it has a new catalogue: nobody may be left with this one.
                stream.end("its Gateway is none of ours any more")
        changed = False
        for key, gateway in ours.items():
            served = self._served.setdefault(key, _Served(gateway))
            served.gateway = gateway
            served.waypoint = derived.waypoints.get(f"{gateway.namespace}/{gateway.name}")
            changed |= yield from self._making(served, records.revision)
        return changed

    def renew(self, urls: Collection[str]) -> bool:
        """Keys that were fetched are other ones, or cannot be had; whether any waypoint has to be told."""
        self._fronts.renew()
        changed = any([self._made(served, served.catalogue.revision) for served in self._served.values()])
        for key, rules in self._fronts.key_urls.items():
            if any(rule.keys_url in urls for rule in rules.values()):
                self.say(key)
        return changed

    def configure(self, mesh: MeshConfig) -> bool:
        """Other providers may be asked; whether any waypoint has to be told."""
        concerned = self._fronts.configure(mesh)
        changed = self.renew(())
        for key in concerned:
            self.say(key)
        return changed

    def _made(self, served: _Served, revision: int) -> bool:
        served.of = None
        if served.busy:
            # Whoever is at it tells everybody in the end.
            served.again = True
            return False
        return finish(self._making(served, revision))

    def _making(self, served: _Served, revision: int) -> Generator[None, None, bool]:
        changed, served.busy, served.again = False, True, True
        try:
            while served.again:
                served.again = False
                yield
                changed |= yield from self._make(served, revision)
        except Exception as error:
            _keep(served, error)
        finally:
            served.busy = False
        return changed

    def _make(self, served: _Served, revision: int) -> Generator[None, None, bool]:
        of: View | GatewayView
        if is_ingress(served.gateway):
            served.told = told = yield from self._fronts.telling(served.gateway)
            evidence = frozenset(one.name for one in told.view.evidence)
            steps = served.refusals.told_by(lambda refused: gateway_resources(told.view, refused), evidence)
            of = told.view
        elif served.waypoint is not None:
            of = yield from self._fronts.viewing(served.waypoint, served.gateway)
            steps = served.refusals.told(of)
        else:
            return False
        if of is served.of:
            served.places.confirm(revision)
            return bool(served.catalogue.change((), {}, revision))
        found = yield from steps
        made: dict[tuple[str, str], tuple[Message, Resource]] = {}
        failures = {**read_exports(served.gateway.annotations)[1], **unread_networks(served.gateway)}
        new = 0
        for url, name, content in found:
            before = served.made.get((url, name))
            if before is not None and (before[0] is content or before[0] == content):
                made[url, name] = before
                continue
            if (new := new + 1) % SLICE == 0:
                yield
            try:
                made[url, name] = (content, (yield from encoding(url, name, content)))
            except InvalidInput as error:
                # A defect of ours. What was there stays, where it was.
                _log.error("Gateway %s/%s: %s", served.gateway.namespace, served.gateway.name, error)
                failures[name] = str(error)
                if before is not None:
                    made[url, name] = before
        served.made, served.failures, served.of = made, failures, None if served.again else of
        begun = isinstance(of, View) and served.places.begin(of)
        for stream in served.streams if begun else ():
            stream.end("where it is counts now")
        changed = begun | served.places.update(made, revision)
        return bool(served.catalogue.update((one for _, one in made.values()), revision)) or changed

    def wanted_addresses(self, records: Records) -> Iterator[tuple[Gateway, tuple[TypedAddress, ...]]]:
        """Gateways whose status has other addresses than their Services. Without a Service they keep what they have."""

        def service(namespace: str, name: str) -> Service | None:
            return records.find(Service, namespace, name)

        for served in self._served.values():
            found = addresses(served.gateway, service, self._domain)
            given = served.gateway.assigned
            if found and (found != given if is_ingress(served.gateway) else not set(found) <= set(given)):
                yield served.gateway, found

    def listeners(self) -> Iterator[tuple[str, tuple[ListenerStatus, ...]]]:
        """Of each gateway, by key, what is to be said of its listeners."""
        for key in self._served:
            if (found := self.listeners_of(key)) is not None:
                yield key, found

    def listeners_of(self, key: str) -> tuple[ListenerStatus, ...] | None:
        """The same of one; None when it is no gateway of ours."""
        served = self._served.get(key)
        return served.told.listeners_with(served.refusals.evidence) if served and served.told is not None else None

    def parents(self) -> Mapping[str, tuple[ParentStatus, ...]]:
        """Of each route that is on gateways, by key, what is to be said of each."""
        found: dict[str, tuple[ParentStatus, ...]] = {}
        for served in self._served.values():
            for key, said in served.told.parents.items() if served.told is not None else ():
                found[key] = found.get(key, ()) + said
        return found

    def ancestors(self) -> Mapping[str, tuple[AncestorStatus, ...]]:
        """Of each BackendTLSPolicy that concerns a Gateway of ours, by key, what is to be said for each."""
        return self._fronts.originations.ancestors()

    # --- clients

    def open(self, caller: Caller, gateway: str) -> DeltaStream:
        """The stream of a waypoint's proxy, for the Gateway that it names; raises Refused when it is not the caller's:
        a waypoint learns of nobody's services but its own."""
        served = self._served.get(record_key(Gateway.kind, caller.namespace, gateway))
        if served is None or account_of(served.gateway) != caller.service_account:
            raise Refused("token", caller.account, f"is no waypoint of Gateway {caller.namespace}/{gateway[:100]}")
        place = Place(caller.node, node_locality(self._records.find(Node, "", caller.node)))
        catalogue = served.places.at(place, served.made, served.catalogue.revision) or served.catalogue
        stream = DeltaStream(catalogue, prefix=f"{gateway}.", order=ENVOY_ORDER)
        served.streams[stream], served.nodes[stream] = False, caller.node
        return stream

    def heard(self, stream: DeltaStream) -> bool:
        """A client of ours has answered, or asked for something. Whether there is more to be told because of it: what
        it refuses is closed at once, for every proxy of the waypoint."""
        changed = False
        for key, served in self._served.items():
            if stream in served.streams:
                if served.refusals.hear(stream, served.made):
                    changed |= self._made(served, served.catalogue.revision)
                    _log.error("%s refuses %s: closed are %s", key, served.refusals.why, served.refusals.closed)
                self.say(key)
        return changed

    def close(self, stream: DeltaStream) -> bool:
        """A client has gone. Any stream may be given. Whether there is more to be told to others because of it."""
        changed = False
        for key, served in self._served.items():
            if stream in served.streams:
                del served.streams[stream], served.nodes[stream]
                served.places.keep(set(served.nodes.values()))
                if served.refusals.forget(stream):
                    changed |= self._made(served, served.catalogue.revision)
                self.say(key)
        return changed

    def with_gateways(self, conditions: Mapping[str, tuple[Condition, ...]]) -> Mapping[str, tuple[Condition, ...]]:
        """`conditions`, what is said of HTTPRoutes, and the keys of the class and of the Gateways that there is
        something to say of."""
        more: dict[str, tuple[Condition, ...]] = {key: () for key in (*self._served, *self._unfit)}
        for key in self._own_classes:
            more[key] = (Condition(ACCEPTED, "True", "Accepted", "Handled by the control plane"),)
        more.update(self._fronts.route_conditions())
        return MappingProxyType({**conditions, **more}) if more else conditions

    def conditions(self, key: str) -> tuple[Condition, ...]:
        """What is known of a Gateway, or of the keys of a RequestAuthentication; () when it is none of ours."""
        if self._keys is not None and (rules := self._fronts.key_urls.get(key)):
            return (fetched(rules, self._keys),)
        if key in self._unfit:
            return (self._unfit[key],)
        if why := self._fronts.unasked(key):
            return (
                Condition(PROVIDER, "False", "NotFound", f"spec.provider: {why}: what the policy matches is refused"),
            )
        if why := self._fronts.untold(key):
            return (Condition(PROVIDER, "False", "NotFound", f"{why}: what else it says is in force"),)
        served = self._served.get(key)
        if served is None:
            return ()
        accepted = Condition(ACCEPTED, "True", "Accepted", "Resource accepted")
        if served.told is not None:
            accepted = served.told.accepted
        obstacle = self.obstacle(key)
        tls = (*lenient(served.gateway), *self._fronts.originations.proof(served.gateway))
        if not served.gateway.assigned:
            nowhere = Condition(PROGRAMMED, "False", "AddressNotAssigned", "its Service has no address yet")
            return (accepted, obstacle or nowhere, *tls)
        obstacle = obstacle or unmet(served.gateway)
        return (accepted, obstacle or self._programmed(served), self._configured(served), *tls)

    def _serves(self, gateway: Gateway) -> bool:
        serves = self.proxies.serves(f"{gateway.namespace}/{gateway.name}")
        if serves is None:
            # We have just begun, and what was said before holds until it is known better.
            said = gateway.condition(PROGRAMMED)
            serves = said is not None and said.status == "True"
        return serves

    def _programmed(self, served: _Served) -> Condition:
        if self._serves(served.gateway):
            return Condition(PROGRAMMED, "True", "Programmed", "Resource programmed, assigned to its Service")
        return Condition(PROGRAMMED, "False", "Pending", "none of its proxies is connected and configured")

    def _seen(self) -> Mapping[str, Sight]:
        found = {}
        for one in self._served.values():
            for stream, taken in one.streams.items():
                one.streams[stream] = taken or (stream.settled and bool(stream.last_acked(LISTENER_TYPE)))
            found[f"{one.gateway.namespace}/{one.gateway.name}"] = Sight(
                len(one.streams), sum(one.streams.values()), MappingProxyType(_refused(one))
            )
        return found

    def _configured(self, served: _Served) -> Condition:
        sight = self.proxies.sight(f"{served.gateway.namespace}/{served.gateway.name}")
        if sight.refused:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(sight.refused.items()))
            shut = f"; closed are {', '.join(closed)[:1000]}" if (closed := served.refusals.closed) else ""
            return Condition(CONFIGURED, "False", "Refused", f"{told[:1000]}{shut}; everything else is in force")
        if not sight.connected and not self._serves(served.gateway):
            then = "nobody gets in" if is_ingress(served.gateway) else "its services refuse"
            return Condition(CONFIGURED, "False", "NoProxy", f"no proxy of it is connected: {then}")
        return Condition(CONFIGURED, "True", "Accepted", "its proxies have taken their configuration")

    @property
    def summary(self) -> Mapping[str, Mapping[str, Any]]:
        """Per Gateway ("namespace/name"): whether it is an ingress, proxies connected, whether they have all there is,
        what they refuse, and what is closed because of it."""
        return {
            f"{one.gateway.namespace}/{one.gateway.name}": {
                "ingress": is_ingress(one.gateway),
                "proxies": len(one.streams),
                "settled": all(stream.settled for stream in one.streams),
                "acked": min((stream.acked for stream in one.streams), default=-1),
                "refused": _refused(one),
                "closed": list(one.refusals.closed),
                "resources": len(one.made),
            }
            for one in self._served.values()
        }


def _refused(served: _Served) -> dict[str, str]:
    now = {name: why for stream in served.streams for name, why in stream.nacks.items()}
    return {**now, **served.refusals.why, **served.failures}


def _keep(served: _Served, error: Exception) -> None:
    _log.exception("Gateway %s/%s: what it is told stays", served.gateway.namespace, served.gateway.name)
    served.of, served.failures = None, {"all of it": f"stays as it was: {type(error).__name__}: {error}"}
