"""The mesh that is measured is one that can be known, saved and started from."""

from __future__ import annotations

from ambient.xds.codec import decode, encode
from bench.mesh import known, lines, workload


def test_a_small_mesh_is_measured_in_processes_of_its_own() -> None:
    (one,) = known((300,))
    assert one.workloads == 300
    assert min(one.take_s, one.save_s, one.restore_s, one.block_ms) > 0
    assert lines([one])[-1] == "octets each, 300 over 300: 1.00"


def test_each_pod_is_another_and_crosses_the_wire() -> None:
    pods = [workload(number) for number in range(30)]
    assert len({pod.uid for pod in pods}) == len({pod.addresses for pod in pods}) == 30
    resource = encode(pods[29])
    assert decode(resource.type_url, resource.name, resource.body) == pods[29]
