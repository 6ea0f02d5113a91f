"""The cluster on paper is one that a control plane can read, of the size it claims."""

from __future__ import annotations

from collections import Counter

from ambient.control.derive import derive
from ambient.control.derive_world import DeriveSettings
from ambient.kube.objects import Records, parse_object
from bench import feed


def test_every_pod_is_behind_its_service_and_under_its_policy() -> None:
    records = [parse_object(one, "feed", observed=True) for one in feed.objects()]
    kinds = Counter(record.kind for record in records)
    assert (kinds["Pod"], kinds["Service"], kinds["AuthorizationPolicy"]) == (10_000, 1_000, 1_000)
    derived = derive(Records(1, {record.key: record for record in records}), DeriveSettings())
    assert (len(derived.workloads), len(derived.services), len(derived.policies)) == (10_000, 1_000, 1_000)
    for workload in derived.workloads.values():
        service = workload.workload_name
        assert [key.partition("/")[2].partition(".")[0] for key in workload.services] == [service]
        assert workload.authorization_policies == (f"{workload.namespace}/{service}",)
        assert workload.tunnel_protocol.name == "HBONE"


def test_addresses_are_one_for_each_pod() -> None:
    pods = [feed.pod(number, ready=True) for number in range(feed.PODS)]
    assert len({one["status"]["podIP"] for one in pods}) == len({one["metadata"]["name"] for one in pods}) == feed.PODS


def test_a_policy_changed_differs_in_what_it_allows_alone() -> None:
    before, after = feed.policy(3, 80), feed.policy(3, 81)
    assert before["metadata"] == after["metadata"]
    assert before["spec"]["selector"] == after["spec"]["selector"]
    assert before["spec"]["rules"] != after["spec"]["rules"]
