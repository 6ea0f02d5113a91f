"""The kubelet's connections to a pod are probes and pass; nothing else from the node does, whatever its address."""

from __future__ import annotations

import socket
import struct

import pytest

from ambient.datapath.layout import Counter, Option
from ambient.model.address import PLAINTEXT_PORT, Endpoint
from tests.support.capture_bench import EVERY_WAY, GIVE_UP, Bench, greeting

pytestmark = EVERY_WAY


def test_a_probe_reaches_the_application_even_with_no_proxy_at_all(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.PROBE)
    client = bench.connect(bench.world.node, server.address, owner="kubelet")
    assert greeting(client).port == client.getsockname()[1]
    assert bench.count(Counter.PROBE) == before + 1


def test_a_probe_to_a_closed_port_is_told_so_at_once(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.node, Endpoint(bench.world.pod.ip(version), 9), owner="kubelet")


def test_other_processes_of_the_node_are_captured(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.node, server.address)
    assert proxy.seen.get(timeout=30).port == PLAINTEXT_PORT
    greeting(client)
    proxy.stop_listening()
    assert bench.refused(bench.world.node, server.address)


def test_sabotage_without_the_program_on_the_host_side_a_probe_is_captured(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod, host=False)
    assert bench.refused(bench.world.node, server.address, owner="kubelet")


def test_a_probes_ports_are_good_for_one_connection_only(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.node, server.address, owner="kubelet")
    greeting(client)
    port = client.getsockname()[1]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    again = bench.socket(bench.world.node, version)
    again.bind(("10.213.1.1" if version == 4 else "fd00:213:1::1", port))
    again.settimeout(GIVE_UP)
    with pytest.raises(TimeoutError):
        again.connect((str(server.address.ip), server.address.port))


def test_without_cgroup_v2_the_nodes_own_sockets_are_probes_and_forwarded_ones_are_not(
    bench: Bench, version: int
) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    bench.maps.config.set(Option.MARK_ALONE)
    bench.stack.callback(bench.maps.config.set, Option(0))
    greeting(bench.connect(bench.world.node, server.address))
    assert bench.refused(bench.world.outside, server.address, owner="kubelet")
    assert bench.refused(bench.world.other, server.address, owner="kubelet")
