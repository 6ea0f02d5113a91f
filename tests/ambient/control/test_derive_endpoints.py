"""Labels of what is behind a service: those of its pod, its WorkloadEntry, or the endpoint that an entry lists."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_endpoints import Labels
from ambient.control.derive_front import Fronts
from ambient.kube.networking import Gateway
from ambient.kube.objects import Records
from ambient.waypoint.front import FrontPort, Subset
from tests.ambient.control.test_derive_virtual import RULE, V1, look, virtual
from tests.support.builders import raw, records, workload
from tests.support.waypoint_records import derived, scene


def istio(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {**raw(kind, name, spec), "apiVersion": "networking.istio.io/v1"}


def test_labels_are_those_of_where_a_workload_came_from() -> None:
    entry = istio("WorkloadEntry", "vm", {"address": "10.9.0.1", "labels": {"a": "entry"}})
    listed = {"hosts": ["x.example.com"], "resolution": "STATIC", "ports": [{"number": 80, "name": "http"}]}
    endpoints = [{"address": "10.9.0.2", "labels": {"a": "inline"}}]
    outside = istio("ServiceEntry", "x", {**listed, "endpoints": endpoints})
    labels = Labels(records(raw("Pod", "p", {"containers": [{"name": "c"}]}, labels={"a": "pod"}), entry, outside))
    pod = workload("p", uid="Kubernetes//Pod/default/p")
    vm = workload("vm", uid="Kubernetes/networking.istio.io/WorkloadEntry/default/vm")
    inline = workload("x", "10.9.0.2", uid="Kubernetes/networking.istio.io/ServiceEntry/default/x/10.9.0.2")
    unknown = workload("u", uid="other//Pod/default/u")
    assert [labels.of(one).get("a") for one in (pod, vm, inline, unknown)] == ["pod", "entry", "inline", None]
    assert list(labels.fitting((pod, vm, inline, unknown), {"a": "pod"})) == [pod]


def addresses(part: FrontPort | Subset) -> list[str]:
    return [str(one.address) for one in part.backends]


def subset(found: Records, fronts: Fronts) -> list[str]:
    told = derived(found)
    fronts.update(found, told)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    (web,) = [one for one in fronts.view(told.waypoints["shop/waypoint"], record).fronts if "web." in one.hostname]
    return [str(one.address) for one in web.ports[0].subsets[0].backends]


def test_a_pod_that_is_given_another_label_changes_its_subset() -> None:
    http = [{"route": [{"destination": {"host": "web", "subset": "v1"}}]}]
    other = {**V1, "metadata": {**V1["metadata"], "labels": {"app": "web", "v": "2"}}}
    fronts = Fronts(("cluster.local",), "istio-system")
    assert subset(scene(V1, RULE, virtual(http=http)), fronts) == ["10.1.0.4"]
    assert subset(scene(other, RULE, virtual(http=http)), fronts) == []
    assert look(scene(V1, RULE, virtual(http=http)))[0].ports[0].subsets[0].backends


def test_an_endpoint_that_has_a_name_alone_is_called_by_it_unless_it_is_no_name() -> None:
    spec = {"hosts": ["x.example.com", "*.example.com"], "resolution": "DNS", "addresses": ["10.8.0.1"]}
    entry = istio("ServiceEntry", "x", {**spec, "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]})
    entry["metadata"] = {**entry["metadata"], "namespace": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}}
    fronts = {one.hostname: one for one in look(scene(entry))[1].fronts}
    assert [addresses(fronts[host].ports[0]) for host in spec["hosts"]] == [["x.example.com"], []]
    assert all(one.named for one in fronts["x.example.com"].ports[0].backends)


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        *((one, False) for one in ("127.0.0.1", "127.3.3.3", "0.0.0.0", "169.254.169.254", "::1", "fe80::1")),
        *((one, False) for one in ("::ffff:169.254.169.254", "100.100.100.200", "224.0.0.1", "::")),
        *((one, False) for one in ("localhost", "a.localhost", "LOCALHOST", "metadata.google.internal", "127.1")),
        *((one, True) for one in ("10.9.0.1", "203.0.113.5", "2001:db8::1", "api.example.com", "metadata.example.com")),
    ],
)
def test_nobody_is_sent_to_what_is_the_proxys_own_or_its_machines(address: str, sent: bool) -> None:
    named = not address.replace(":", "").replace(".", "").isdigit() and ":" not in address
    spec = {"hosts": ["x.example.com"], "resolution": "DNS" if named or address == "127.1" else "STATIC"}
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    endpoints = [{"address": address}, {"address": "10.9.9.9"}]
    entry = istio("ServiceEntry", "x", {**spec, "addresses": ["10.8.0.1"], "ports": ports, "endpoints": endpoints})
    entry["metadata"] = {**entry["metadata"], "namespace": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}}
    (front,) = [one for one in look(scene(entry))[1].fronts if one.hostname == "x.example.com"]
    assert len(front.ports[0].backends) == 1 + sent
