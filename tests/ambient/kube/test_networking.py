"""The records of networking kinds: what they answer by themselves."""

from __future__ import annotations

from ambient.kube.networking import Endpoint, EndpointSlice, WorkloadEntry


def test_a_slice_without_the_label_is_for_no_service() -> None:
    assert EndpointSlice(name="x").service == ""
    assert EndpointSlice(name="x", labels={"kubernetes.io/service-name": "web"}).service == "web"


def test_labels_of_the_object_stand_over_those_of_its_spec() -> None:
    entry = WorkloadEntry(name="vm", labels={"a": "own"}, endpoint=Endpoint(labels={"a": "spec", "b": "spec"}))
    assert entry.merged_labels == {"a": "own", "b": "spec"}
    assert WorkloadEntry(name="vm", labels={"a": "own"}).merged_labels == {"a": "own"}
