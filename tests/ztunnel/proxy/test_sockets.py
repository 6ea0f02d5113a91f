"""Names of sockets as endpoints, and sockets with the options they need."""

from __future__ import annotations

import socket
from contextlib import closing, suppress

import pytest

from ambient.errors import KernelError
from ambient.model.address import parse_endpoint, parse_ip
from ztunnel.proxy.sockets import (
    PodSockets,
    endpoint_of,
    original_destination,
    ports_in_turn,
    speak_as,
    text_of,
    unconfirmed,
)
from ztunnel.proxy.tuples import Found
from ztunnel.tuning import Tuning


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("10.0.0.1", 80), "10.0.0.1:80"),
        (("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1]:80"),
    ],
)
def test_a_socket_name_is_an_endpoint(name: tuple[object, ...], text: str) -> None:
    assert str(endpoint_of(name)) == text


def test_what_the_other_kernel_has_not_taken_is_unconfirmed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        assert unconfirmed(ours) == 0
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65_536))
        assert unconfirmed(ours) > 0
        theirs.close()
    assert unconfirmed(ours) == 0


def test_without_an_answer_of_conntrack_the_local_name_is_the_destination() -> None:
    for host in ("127.0.0.1", "::"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener, socket.socket() as client:
            listener.bind((host, 0))
            listener.listen()
            port = listener.getsockname()[1]
            client.connect(("127.0.0.1", port))
            accepted, _ = listener.accept()
            assert str(original_destination(accepted)) == f"127.0.0.1:{port}"
            accepted.close()


def test_spare_sockets_are_given_back_when_a_pod_stops_connecting() -> None:
    sockets = PodSockets(-1, 0)
    used = sockets.tcp(4)
    spare = list(sockets._spare[socket.AF_INET])
    for _ in range(5):
        sockets.tick()
    again = sockets.tcp(4)
    assert again is spare[-1]
    for _ in range(5):
        sockets.tick()
    assert all(one.fileno() >= 0 for one in spare), "it connected not long ago"
    sockets.tick()
    assert all(one.fileno() == -1 for one in spare if one is not again)
    assert used.fileno() >= 0
    sockets.tcp(4).close()
    used.close()
    again.close()
    sockets.close()


def test_a_connection_of_a_pod_that_goes_at_once_finds_out_that_its_peer_is_gone() -> None:
    sockets = PodSockets(-1, mark=0)
    made, ended = sockets.tcp(4), sockets.tcp(4)
    ended.close()
    sockets.close()
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    made.close()


def test_sockets_are_ready_to_use_and_spare_ones_are_closed_with_the_pod() -> None:
    sockets = PodSockets(-1, mark=0)
    made = sockets.tcp(4)
    assert not made.getblocking()
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    sockets.tick()
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 180
    datagram = sockets.udp(6)
    assert datagram.family == socket.AF_INET6
    datagram.close()
    spare = list(sockets._spare[socket.AF_INET])
    assert spare
    sockets.close()
    assert all(one.fileno() == -1 for one in spare)
    made.close()


def test_there_are_no_sockets_for_a_pod_that_is_gone_least_of_all_in_our_own_namespace() -> None:
    sockets = PodSockets(-1, mark=0)
    sockets.close()
    with pytest.raises(KernelError, match="the pod is gone"):
        sockets.tcp(4)
    with pytest.raises(KernelError, match="the pod is gone"):
        sockets.udp(4)
    here = parse_endpoint("127.0.0.1:1")
    assert sockets.found(here, here) is Found.NOTHING
    assert not sockets.is_local(here.ip)


def test_an_address_of_the_namespace_is_known_from_any_other() -> None:
    sockets = PodSockets(-1, mark=0)
    assert sockets.is_local(parse_ip("127.0.0.9"))
    assert sockets.is_local(parse_ip("::1"))
    assert not sockets.is_local(parse_ip("203.0.113.77"))
    assert not sockets.is_local(parse_ip("2001:db8::1"))
    sockets.close()


def test_a_namespace_that_is_none_is_an_error_with_its_reason() -> None:
    with open("/dev/null") as nothing:
        sockets = PodSockets(nothing.fileno(), mark=0)
        with pytest.raises(KernelError):
            sockets.tcp(4)


def test_speaking_as_an_address_needs_the_right_and_says_so() -> None:
    with socket.socket() as sock:
        try:
            speak_as(sock, parse_endpoint("127.0.0.9:5"))
        except PermissionError:
            return
        assert sock.getsockname() == ("127.0.0.9", 5)


def test_ports_to_speak_from_come_round_in_the_kernels_range_and_never_twice_in_a_row() -> None:
    one, other = ports_in_turn(), ports_in_turn()
    turn = [next(one) for _ in range(28_232)]
    assert sorted(turn) == list(range(32_768, 61_000))
    assert next(one) == turn[0]
    assert len({next(other), *turn}) == len(turn)


def test_the_text_of_an_address_is_its_own() -> None:
    assert [text_of(parse_ip(text)) for text in ("10.0.0.1", "fe80::1")] == ["10.0.0.1", "fe80::1"]


def option(sock: socket.socket, name: int) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, name)


def test_keepalive_and_user_timeout_are_as_they_were_tuned() -> None:
    sockets = PodSockets(-1, mark=0)
    sockets.tuning = Tuning(keepalive_idle_s=11, keepalive_interval_s=7, keepalive_probes=3, user_timeout=True)
    with closing(sockets.tcp(4)) as sock:
        assert option(sock, socket.TCP_NODELAY)
        sockets.tick()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option(sock, socket.TCP_KEEPIDLE) == 11
        assert option(sock, socket.TCP_KEEPINTVL) == 7
        assert option(sock, socket.TCP_KEEPCNT) == 3
        assert option(sock, socket.TCP_USER_TIMEOUT) == 32_000
    sockets.close()


def test_without_keepalive_there_is_none() -> None:
    sockets = PodSockets(-1, mark=0)
    sockets.tuning = Tuning(keepalive=False)
    with closing(sockets.tcp(4)) as sock:
        sockets.tick()
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option(sock, socket.TCP_NODELAY)
        assert option(sock, socket.TCP_USER_TIMEOUT) == 0
    sockets.close()
