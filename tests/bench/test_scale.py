"""The worlds that the benchmarks measure in are what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ambient.kube.objects import Pod, parse_object
from ambient.kube.yaml import parse_documents
from ambient.model.decide import PolicyIndex, judge_naive
from bench.scale import RULES, connections, pods, policies
from bench.world import BARE, MESH, PEER, objects


@pytest.mark.parametrize("count", [10, 200])
def test_the_index_judges_the_measured_connections_as_the_definition_does(count: int) -> None:
    made = policies(count)
    assert len(made) == count
    assert all(len(policy.rules) == RULES for policy in made)
    index = PolicyIndex(made)
    verdicts = {kind: index.judge(one) for kind, one in connections(count).items()}
    for kind, one in connections(count).items():
        assert type(verdicts[kind]) is type(judge_naive(made, (), one))
    assert len({type(verdict) for verdict in verdicts.values()}) == 2


def test_the_arms_are_alike_but_for_the_mesh() -> None:
    records = parse_documents("\n---\n".join(json.dumps(item) for item in objects(Path("/bin/true"))), "bench")
    placed = {space: [] for space in (MESH, BARE, PEER)}
    for record in records:
        if isinstance(record, Pod) and not record.name.startswith("idle"):
            placed[record.namespace].append((record.name, record.node_name, record.containers[0].command))
    assert placed[MESH] == placed[BARE] == placed[PEER]
    meshed = [r.name for r in records if r.kind == "Namespace" and "istio.io/dataplane-mode" in r.labels]
    assert meshed == [MESH]


def test_ten_pods_are_in_the_mesh() -> None:
    assert (
        sum(one["kind"] == "Pod" and one["metadata"]["namespace"] == MESH for one in objects(Path("/bin/true"))) == 10
    )


def test_the_workloads_on_paper_have_addresses_of_their_own() -> None:
    found = [record for record in pods(300) if isinstance(record, Pod)]
    assert len({record.ips for record in found}) == len({record.node_name for record in found}) * 100 == 300
    assert parse_object(dict(found[0].raw), "again").key == found[0].key
