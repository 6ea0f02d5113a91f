"""Status of listeners and of routes on gateways, as written: times stay while nothing changes, so do others' words."""

from __future__ import annotations

from ambient.kube.records import Condition
from ambient.kube.status_values import ListenerStatus, ParentStatus, listeners_written, parents_written

GOOD, BAD = Condition("Accepted", "True", "Accepted"), Condition("Accepted", "False", "Conflicted")
REF = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}


def test_a_listener_keeps_the_time_of_a_status_that_stays() -> None:
    first = listeners_written([ListenerStatus("a", ("HTTPRoute",), 1, (GOOD,))], [], 3, "t1")
    assert first[0]["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]
    again = listeners_written([ListenerStatus("a", ("HTTPRoute",), 2, (GOOD,))], first, 4, "t2")
    (said,) = again[0]["conditions"]
    assert (said["lastTransitionTime"], said["observedGeneration"], again[0]["attachedRoutes"]) == ("t1", 4, 2)
    changed = listeners_written([ListenerStatus("a", (), 0, (BAD,))], again, 4, "t3")
    assert changed[0]["conditions"][0]["lastTransitionTime"] == "t3"
    assert listeners_written([], changed, 4, "t4") == []


def test_what_other_controllers_say_of_a_route_stays() -> None:
    theirs = {"parentRef": REF, "controllerName": "example.com/other", "conditions": []}
    first = parents_written([ParentStatus(REF, (GOOD,))], [theirs], 0, "t1")
    assert [one["controllerName"] for one in first] == ["example.com/other", "ambient.mesh/gateway-controller"]
    again = parents_written([ParentStatus(REF, (GOOD,))], first, 0, "t2")
    assert again == first
    assert parents_written([], again, 0, "t3") == [theirs]
