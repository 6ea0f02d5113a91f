"""Telling a pod's older connections from what ztunnel relays, and judging them."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from ambient.agent.journal import OlderConnection
from ambient.agent.older import as_judged, count_proxied, find_older, forbidden, still_open
from ambient.datapath.sockets import TcpSocket, TcpState
from ambient.model.address import PROXY_MARK, parse_endpoint
from ambient.model.decide import PolicyIndex
from ambient.model.outcome import Allowed, Connection, Denied, Reason
from ambient.model.policy import Action, Authorization, Match, PolicyScope

POD = {ip_address("10.0.0.5"), ip_address("fd00::5")}
EPHEMERAL = range(32768, 61000)


def sock(
    local: str, remote: str = "0.0.0.0:1", *, cookie: int = 1, state: TcpState = TcpState.ESTABLISHED, mark: int = 0
) -> TcpSocket:
    return TcpSocket(
        family=socket.AF_INET,
        state=state,
        local=parse_endpoint(local),
        remote=parse_endpoint(remote),
        cookie=cookie,
        mark=mark,
    )


def test_a_direct_connection_is_older() -> None:
    found = find_older([sock("10.0.0.5:40000", "10.9.9.9:80", cookie=3)], POD, EPHEMERAL)
    assert found == (OlderConnection(3, "10.0.0.5:40000", "10.9.9.9:80", inbound=False),)


@pytest.mark.parametrize(
    ("case", "sockets"),
    [
        ("ztunnel's own", [sock("10.0.0.5:40000", "10.9.9.9:15008", mark=PROXY_MARK)]),
        (
            "relayed outbound",
            [sock("10.0.0.5:40000", "10.9.9.9:80"), sock("10.9.9.9:80", "10.0.0.5:40000", mark=PROXY_MARK)],
        ),
        (
            "relayed inbound",
            [sock("10.0.0.5:80", "10.9.9.9:4000"), sock("10.9.9.9:4000", "10.0.0.5:80", mark=PROXY_MARK)],
        ),
        ("loopback", [sock("127.0.0.1:40000", "127.0.0.1:80"), sock("127.0.0.1:80", "127.0.0.1:40000")]),
        ("to itself", [sock("10.0.0.5:40000", "10.0.0.5:80"), sock("10.0.0.5:80", "10.0.0.5:40000")]),
        ("ended", [sock("10.0.0.5:40000", "10.9.9.9:80", state=TcpState.TIME_WAIT)]),
        ("listener", [sock("10.0.0.5:80", state=TcpState.LISTEN)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_older(case: str, sockets: list[TcpSocket]) -> None:
    assert find_older(sockets, POD, EPHEMERAL) == (), case


@pytest.mark.parametrize(
    ("local", "listening", "inbound"),
    [
        ("10.0.0.5:8080", "0.0.0.0:8080", True),
        ("10.0.0.5:8080", None, True),
        ("10.0.0.5:40000", "0.0.0.0:40000", True),
        ("10.0.0.5:40000", None, False),
    ],
)
def test_which_way_a_connection_was_opened(local: str, listening: str | None, inbound: bool) -> None:
    sockets = [sock(local, "10.9.9.9:50051")]
    if listening is not None:
        sockets.append(sock(listening, state=TcpState.LISTEN))
    assert [c.inbound for c in find_older(sockets, POD, EPHEMERAL)] == [inbound]


def test_only_pairs_of_application_and_proxy_count_as_proxied() -> None:
    assert (
        count_proxied(
            [
                sock("10.0.0.5:40000", "10.9.9.9:80"),
                sock("10.9.9.9:80", "10.0.0.5:40000", mark=PROXY_MARK),
                sock("10.0.0.5:40001", "10.9.9.9:15008", mark=PROXY_MARK),
                sock("10.0.0.5:40002", "10.9.9.9:80"),
            ]
        )
        == 1
    )


def test_a_new_connection_with_the_old_addresses_is_not_the_old_one() -> None:
    connection = OlderConnection(3, "10.0.0.5:80", "10.9.9.9:4000", inbound=True)
    assert still_open([connection], [sock("10.0.0.5:80", "10.9.9.9:4000", cookie=4)]) == []
    live = still_open([connection], [sock("10.0.0.5:80", "10.9.9.9:4000", cookie=3)])
    assert [(one.connection, one.state) for one in live] == [(connection, "ESTABLISHED")]


def test_an_older_connection_is_judged_as_plaintext_at_the_pods_port() -> None:
    connection = OlderConnection(3, "[fd00::5]:80", "[fd00::9]:4000", inbound=True)
    assert as_judged(connection) == Connection(ip_address("fd00::9"), ip_address("fd00::5"), 80, None)


def test_policy_condemns_inbound_connections_only() -> None:
    strict = Authorization(
        name="strict",
        namespace="shop",
        scope=PolicyScope.NAMESPACE,
        action=Action.DENY,
        rules=(((Match(destination_ports=(80,)),),),),
    )
    inbound = OlderConnection(1, "10.0.0.5:80", "10.9.9.9:4000", inbound=True)
    other_port = OlderConnection(2, "10.0.0.5:81", "10.9.9.9:4000", inbound=True)
    outbound = OlderConnection(3, "10.0.0.5:80", "10.9.9.9:4001", inbound=False)
    found = forbidden([inbound, other_port, outbound], PolicyIndex([strict]).judge)
    assert found == [(inbound, Denied(Reason.DENIED_BY, "shop/strict"))]


def test_without_a_policy_nothing_is_condemned() -> None:
    inbound = OlderConnection(1, "10.0.0.5:80", "10.9.9.9:4000", inbound=True)
    assert forbidden([inbound], lambda connection: Allowed(Reason.NO_ALLOW_POLICY)) == []
