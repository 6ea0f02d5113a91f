"""What one known workload costs a process that follows discovery: less than a kilobyte."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.model.mesh import Mesh
from ambient.model.workload import Port, TunnelProtocol, Workload
from ambient.xds.client import SLICE, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, encode
from ambient.xds.messages import DeltaResponse, Resource, encode_response, open_response, ztunnel_node

ROOT = Path(__file__).parents[3]
MANY = 2_000


def pod(number: int) -> Workload:
    namespace, app = f"ns{number % 50}", f"app{number % 150}"
    return Workload(
        uid=f"Kubernetes//Pod/{namespace}/{app}-{number}-abcde",
        name=f"{app}-{number}-abcde",
        namespace=namespace,
        addresses=(ip_address(0x0A000000 + number),),
        tunnel_protocol=TunnelProtocol.HBONE,
        node=f"node-{number % 50}",
        canonical_name=app,
        canonical_revision="v1",
        workload_name=app,
        services={f"{namespace}/{app}.{namespace}.svc.cluster.local": (Port(80, 8080),)},
    )


def response() -> tuple[tuple[Resource, ...], bytes]:
    resources = tuple(encode(pod(number)) for number in range(MANY))
    return resources, encode_response(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=resources))


def learned(data: bytes) -> tuple[Mesh, DeltaClient]:
    mesh, client = Mesh(), DeltaClient(ztunnel_node("node-7"))
    batch, _ = client.receive(open_response(data))
    mesh.apply(batch.put)
    return mesh, client


def octets_each(copies: int) -> float:
    """Of memory, for one workload that so many know. Only in a process that does nothing else: what its other threads
    allocate meanwhile would be counted as well."""
    _, data = response()
    learned(data)  # what is made but once is there after that
    gc.collect()
    tracemalloc.start()
    known = [learned(data) for _ in range(copies)]
    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / MANY
    assert len(known) == copies
    return each


def measured(copies: int) -> float:
    program = f"from tests.ambient.xds.test_memory import octets_each; print(octets_each({copies}))"
    command = [sys.executable, "-c", program]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_a_known_workload_costs_less_than_a_kilobyte_with_all_its_indexes_and_its_version() -> None:
    assert measured(copies=1) < 900


def test_sabotage_one_that_is_known_twice_costs_more() -> None:
    assert measured(copies=2) > 900


def test_what_is_known_is_kept_once() -> None:
    resources, data = response()
    mesh, client = learned(data)
    assert mesh.local_workload("ns7", "app7-7-abcde", "node-7") is not None
    assert mesh.local_workload("ns8", "app7-7-abcde") is None
    assert mesh.counts() == (MANY, 0, 0)
    assert dict(client.versions()[ADDRESS_TYPE]) == {one.name: one.version for one in resources}
    for one in mesh.workloads():
        # Nobody keeps the same characters twice.
        assert next(name for name in client._types[ADDRESS_TYPE].versions if name == one.uid) is one.uid
        break


def test_a_response_is_read_a_part_at_a_time() -> None:
    resources = tuple(encode(pod(number)) for number in range(4 * SLICE))
    client = DeltaClient(ztunnel_node("node-7"))
    data = encode_response(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=resources))
    steps = client.take(open_response(data))
    for _ in range(4):
        next(steps)
    assert client.versions()[ADDRESS_TYPE] == {}
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert len(end.value.value[0].put) == 4 * SLICE
