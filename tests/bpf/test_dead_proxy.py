"""When ztunnel vanishes in the middle of a connection, what the application sends on stays in the pod."""

from __future__ import annotations

import socket
import struct

import pytest

from ambient.datapath import bpfsys
from ambient.model.address import Endpoint
from tests.support.capture_bench import EVERY_WAY, Bench, outside_saw
from tests.support.proxied import captured_out, handed_in

pytestmark = EVERY_WAY

TCP_REPAIR = 19
SECRET = b"a secret that is for ztunnel only"


def vanish(connection: socket.socket) -> None:
    """Gone without a word to the other side (a real crash says goodbye; packets on their way then meet this state)."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connection.close()


@pytest.mark.usefixtures("one_cpu")
def test_what_a_client_sends_stays_in_the_pod(bench: Bench, version: int) -> None:
    client, accepted = captured_out(bench, version)
    vanish(accepted)
    assert not outside_saw(bench, version, SECRET, lambda: client.sendall(SECRET))
    bench.stand_in(bench.world.pod)  # the next proxy knows nothing of it, and the client hears so
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.usefixtures("one_cpu")
def test_sabotage_without_the_memory_of_the_socket_it_leaks(bench: Bench, version: int) -> None:
    client, accepted = captured_out(bench, version)
    vanish(accepted)
    looped = bpfsys.Map(bench.bpffs / "maps" / "looped", 4, 4)
    bench.stack.callback(looped.close)
    assert looped.delete(struct.pack("=i", client.fileno()))
    assert outside_saw(bench, version, SECRET, lambda: client.sendall(SECRET))


@pytest.mark.usefixtures("one_cpu")
def test_what_a_server_answers_stays_in_the_pod(bench: Bench, version: int) -> None:
    connection, upstream = handed_in(bench, version)
    vanish(upstream)
    assert not outside_saw(bench, version, SECRET, lambda: connection.sendall(SECRET))
    bench.stand_in(bench.world.pod)
    connection.settimeout(5)
    with pytest.raises(ConnectionResetError):
        connection.recv(1)


@pytest.mark.usefixtures("one_cpu")
def test_resets_of_the_kernel_still_leave_the_pod(bench: Bench, version: int) -> None:
    """They are sent from sockets of the kernel's own, which must not be taken for a captured one."""
    client, accepted = captured_out(bench, version)
    vanish(accepted)
    bench.stand_in(bench.world.pod)
    client.sendall(SECRET)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            bench.connect(bench.world.node, Endpoint(bench.world.pod.ip(version), 9), owner="kubelet")
