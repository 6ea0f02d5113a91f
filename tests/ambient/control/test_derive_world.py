"""Deriving only what a change concerns gives what deriving everything gives, after thousands of random edits."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from ambient.control.derive import Derivation, Derived, derive
from ambient.control.derive_world import DeriveSettings, World
from ambient.errors import InvalidInput
from ambient.kube.objects import Record, Records, RefusedObject, parse_object
from ambient.kube.selectors import parse_selectors
from ambient.model.policy import Authorization
from ambient.model.workload import Service, Workload
from tests.support.builders import raw
from tests.support.derivation import complete

SETTINGS = DeriveSettings()
SPACES = ("a", "b", "istio-system")
CHANGES = 3000


def labels(dice: random.Random) -> dict[str, str]:
    pairs = {"app": dice.choice("xyz"), "tier": dice.choice("12")}
    chosen = {key: value for key, value in pairs.items() if dice.random() < 0.7}
    if dice.random() < 0.2:
        chosen["istio.io/use-waypoint"] = dice.choice(("wp", "none"))
    return chosen


def selector(dice: random.Random) -> dict[str, str]:
    return dice.choice(({"app": "x"}, {"app": "y", "tier": "1"}, {"tier": "2"}, {}))


def a_pod(dice: random.Random) -> dict[str, Any]:
    metadata: dict[str, Any] = {"labels": labels(dice)}
    if dice.random() < 0.2:
        metadata["labels"]["gateway.networking.k8s.io/gateway-name"] = "wp"
    status = {"podIP": f"10.0.0.{dice.randrange(1, 250)}", "ready": dice.random() < 0.8}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": dice.choice(("n1", "n2"))},
        "status": {**status, "phase": dice.choice(("Running", "Running", "Running", "Failed"))},
    }


def a_service(dice: random.Random) -> dict[str, Any]:
    address = dice.choice(({"clusterIP": f"10.96.0.{dice.randrange(1, 250)}"}, {"clusterIP": "None"}, {}))
    spec = {**address, "selector": selector(dice), "ports": [{"port": dice.choice((80, 81))}]}
    given = labels(dice)
    if dice.random() < 0.3:
        given["istio.io/global"] = "true"
    return {"kind": "Service", "metadata": {"labels": given}, "spec": spec}


def an_entry(dice: random.Random) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "hosts": [dice.choice(("h1.example.com", "h2.example.com", "s.a.svc.cluster.local"))],
        "resolution": dice.choice(("DNS", "STATIC")),
        "ports": [{"number": 80, "name": "http"}],
    }
    if dice.random() < 0.5:
        spec["workloadSelector"] = {"labels": {"app": dice.choice("xy")}}
    elif spec["resolution"] == "STATIC":
        spec["endpoints"] = [{"address": "10.9.9.9", "network": dice.choice(("", "west"))}]
    return {"kind": "ServiceEntry", "metadata": {"labels": labels(dice)}, "spec": spec}


def a_workload_entry(dice: random.Random) -> dict[str, Any]:
    spec = {"address": "172.16.0.1", "labels": labels(dice), "network": dice.choice(("", "west", "east"))}
    return {"kind": "WorkloadEntry", "metadata": {}, "spec": spec}


def a_slice(dice: random.Random) -> dict[str, Any]:
    pod = {"kind": "Pod", "namespace": dice.choice("ab"), "name": dice.choice(("one", "two"))}
    endpoints: list[dict[str, Any]] = [{"addresses": ["10.0.0.1"], "targetRef": pod}, {"addresses": ["172.16.0.9"]}]
    return {
        "kind": "EndpointSlice",
        "metadata": {"labels": {"kubernetes.io/service-name": dice.choice(("one", "two"))}},
        "addressType": "IPv4",
        "endpoints": dice.sample(endpoints, dice.randrange(3)),
        "ports": [{"name": "", "port": 8080}],
    }


def a_policy(dice: random.Random) -> dict[str, Any]:
    spec: dict[str, Any] = {"action": dice.choice(("ALLOW", "DENY", "AUDIT"))}
    if dice.random() < 0.3:
        spec["targetRefs"] = [{"kind": "Service", "name": "one"}]
    elif dice.random() < 0.7:
        spec["selector"] = {"matchLabels": selector(dice)}
    return {"kind": "AuthorizationPolicy", "metadata": {}, "spec": spec}


def a_peer(dice: random.Random) -> dict[str, Any]:
    spec: dict[str, Any] = {"mtls": {"mode": dice.choice(("STRICT", "PERMISSIVE", "UNSET"))}}
    if dice.random() < 0.6:
        spec["selector"] = {"matchLabels": {"app": dice.choice("xyz")}}
        if dice.random() < 0.5:
            spec["portLevelMtls"] = {"80": {"mode": dice.choice(("STRICT", "PERMISSIVE"))}}
    return {"kind": "PeerAuthentication", "metadata": {}, "spec": spec}


def a_gateway(dice: random.Random) -> dict[str, Any]:
    waypoint = dice.random() < 0.6
    allowed = {"namespaces": {"from": dice.choice(("Same", "All"))}}
    return {
        "kind": "Gateway",
        "metadata": {
            "labels": {"topology.istio.io/network": "west", "istio.io/waypoint-for": dice.choice(("all", "service"))}
        },
        "spec": {
            "gatewayClassName": "istio-waypoint" if waypoint else "istio-remote",
            "addresses": [] if waypoint else [{"value": f"192.0.2.{dice.randrange(1, 4)}"}],
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": allowed}],
        },
        "status": {"addresses": dice.choice(([], [{"value": "10.96.0.9"}]))},
    }


def a_namespace(dice: random.Random) -> dict[str, Any]:
    given = labels(dice)
    if dice.random() < 0.2:
        given["topology.istio.io/network"] = dice.choice(("east", "west"))
    return {"kind": "Namespace", "metadata": {"labels": given}}


def a_node(dice: random.Random) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"labels": {"topology.kubernetes.io/zone": dice.choice("pq")}}}


MAKERS: tuple[Callable[[random.Random], dict[str, Any]], ...] = (
    *(a_pod, a_pod, a_pod, a_service, a_service, an_entry, a_workload_entry, a_slice),
    *(a_policy, a_peer, a_gateway, a_namespace, a_node),
)


def a_record(dice: random.Random) -> Record:
    built = complete(dice.choice(MAKERS)(dice))
    kind = built["kind"]
    built["metadata"] = copy.deepcopy(built["metadata"])
    built["metadata"]["name"] = {
        "Namespace": dice.choice(SPACES),
        "Node": dice.choice(("n1", "n2")),
        "Gateway": dice.choice(("wp", "gw")),
    }.get(kind, dice.choice(("one", "two", "s")))
    if kind not in ("Namespace", "Node"):
        built["metadata"]["namespace"] = dice.choice(SPACES)
    if dice.random() < 0.5:
        built["metadata"]["creationTimestamp"] = f"2026-01-0{dice.randrange(1, 9)}T00:00:00Z"
    return parse_object(built, "random")


def a_refusal(dice: random.Random) -> RefusedObject:
    kind = dice.choice(("AuthorizationPolicy", "PeerAuthentication", "Pod"))
    built = {"spec": {"selector": {"matchLabels": selector(dice)}, "action": dice.choice(("DENY", "ALLOW"))}}
    return RefusedObject(kind, dice.choice(SPACES), "broken", InvalidInput("x"), built, dice.random() < 0.3)


def edits(seed: int) -> list[Records]:
    """Snapshots, each a few changes away from the one before."""
    dice = random.Random(seed)
    held: dict[str, Record] = {}
    refused: dict[str, RefusedObject] = {}
    found = []
    for revision in range(CHANGES // 10):
        for _ in range(dice.choice((1, 1, 2, 5))):
            match dice.randrange(10):
                case 0 | 1 if held:
                    held.pop(dice.choice(sorted(held)))
                case 2:
                    one = a_refusal(dice)
                    if refused.pop(one.key, None) is None:
                        refused[one.key] = one
                case _:
                    record = a_record(dice)
                    held[record.key] = record
        found.append(Records(revision, dict(held), tuple(refused.values())))
    return found


def applied(before: Derived, after: Derived) -> Derived:
    """What somebody holds who had `before` and was told only the changes."""
    changes = after.changes
    assert changes is not None
    workloads, services, policies = dict(before.workloads), dict(before.services), dict(before.policies)
    for name in changes.gone_addresses:
        workloads.pop(name, None)
        services.pop(name, None)
    for name in changes.gone_policies:
        policies.pop(name)
    for value in changes.put:
        match value:
            case Workload():
                workloads[value.uid] = value
            case Service():
                services[value.key] = value
            case Authorization():
                policies[value.key] = value
    return Derived(workloads, services, policies, after.conditions, after.allocations, waypoints=after.waypoints)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_derived_step_by_step_is_what_is_derived_at_once(seed: int) -> None:
    stepwise = Derivation(SETTINGS)
    for records in edits(seed):
        assert stepwise.update(records) == derive(records, SETTINGS), records.revision


def noted(before: Records, after: Records) -> Records:
    """With the keys of what differs, as a source that knows them gives it."""
    keys = before.by_key.keys() | after.by_key.keys()
    changed = {key for key in keys if before.by_key.get(key) is not after.by_key.get(key)}
    return replace(after, changed=frozenset(changed))


@pytest.mark.parametrize("seed", range(5))
def test_a_source_that_says_what_changed_is_believed_unless_a_snapshot_is_missing(seed: int) -> None:
    stepwise = Derivation(SETTINGS)
    snapshots = edits(seed)
    for number, (before, after) in enumerate(pairwise(snapshots)):
        if number % 7 != 3:
            assert stepwise.update(noted(before, after)) == derive(after, SETTINGS), after.revision


@pytest.mark.parametrize("seed", range(4))
def test_namespaces_that_come_into_view_and_leave_it_bring_and_take_everything(seed: int) -> None:
    settings = DeriveSettings(discovery_selectors=parse_selectors("app=x;tier=2"))
    stepwise = Derivation(settings)
    snapshots = edits(seed)
    for before, after in pairwise(snapshots):
        assert stepwise.update(noted(before, after)) == derive(after, settings), after.revision
    assert any(derive(one, settings) != derive(one, SETTINGS) for one in snapshots)


@pytest.mark.parametrize("seed", range(3))
def test_who_is_told_only_the_changes_has_everything(seed: int) -> None:
    stepwise = Derivation(SETTINGS)
    snapshots = edits(seed)
    told = stepwise.update(snapshots[0])
    for records in snapshots[1:]:
        told = applied(told, stepwise.update(records))
        assert told == derive(records, SETTINGS)


class Forgetful(Derivation):
    """Does not note what rests on what."""

    def _remember_facts(self, key: str) -> None:
        self._world.read = set()


@pytest.mark.parametrize("seed", range(2))
def test_a_derivation_that_forgets_what_rests_on_a_fact_is_noticed(seed: int) -> None:
    """The comparison is worth something: without the notes it fails."""
    stepwise = Forgetful(SETTINGS)
    assert any(stepwise.update(records) != derive(records, SETTINGS) for records in edits(seed))


def test_the_first_result_is_all_new() -> None:
    assert Derivation(SETTINGS).update(Records()).changes is None


def test_what_does_not_change_is_not_told_again() -> None:
    stepwise = Derivation(SETTINGS)
    records = edits(0)[-1]
    stepwise.update(records)
    changes = stepwise.update(records).changes
    assert changes is not None
    assert (changes.put, changes.gone_addresses, changes.gone_policies) == ((), (), ())


class Counting(Derivation):
    """Notes what it derives."""

    def _derive(self, key: str) -> Any:
        self.asked = [*getattr(self, "asked", ()), key]
        return super()._derive(key)


def test_one_pod_that_changes_is_all_that_is_derived() -> None:
    stepwise = Counting(SETTINGS)
    pods = {f"Pod/shop/p{n}": pod_of(n) for n in range(100)}
    stepwise.update(Records(1, pods))
    stepwise.asked = []
    changes = stepwise.update(Records(2, {**pods, "Pod/shop/p7": pod_of(7, ready=False)})).changes
    assert changes is not None
    assert [getattr(one, "uid", "") for one in changes.put] == ["Kubernetes//Pod/shop/p7"]
    assert stepwise.asked == ["Pod/shop/p7"]


def pod_of(number: int, *, ready: bool = True) -> Record:
    built = {"kind": "Pod", "metadata": {"name": f"p{number}", "namespace": "shop"}, "status": {"ready": ready}}
    return parse_object(complete(built), "x")


class Breaking(Derivation):
    """Fails while `broken`."""

    broken = True

    def _derive(self, key: str) -> Any:
        if self.broken:
            raise ZeroDivisionError(key)
        return super()._derive(key)


def test_after_an_error_everything_is_derived_anew() -> None:
    stepwise = Breaking(SETTINGS)
    records = edits(1)[-1]
    with pytest.raises(ZeroDivisionError):
        stepwise.update(records)
    stepwise.broken = False
    assert stepwise.update(records) == derive(records, SETTINGS)


def test_the_world_answers_for_what_it_holds_and_notes_what_was_asked() -> None:
    world = World(SETTINGS)
    space = parse_object(raw("Namespace", "shop"), "x")
    world.put(space)
    assert world.namespace("shop") is space
    assert world.read == {"Namespace/_/shop"}
    world.drop(space.key)
    assert world.namespace("shop") is None
