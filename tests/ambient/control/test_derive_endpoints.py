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


BOTH = ["10.1.0.1", "10.1.0.2"]


def of_shop(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "metadata": {**content["metadata"], "namespace": "shop"}}


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


@pytest.mark.parametrize(
    ("mode", "sent"),
    [("SIMPLE", ["10.1.0.1"]), ("MUTUAL", ["10.1.0.1"]), ("DISABLE", BOTH), ("ISTIO_MUTUAL", BOTH), ("", BOTH)],
)
def test_where_tls_is_asked_for_nothing_leaves_the_mesh_as_plain_text(mode: str, sent: list[str]) -> None:
    tls = {"trafficPolicy": {"tls": {"mode": mode}}} if mode else {}
    raw_port = {"portLevelSettings": [{"port": {"number": 9000}, "tls": {"mode": "DISABLE"}}]}
    policy = {"trafficPolicy": {**tls["trafficPolicy"], **raw_port}} if mode else {}
    subsets = [{"name": "all", "labels": {"app": "web"}}, {"name": "own", "labels": {"app": "web"}, **tls}]
    whole = istio("DestinationRule", "r", {"host": "web", "subsets": subsets[:1], **policy})
    web, plain = look(scene(of_shop(whole)))[0].ports
    assert addresses(web) == addresses(web.subsets[0]) == sent
    assert addresses(plain) == BOTH
    own = istio("DestinationRule", "r", {"host": "web", "subsets": subsets})
    web, _ = look(scene(of_shop(own)))[0].ports
    assert (addresses(web), addresses(web.subsets[0]), addresses(web.subsets[1])) == (BOTH, BOTH, sent)
