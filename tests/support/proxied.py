"""Connections of the pod with ztunnel's end in the test's own hand."""

from __future__ import annotations

import socket

from ambient.model.address import OUTBOUND_PORT, PROXY_MARK, Endpoint
from tests.support.capture_bench import Bench
from tests.support.stand_in import IP_TRANSPARENT, IPV6_TRANSPARENT, marked_listener


def captured_out(bench: Bench, version: int) -> tuple[socket.socket, socket.socket]:
    """The application's end and the proxy's end of a connection to the outside."""
    bench.attach(bench.world.pod)
    with marked_listener(bench.world, bench.world.pod, OUTBOUND_PORT) as listener:
        listener.listen()
        client = bench.connect(bench.world.pod, Endpoint(bench.world.outside.ip(version), 80))
        accepted, _ = listener.accept()
    bench.stack.callback(accepted.close)
    return client, accepted


def handed_in(bench: Bench, version: int) -> tuple[socket.socket, socket.socket]:
    """The application's end and the proxy's end of a connection that the proxy made in the name of a client outside;
    the application has answered once."""
    bench.attach(bench.world.pod)
    server = bench.socket(bench.world.pod, version)
    server.bind((str(bench.world.pod.ip(version)), 0))
    server.listen()
    upstream = bench.socket(bench.world.pod, version, owner="ztunnel")
    upstream.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
    if version == 4:
        upstream.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    else:
        upstream.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    upstream.bind((str(bench.world.outside.ip(version)), 0))
    upstream.connect(server.getsockname()[:2])
    connection, _ = server.accept()
    bench.stack.callback(connection.close)
    upstream.sendall(b"request")
    assert connection.recv(64) == b"request"
    connection.sendall(b"first part")
    assert upstream.recv(64) == b"first part"
    return connection, upstream
