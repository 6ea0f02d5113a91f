"""The worlds that the benchmarks measure in are what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path

from ambient.kube.objects import Pod, parse_object
from ambient.kube.yaml import parse_documents
from bench.scale import pods
from bench.world import BARE, MESH, PEER, objects


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
