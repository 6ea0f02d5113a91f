"""Objects that are followed one by one, by their names: what somebody refers to, of kinds that are never read whole.

An object that may not be read counts as known to be none, and why not is kept; it is asked for again and again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from ambient.kube.api.client import ApiClient
from ambient.kube.api.follow import Follower
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.objects import resources
from ambient.kube.resource import Name

PACE: Final = Pace(longest_s=5.0)
_ENOUGH: Final = 6
"""So many failures in a row, and nobody else's news wait for this object any longer."""
MOST: Final = 500
"""Of one namespace: whoever may write there makes us follow so many objects, each by a watch of its own."""

_log = logging.getLogger("ambient.kube.api")


@dataclass(slots=True)
class _Followed:
    follower: Follower
    task: asyncio.Task[None] | None = None
    forbidden: bool = False
    waited: bool = False
    """Others' news have waited for it for as long as they may."""


class NamedObjects:
    """`want`, and `run` beside. `deliver(change)`: an object has come, changed or gone; `told(key)`: whether it may be
    read is not as before; `settled`: there is no more at the moment."""

    def __init__(
        self,
        client: ApiClient,
        deliver: Callable[[Change], None],
        told: Callable[[str], None],
        settled: Callable[[], None],
        *,
        pace: Pace = PACE,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._told = told
        self._settled = settled
        self._pace = pace
        self._chance = chance
        self._followed: dict[Name, _Followed] = {}
        self._left: frozenset[Name] = frozenset()
        self._group: asyncio.TaskGroup | None = None

    def want(self, names: Collection[Name], patience_s: float) -> None:
        """Follow these and no others, of one namespace `MOST`: those that are followed before others, then in the order
        given. What is not wanted any more is delivered as gone. `known` waits for new ones for `patience_s`."""
        names = self._few(names)
        for name in self._followed.keys() - set(names):
            one = self._followed.pop(name)
            if one.task is not None:
                one.task.cancel()
            self._deliver(Change(name.key, None))
        new = []
        for name in sorted(set(names) - self._followed.keys()):
            one = self._followed[name] = _Followed(self._follower(name))
            new.append(one)
            self._start(one)
        if new:
            asyncio.get_running_loop().call_later(patience_s, self._waited_for, new)

    def _few(self, names: Collection[Name]) -> Collection[Name]:
        left, counted = set(), Counter[str]()
        for name in sorted(dict.fromkeys(names), key=lambda one: one not in self._followed):
            counted[name.namespace] += 1
            if counted[name.namespace] > MOST:
                left.add(name)
        if left and left != self._left:
            where = ", ".join(sorted({one.namespace for one in left}))
            _log.warning("%d objects are not read: of %s more than %d are named", len(left), where, MOST)
        self._left = frozenset(left)
        return set(names) - left

    def _waited_for(self, some: Collection[_Followed]) -> None:
        for one in some:
            one.waited = True
        self._settled()

    @property
    def known(self) -> bool:
        """Of each it is known whether it is there, or that this cannot be had, or it has been waited for enough."""
        return all(one.waited or _known(one.follower.core) for one in self._followed.values())

    def trouble(self, key: str) -> str:
        """Why an object that is wanted cannot be read, "" when it can, or is not wanted."""
        if any(one.key == key for one in self._left):
            return f"more than {MOST} objects of its namespace are named"
        found = (one.follower.core for name, one in self._followed.items() if name.key == key)
        return next((core.trouble for core in found if core.forbidden), "")

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for one in self._followed.values():
                self._start(one)
            await asyncio.Event().wait()

    def _start(self, one: _Followed) -> None:
        if self._group is not None and one.task is None:
            one.task = self._group.create_task(one.follower.run())

    def _follower(self, name: Name) -> Follower:
        core = ListWatch(
            name.kind,
            resources(name.kind),
            namespace=name.namespace,
            fields=f"metadata.name={name.name}",
            pace=self._pace,
            random=self._chance,
        )
        return Follower(self._client, core, self._deliver, lambda: self._heard(name))

    def _heard(self, name: Name) -> None:
        one = self._followed.get(name)
        if one is not None and one.follower.core.forbidden is not one.forbidden:
            one.forbidden = not one.forbidden
            self._told(name.key)
        self._settled()


def _known(core: ListWatch) -> bool:
    return core.synced or core.forbidden or core.failures >= _ENOUGH
