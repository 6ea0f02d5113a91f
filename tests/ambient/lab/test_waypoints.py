"""A Gateway in the lab brings its account, its Service and a pod; other Gateways bring nothing."""

from __future__ import annotations

from dataclasses import replace

from ambient.kube.networking import Gateway
from ambient.kube.objects import Pod, parse_object
from ambient.lab.names import Names
from ambient.lab.settings import LabSettings
from ambient.lab.waypoints import with_their_objects
from tests.support.waypoint_records import gateway

SETTINGS = LabSettings("t", 1, True, ())


def test_a_waypoint_brings_what_it_needs() -> None:
    record = parse_object(gateway(), "x")
    found = with_their_objects([record], SETTINGS)
    assert [one.kind for one in found] == ["Gateway", "ServiceAccount", "Service", "Pod"]
    pod = found[-1]
    assert isinstance(pod, Pod)
    assert pod.containers[0].command[1:] == ("-m", "ambient.waypoint.agent")
    assert Names("t").lab == SETTINGS.lab


def test_its_pod_is_where_the_annotation_says() -> None:
    raw = gateway()
    raw["metadata"]["annotations"] = {"ambient.mesh/node": "n2"}
    pod = with_their_objects([parse_object(raw, "x")], SETTINGS)[-1]
    assert isinstance(pod, Pod)
    assert pod.node_name == "n2"


def test_a_gateway_of_another_class_brings_nothing() -> None:
    record = parse_object(gateway(), "x")
    assert isinstance(record, Gateway)
    other = replace(record, class_name="somebody-elses")
    assert with_their_objects([other], SETTINGS) == [other]
