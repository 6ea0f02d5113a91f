"""What one known workload costs a process that follows discovery: less than a kilobyte."""

from __future__ import annotations

import gc
import tracemalloc
from ipaddress import ip_address

from ambient.model.mesh import Mesh
from ambient.model.workload import Port, TunnelProtocol, Workload
from ambient.xds.codec import decode, encode

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


def test_a_known_workload_costs_less_than_a_kilobyte_with_all_its_indexes() -> None:
    bodies = [encode(pod(number)) for number in range(MANY)]
    mesh = Mesh()
    gc.collect()
    tracemalloc.start()
    try:
        mesh.apply(decode(one.type_url, str(one.name), one.body) for one in bodies)
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / MANY
    finally:
        tracemalloc.stop()
    assert each < 1024
    assert mesh.local_workload("ns7", "app7-7-abcde", "node-7") is not None
    assert mesh.local_workload("ns8", "app7-7-abcde") is None
