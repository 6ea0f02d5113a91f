"""What a snapshot knows of each kind, by itself and carried over from the one before it."""

from __future__ import annotations

import random
from types import MappingProxyType
from typing import Any

from ambient.kube.objects import Namespace, Pod, Record, Records, Service, parse_object
from ambient.kube.routing import AttachedRoute, HTTPRoute

KINDS: tuple[type[Record], ...] = (Record, Namespace, Service, Pod, AttachedRoute, HTTPRoute)
ROUTE = "gateway.networking.k8s.io/v1"


def made(kind: str, name: str, **labels: str) -> Record:
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    raw: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    if kind != "Namespace":
        metadata["namespace"] = "shop"
    if kind.endswith("Route"):
        raw |= {"apiVersion": ROUTE, "spec": {"rules": []}}
    elif kind == "Pod":
        raw["spec"] = {"containers": [{"name": "c", "image": "x"}]}
    elif kind == "Service":
        raw["spec"] = {"ports": [{"port": 80}]}
    return parse_object(raw, "t")


def walked(records: Records, kind: type[Record]) -> list[Record]:
    return [one for _, one in sorted(records.by_key.items()) if isinstance(one, kind)]


def agrees(records: Records) -> bool:
    return all(records.of(kind) == walked(records, kind) for kind in KINDS)


class Steps:
    """Snapshots of a source, one after the other."""

    def __init__(self) -> None:
        self.held: dict[str, Record] = {}
        self.last = Records()

    def take(self, *changes: Record, gone: tuple[str, ...] = (), known: bool = True) -> Records:
        self.held.update({one.key: one for one in changes})
        for key in gone:
            self.held.pop(key, None)
        changed = frozenset([*(one.key for one in changes), *gone]) if known else None
        by_key = MappingProxyType(self.held.copy())
        self.last = Records(self.last.revision + 1, by_key, changed=changed).since(self.last)
        return self.last


def test_what_is_carried_over_is_what_would_be_found_by_looking_through_all() -> None:
    draw = random.Random(7)
    steps = Steps()
    for step in range(300):
        names = [(draw.choice(("Namespace", "Service", "Pod", "HTTPRoute", "GRPCRoute")), f"n{draw.randrange(9)}")]
        records = [made(kind, name, step=str(step)) for kind, name in names * draw.randrange(3)]
        gone = tuple(draw.sample(sorted(steps.held), min(len(steps.held), draw.randrange(3))))
        found = steps.take(*records, gone=gone, known=draw.random() > 0.1)
        if draw.random() < 0.7:
            assert agrees(found)
    assert agrees(steps.last)


def test_the_snapshot_before_stays_what_it_was() -> None:
    steps = Steps()
    first = steps.take(made("Pod", "a"), made("Service", "s"), known=False)
    assert [one.name for one in first.of(Pod)] == ["a"]
    second = steps.take(made("Pod", "b"), gone=("Service/shop/s",))
    assert [one.name for one in second.of(Pod)] == ["a", "b"]
    assert (second.of(Service), [one.name for one in first.of(Pod)]) == ([], ["a"])
    assert [one.name for one in first.of(Service)] == ["s"]


class Counted(dict[str, Record]):
    """Counts how often all of it is looked through."""

    walks = 0

    def items(self) -> Any:
        self.walks += 1
        return super().items()


def test_however_many_ask_all_is_looked_through_once_and_then_not_again() -> None:
    pods = {one.key: one for one in (made("Pod", f"p{number}") for number in range(5))}
    whole = Counted(pods)
    first = Records(1, whole)
    for kind in KINDS:
        first.of(kind)
    assert whole.walks == 1
    changed = made("Pod", "p1", now="other")
    whole = Counted({**pods, changed.key: changed})
    second = Records(2, whole, changed=frozenset((changed.key,))).since(first)
    assert changed in second.of(Pod)
    assert whole.walks == 0


def test_what_was_given_for_a_list_does_not_change_what_is_known() -> None:
    records = Records(1, {one.key: one for one in (made("Pod", "a"), made("Pod", "b"))})
    records.of(Pod).clear()
    assert [one.name for one in records.of(Pod)] == ["a", "b"]


def test_a_snapshot_equals_another_whoever_has_asked_it() -> None:
    pod = made("Pod", "a")
    asked, fresh = Records(1, {pod.key: pod}), Records(1, {pod.key: pod})
    asked.of(Pod)
    assert asked == fresh
