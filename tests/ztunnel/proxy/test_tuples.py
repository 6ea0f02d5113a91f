"""What the kernel says about connections, asked on real ones."""

from __future__ import annotations

import socket

import pytest

from ambient.model.address import Endpoint, parse_endpoint
from ztunnel.proxy.sockets import PodSockets, endpoint_of
from ztunnel.proxy.tuples import Found, Tuples


@pytest.mark.parametrize(("host", "listens"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "::"), ("::1", "::1")])
def test_a_connection_is_known_while_it_lives_and_a_listener_is_none(host: str, listens: str) -> None:
    tuples = Tuples()
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((listens, 0))
        listener.listen()
        port = listener.getsockname()[1]
        server = parse_endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        with socket.create_connection((host, port)) as client:
            peer = endpoint_of(client.getsockname())
            accepted, _ = listener.accept()
            assert tuples.find(server, peer) is Found.CONNECTION
            assert tuples.find(peer, server) is Found.CONNECTION
            assert tuples.find(server, Endpoint(peer.ip, 1)) is Found.NOTHING
            assert tuples.find(Endpoint(server.ip, 1), peer) is Found.NOTHING
            accepted.close()
        # The server ended it first: its side is in TIME_WAIT, and a SYN there might have to wait.
        assert tuples.find(server, peer) is Found.REMAINS
    tuples.close()


def test_nothing_is_known_when_the_kernel_cannot_be_asked() -> None:
    tuples = Tuples()
    tuples.close()
    assert tuples.find(parse_endpoint("127.0.0.1:1"), parse_endpoint("127.0.0.1:2")) is Found.NOTHING
    with open("/dev/null") as nothing:
        sockets = PodSockets(nothing.fileno(), mark=0)
        assert sockets.found(parse_endpoint("127.0.0.1:1"), parse_endpoint("127.0.0.1:2")) is Found.NOTHING
