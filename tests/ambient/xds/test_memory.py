"""What one known workload costs a process that follows discovery: less than a kilobyte."""

from __future__ import annotations

import gc
import tracemalloc
from ipaddress import ip_address

import pytest

from ambient.model.mesh import Mesh
from ambient.model.workload import Port, TunnelProtocol, Workload
from ambient.xds.client import SLICE, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, encode
from ambient.xds.messages import DeltaResponse, encode_response, open_response, ztunnel_node

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


def test_a_known_workload_costs_less_than_a_kilobyte_with_all_its_indexes_and_its_version() -> None:
    resources = tuple(encode(pod(number)) for number in range(MANY))
    data = encode_response(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=resources))
    mesh, client = Mesh(), DeltaClient(ztunnel_node("node-7"))
    gc.collect()
    tracemalloc.start()
    try:
        batch, _ = client.receive(open_response(data))
        mesh.apply(batch.put)
        del batch
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / MANY
    finally:
        tracemalloc.stop()
    assert each < 900
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
