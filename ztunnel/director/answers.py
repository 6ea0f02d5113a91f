"""Answers to workers' questions (route, peer, name) and exactly what each has to forget when discovery changes.

Pure over a Mesh. Remembers who asked what and what each answer depended on; bounded: the oldest question of a
worker is forgotten (there too) when it asks about too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ambient.model.address import Endpoint, IpAddress
from ambient.model.authority import meaning_of
from ambient.model.mesh import Changes, Mesh, address_name
from ambient.model.names import resolve_name
from ambient.model.outcome import PeerLabels
from ambient.model.route import peer_labels, route
from ztunnel.director.policies import PodInfo, Site, source_of
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk
from ztunnel.ipc.messages import Forget, NameAnswer, NameAsk, PeerAnswer, PeerAsk, RouteAnswer, RouteAsk

LARGEST: Final = 32_768
"""Questions remembered per worker."""

RouteKey = tuple[str, IpAddress, int]
AuthorityKey = tuple[str, str]
Key = RouteKey | AuthorityKey | IpAddress
"""A route question, an authority's, or the address of a peer question."""


class _Asked:
    """What one worker has cached, by what it depends on."""

    def __init__(self) -> None:
        self.depends: OrderedDict[Key, frozenset[str]] = OrderedDict()
        self.by_name: dict[str, set[Key]] = {}
        self.names: set[str] = set()

    def add(self, key: Key, depends: frozenset[str]) -> None:
        self.drop(key)
        self.depends[key] = depends
        for name in depends:
            self.by_name.setdefault(name, set()).add(key)

    def drop(self, key: Key) -> None:
        for name in self.depends.pop(key, ()):
            keys = self.by_name[name]
            keys.discard(key)
            if not keys:
                del self.by_name[name]


class Answers:
    """One per director; workers are told apart by their slot and pid."""

    def __init__(
        self,
        mesh: Mesh,
        site: Site,
        *,
        domain: str,
        registry_only: bool,
        ipv6: bool = True,
        preferred_namespace: str = "",
        limit: int = LARGEST,
    ) -> None:
        """`preferred_namespace` wins where several have a service of one name (DNS)."""
        self._mesh = mesh
        self._site = site
        self._domain = domain
        self._registry_only = registry_only
        self._ipv6 = ipv6
        self._preferred_namespace = preferred_namespace
        self._limit = limit
        self._asked: dict[int, _Asked] = {}

    def joined(self, pid: int) -> None:
        """A worker (re)connected; what it may have cached from an earlier director is not known here."""
        self._asked[pid] = _Asked()

    def left(self, pid: int) -> None:
        self._asked.pop(pid, None)

    def route(self, pid: int, pod: PodInfo, ask: RouteAsk) -> RouteAnswer:
        """The plan for one destination of a local pod."""
        site = self._site
        source = source_of(self._mesh, site, pod)
        routed = route(
            self._mesh, source, Endpoint(ask.ip, ask.port), network=site.network, registry_only=self._registry_only
        )
        self._remember(pid, (ask.uid, ask.ip, ask.port), frozenset({*routed.depends, f"workload:{source.uid}"}))
        return RouteAnswer(uid=ask.uid, ip=ask.ip, port=ask.port, plan=routed.plan)

    def needs(self, pod: PodInfo, ask: RouteAsk | AuthorityAsk) -> frozenset[str]:
        """Names (as `Changes.names`) of all that the answer would depend on, as far as that can be seen now."""
        source = source_of(self._mesh, self._site, pod)
        if isinstance(ask, AuthorityAsk):
            return meaning_of(self._mesh, source, ask.authority, self._site.network).depends
        endpoint = Endpoint(ask.ip, ask.port)
        return route(
            self._mesh, source, endpoint, network=self._site.network, registry_only=self._registry_only
        ).depends

    def peer(self, pid: int, ask: PeerAsk) -> PeerAnswer:
        """Labels of whoever has an address (empty: nobody we know)."""
        workload = self._mesh.workload_by_address(self._site.network, ask.ip)
        depends = {address_name(self._site.network, ask.ip)}
        if workload is not None:
            depends.add(f"workload:{workload.uid}")
        self._remember(pid, ask.ip, frozenset(depends))
        return PeerAnswer(ip=ask.ip, labels=peer_labels(workload) if workload else PeerLabels())

    def authority(self, pid: int, pod: PodInfo, ask: AuthorityAsk) -> AuthorityAnswer:
        """What an authority means at a local pod."""
        itself = source_of(self._mesh, self._site, pod)
        meaning = meaning_of(self._mesh, itself, ask.authority, self._site.network)
        self._remember(pid, (ask.uid, ask.authority), meaning.depends)
        return AuthorityAnswer(uid=ask.uid, authority=ask.authority, port=meaning.port, address=meaning.address)

    def name(self, pid: int, pod: PodInfo, ask: NameAsk) -> NameAnswer:
        """Addresses of a mesh name as this pod sees it."""
        client = source_of(self._mesh, self._site, pod)
        found = resolve_name(
            self._mesh,
            client,
            ask.name,
            ask.qtype,
            self._domain,
            preferred_namespace=self._preferred_namespace,
            ipv6=self._ipv6,
        )
        if pid in self._asked:
            self._asked[pid].names |= found.depends
        return NameAnswer(
            uid=ask.uid,
            name=ask.name,
            qtype=ask.qtype,
            known=found.known,
            addresses=tuple(str(ip) for ip in found.addresses),
            canonical=found.canonical,
        )

    def forget(self, changes: Changes, send: Callable[[int, Forget], None]) -> None:
        """Tell each worker which of its cached answers a change has made doubtful, and nothing else."""
        if not changes.names:
            return
        for pid, asked in self._asked.items():
            keys = {key for name in changes.names for key in asked.by_name.get(name, ())}
            for key in keys:
                asked.drop(key)
            names = not asked.names.isdisjoint(changes.names)
            if names:
                asked.names.clear()
            if keys or names:
                send(pid, _forget(keys, names=names))

    def overflow(self, pid: int) -> Forget | None:
        """What the worker must drop so that its questions stay within the limit; None: nothing."""
        asked = self._asked.get(pid)
        if asked is None:
            return None
        oldest: set[Key] = {next(iter(asked.depends))} if len(asked.depends) > self._limit else set()
        for key in oldest:
            asked.drop(key)
        # Which name depended on what is not kept, so they go all at once; a pod may invent as many as it likes.
        names = len(asked.names) > self._limit
        if names:
            asked.names.clear()
        return _forget(oldest, names=names) if oldest or names else None

    def gone(self, uid: str, send: Callable[[int, Forget], None]) -> None:
        """A pod left the mesh. Its answers go at the workers too: it may come back under the same uid, and what nobody
        remembers having said would never be taken back."""
        for pid, asked in self._asked.items():
            keys: set[Key] = {key for key in asked.depends if isinstance(key, tuple) and key[0] == uid}
            for key in keys:
                asked.drop(key)
            if keys:
                send(pid, _forget(keys, names=False))

    def _remember(self, pid: int, key: Key, depends: frozenset[str]) -> None:
        if pid in self._asked:
            self._asked[pid].add(key, depends)


def _forget(keys: set[Key], *, names: bool) -> Forget:
    routes = tuple(key for key in keys if isinstance(key, tuple) and len(key) == 3)
    authorities = tuple(key for key in keys if isinstance(key, tuple) and len(key) == 2)
    peers = tuple(key for key in keys if not isinstance(key, tuple))
    return Forget(routes=routes, peers=peers, authorities=authorities, names=names)
