"""What the proxies of one waypoint refuse of what they are told, and what is closed because of it.

A proxy that refuses a resource goes on with the one before, which may let through what the new one does not. So the
port of the service that it is for is closed, until the resource is another one or the proxy is no longer there.
Endpoints whose cluster is refused are taken away: routes of other services lead to them, too. Of what a gateway proves
itself with, or knows its clients by, the last version stays that a proxy has taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ambient.waypoint import tunnel
from ambient.waypoint.closed import NOTHING, Closed, differing, pool_of, port_of
from ambient.waypoint.front import View
from ambient.waypoint.origination import proved_by
from ambient.waypoint.resources import Made, resources
from ambient.waypoint.typed import CLUSTER_TYPE, ROUTE_TYPE, SECRET_TYPE, Message, Named
from ambient.waypoint.wire import version_of
from ambient.xds.codec import Resource
from ambient.xds.server import DeltaStream

_TABLE: Final = (ROUTE_TYPE, tunnel.CONNECT_ROUTES)

SLICE: Final = 10
"""Resources made in one go: some milliseconds."""

Steps = Generator[None, None, list[Named]]
"""Resources, made in steps (`ambient.xds.steps`)."""

_Key = tuple[str, str, str]
"""Type URL, name, version."""


@dataclass(slots=True)
class _Refusal:
    why: str
    streams: set[DeltaStream] = field(default_factory=set)


class WaypointRefusals:
    """Of one waypoint. `hear` what a stream says, `forget` it when it ends; `told` is what there is to be told."""

    def __init__(self) -> None:
        self._refusals: dict[_Key, _Refusal] = {}
        self._taken: Message = {}
        self._closed = NOTHING
        self._made = Made()
        self._untried: dict[str, Message] = {}
        self._good: dict[str, Message] = {}

    @property
    def why(self) -> Mapping[str, str]:
        """Reasons by the name of what is refused."""
        return {name: refusal.why for (_, name, _), refusal in self._refusals.items()}

    @property
    def evidence(self) -> Mapping[str, tuple[str, bool]]:
        """Why secrets are refused, by name, and whether there is a version that has been taken."""
        found = self._refusals.items()
        return {name: (one.why, name in self._good) for (url, name, _), one in found if url == SECRET_TYPE}

    @property
    def closed(self) -> tuple[str, ...]:
        """Names of the ports that nothing passes."""
        return tuple(sorted(self._closed.shut | self._closed.unlisted))

    def hear(self, stream: DeltaStream, served: Mapping[tuple[str, str], tuple[Message, Resource]]) -> bool:
        """Whether there is something new to be closed. `served`: what there is, by type and name."""
        new = False
        for key, why in stream.refused.items():
            if key in self._refusals:
                self._refusals[key].streams.add(stream)
            elif key[:2] in served and served[key[:2]][1].version == key[2]:
                self._refusals[key] = _Refusal(why, {stream})
                new = True
        if _TABLE in served and stream.has(*_TABLE, served[_TABLE][1].version):
            self._taken = served[_TABLE][0]
        for name, content in tuple(self._untried.items()):
            told = served.get((SECRET_TYPE, name))
            if told is not None and told[0] == content and stream.has(SECRET_TYPE, name, told[1].version):
                self._good[name] = self._untried.pop(name)
        return new

    def forget(self, stream: DeltaStream) -> bool:
        """Whether there is something to be tried again."""
        for refusal in self._refusals.values():
            refusal.streams.discard(stream)
        left = {key: refusal for key, refusal in self._refusals.items() if refusal.streams}
        gone = len(left) < len(self._refusals)
        self._refusals = left
        return gone

    def told(self, view: View) -> Steps:
        """Every resource, with what is closed; what is refused no more is forgotten. What is heard between two steps
        counts the next time."""
        before, closed = set(self._refusals), NOTHING
        found = yield from _listed(resources(view, made=self._made))
        if not before:
            self._closed = closed
            return found
        kept = self._refused(found)
        secrets = {name for url, name, _ in kept if url == SECRET_TYPE}
        unproved = proved_by((*view.fronts, *view.beyond, *view.asked, *filter(None, (view.limiter,))), secrets)
        if ports := unproved.union(filter(None, (port_of(name) for _, name, _ in kept))):
            lost = {name for url, name, _ in kept if url == CLUSTER_TYPE and pool_of(name)}
            lost |= {name for url, name, _ in found if url == CLUSTER_TYPE and pool_of(name) in unproved}
            closed = Closed(shut=ports, gone=frozenset(lost))
            found = yield from _listed(resources(view, closed, self._made))
        every = differing(_table(found), {})
        if any(
            not port_of(name) and (url, name) != _TABLE and not (unproved and url == SECRET_TYPE)
            for url, name, _ in kept
        ):
            # It is for all of them.
            closed = replace(closed, unlisted=every)
            found = yield from _listed(resources(view, closed, self._made))
        # What a table says anew may be why it is refused. If it is not that, nobody can tell.
        for suspects in (differing(_table(found), self._taken), every):
            if not (refused := self._refused([(*_TABLE, _table(found))])):
                break
            kept |= refused
            closed = replace(closed, unlisted=closed.unlisted | suspects)
            found = yield from _listed(resources(view, closed, self._made))
        self._closed = closed
        self._keep(before, kept | self._refused(found))
        return found

    def told_by(self, make: Callable[[frozenset[str]], Iterable[Named]], evidence: Collection[str] = ()) -> Steps:
        """The same of a gateway: `make(names)` gives every resource, what depends on refused names closed. `evidence`:
        names of the secrets whose last good version stays."""
        before = set(self._refusals)
        found = yield from _listed(make(frozenset()))
        if before:
            kept = self._refused(found)
            found = yield from _listed(make(frozenset(name for _, name, _ in kept)))
            self._keep(before, kept | self._refused(found))
            refused = {name for url, name, _ in kept if url == SECRET_TYPE}
            stay = {name: self._good[name] for name in refused.intersection(evidence, self._good)}
            found = [(url, name, stay.get(name, one) if url == SECRET_TYPE else one) for url, name, one in found]
        secrets = {name: content for url, name, content in found if url == SECRET_TYPE and name in evidence}
        self._good = {name: one for name, one in self._good.items() if name in secrets}
        self._untried = {name: one for name, one in secrets.items() if self._good.get(name) != one}
        return found

    def _keep(self, before: Collection[_Key], kept: Collection[_Key]) -> None:
        """Of the refusals that there were before; newer ones stay."""
        self._refusals = {key: one for key, one in self._refusals.items() if key in kept or key not in before}

    def _refused(self, found: Iterable[Named]) -> set[_Key]:
        names = {key[:2] for key in self._refusals}
        made = {(url, name, version_of(content)) for url, name, content in found if (url, name) in names}
        return made & self._refusals.keys()


def _listed(found: Iterable[Named]) -> Steps:
    listed: list[Named] = []
    for one in found:
        listed.append(one)
        if len(listed) % SLICE == 0:
            yield
    return listed


def _table(found: Iterable[Named]) -> Message:
    return next(content for url, name, content in found if (url, name) == _TABLE)
