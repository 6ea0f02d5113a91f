"""Network namespaces and listeners known by what they are; binding itself is tested in tests/lab."""

from __future__ import annotations

import os
import socket

import pytest

from ambient.errors import InvalidInput
from tests.support.fake_worker import own_netns
from ztunnel.inpod.listeners import Listeners, adopt, bind, netns_inode


def test_a_namespace_is_known_by_its_inode_and_anything_else_is_refused() -> None:
    netns, pipe = own_netns(), os.pipe()
    assert netns_inode(netns) == os.stat("/proc/self/ns/net").st_ino
    uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
    for fd in (pipe[0], uts, 9999):
        with pytest.raises(InvalidInput):
            netns_inode(fd)
    for fd in (netns, uts, *pipe):
        os.close(fd)


def test_binding_in_something_that_is_no_namespace_is_refused_before_anything_happens() -> None:
    read, write = os.pipe()
    with pytest.raises(InvalidInput):
        bind(read, ipv6=True, dns=True)
    os.close(read)
    os.close(write)


def test_sockets_on_other_ports_or_in_another_number_are_not_adopted() -> None:
    netns = own_netns()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    fds = [netns, *(sock.fileno() for sock in sockets)]
    for given, dns in ((fds, False), (fds, True), (fds[:2], False), ([netns, netns, netns, netns], False), ([], False)):
        with pytest.raises(InvalidInput):
            adopt(given, ipv6=True, dns=dns)
    os.close(netns)
    for sock in sockets:
        sock.close()


def test_a_stopped_listener_answers_nobody_though_another_holder_has_it_open() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    other = sock.dup()
    Listeners(0, (-1, sock.fileno())).stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(other.getsockname(), timeout=5)
    sock.close()
    other.close()


def test_a_listener_that_takes_nobody_new_keeps_those_that_have_begun() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    other = sock.dup()
    queued = socket.create_connection(sock.getsockname())
    Listeners(0, (-1, sock.fileno())).refuse_new()
    with pytest.raises(TimeoutError):
        socket.create_connection(sock.getsockname(), timeout=0.2)
    queued.sendall(b"still heard")
    accepted, _ = other.accept()
    assert accepted.recv(20) == b"still heard"
    # Whoever keeps trying meets the next one that listens.
    sock.close()
    other.close()
    for one in (queued, accepted):
        one.close()
