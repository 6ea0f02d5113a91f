"""sock_diag: real listings of this machine's loopback, and a kernel that refuses. Ending is in tests/lab."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address

import pytest

from ambient.datapath.sockets import TcpSocket, TcpState, destroy_tcp, list_tcp, open_diag
from ambient.errors import KernelError
from ambient.model.address import Endpoint


@pytest.mark.parametrize(
    ("family", "host", "as_listed"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_connection_is_listed_with_both_ends(family: int, host: str, as_listed: str) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client, open_diag() as diag:
        listener.bind((host, 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        ports = {"server": listener.getsockname()[1], "client": client.getsockname()[1]}
        ip = ip_address(as_listed)
        found = {one.local: one for one in list_tcp(diag)}
        mine = found[Endpoint(ip, ports["client"])]
        assert (mine.remote, mine.state) == (Endpoint(ip, ports["server"]), TcpState.ESTABLISHED)
        assert found[Endpoint(ip, ports["server"])].cookie != mine.cookie
        listening = [one for one in list_tcp(diag, [TcpState.LISTEN]) if one.local.port == ports["server"]]
        assert [one.state for one in listening] == [TcpState.LISTEN]
        server.close()


TARGET = TcpSocket(
    family=socket.AF_INET,
    state=TcpState.ESTABLISHED,
    local=Endpoint(ip_address("10.0.0.1"), 80),
    remote=Endpoint(ip_address("10.0.0.2"), 4000),
    cookie=1 << 40 | 5,
    interface=3,
)


def answer(number: int, sequence: int = 1) -> bytes:
    """An NLMSG_ERROR with an errno; 0 is the acknowledgement."""
    return struct.pack("=IHHIIi", 20, 2, 0, sequence, 0, -number)


class Kernel:
    """Answers every request with the same datagrams."""

    def __init__(self, *answers: bytes) -> None:
        self.ours, self.diag = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.diag.settimeout(0.2)
        for one in answers:
            self.ours.send(one)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.diag.close()


@pytest.mark.parametrize(("number", "gone"), [(0, True), (errno.ENOENT, False), (errno.ESTALE, False)])
def test_ending_says_whether_it_was_there(number: int, gone: bool) -> None:
    with Kernel(answer(number)) as kernel:
        assert destroy_tcp(kernel.diag, TARGET) is gone
        request = kernel.ours.recv(4096)
    assert struct.unpack_from("=IH", request) == (len(request), 21)
    assert struct.unpack_from("=III", request, len(request) - 12) == (3, 5, 1 << 8)
    assert ip_address("10.0.0.1").packed in request


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_kernel_that_refuses_is_reported_with_the_connection(number: int) -> None:
    with Kernel(answer(number)) as kernel, pytest.raises(KernelError, match=r"10\.0\.0\.1:80 - 10\.0\.0\.2:4000"):
        destroy_tcp(kernel.diag, TARGET)


def test_a_kernel_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    with Kernel() as kernel, pytest.raises(KernelError, match="timed out"):
        list_tcp(kernel.diag)


def test_a_kernel_without_ipv6_lists_ipv4() -> None:
    with Kernel(answer(0, 1), answer(errno.ENOENT, 2)) as kernel:
        assert list_tcp(kernel.diag) == []


def test_a_listing_that_is_refused_is_reported() -> None:
    with Kernel(answer(errno.EPERM)) as kernel, pytest.raises(KernelError, match="not permitted"):
        list_tcp(kernel.diag)


def test_an_answer_to_another_request_is_passed_over() -> None:
    with Kernel(answer(errno.EPERM, 99), answer(0, 1), answer(0, 2)) as kernel:
        assert list_tcp(kernel.diag) == []
