"""No pod has more of the kernel path than is left for the others, however fast it dials."""

from __future__ import annotations

import logging
import random
from collections import Counter
from ipaddress import ip_address

import pytest

from ambient.agent.direct_shares import SAID_EVERY_S, DirectShares, rooms
from tests.support.direct import CLIENT, SERVER, FakeDirect

MOST = 120


def test_one_pod_alone_may_have_half_of_all() -> None:
    held: Counter[object] = Counter()
    while (room := rooms({CLIENT: held[CLIENT]}, held, {CLIENT}, MOST)[CLIENT]) > held[CLIENT]:  # type: ignore[arg-type]
        held[CLIENT] += 1
    assert room == MOST // 2


def test_many_that_take_all_they_may_leave_as_much_as_each_of_them_has() -> None:
    clients = [ip_address(f"10.0.0.{number}") for number in range(1, 4)]
    held = Counter(dict.fromkeys(clients, 0))
    for _ in range(MOST):
        held += Counter({ip: room - held[ip] for ip, room in rooms(held, held, clients, MOST).items()})
    assert held.total() <= MOST
    assert MOST - held.total() >= MOST // (len(clients) + 1) - len(clients)
    assert max(held.values()) - min(held.values()) <= len(clients)


def test_however_they_come_and_go_there_is_always_room_for_who_has_none() -> None:
    chance = random.Random(7)
    clients = [ip_address(f"10.0.0.{number}") for number in range(1, 9)]
    made, held = Counter(dict.fromkeys(clients, 0)), Counter(dict.fromkeys(clients, 0))
    for _ in range(500):
        room = rooms(made, held, clients, MOST)
        for ip in clients:
            new = chance.randint(0, room[ip] - made[ip]) if room[ip] > made[ip] else 0
            made[ip] += new
            held[ip] += new
        assert held.total() <= MOST
        for ip in clients:
            held[ip] -= chance.randint(0, held[ip])


def test_what_began_while_the_ways_were_read_counts_against_its_client() -> None:
    assert rooms({CLIENT: 10}, Counter({CLIENT: 43}), {CLIENT}, MOST)[CLIENT] == 10 + MOST - 43 - 43


def test_who_has_no_grants_any_more_has_no_room() -> None:
    tables, clients = FakeDirect(), {CLIENT, SERVER}
    shares = DirectShares(tables, lambda: clients, most=MOST)
    shares.divide(shares.counted(), Counter())
    assert tables.room == {CLIENT: MOST // 3, SERVER: MOST // 3}
    clients.discard(SERVER)
    shares.divide(shares.counted(), Counter())
    assert tables.room == {CLIENT: MOST // 2}
    clients.add(SERVER)
    shares.divide(shares.counted(), Counter())
    assert tables.room == {CLIENT: MOST // 3, SERVER: MOST // 3}


def test_who_is_at_its_end_is_named_and_not_in_every_look(caplog: pytest.LogCaptureFixture) -> None:
    tables, now = FakeDirect(), [0.0]
    shares = DirectShares(tables, lambda: {CLIENT}, lambda _: "shop/web", MOST, lambda: now[0])
    shares.divide(shares.counted(), Counter())
    with caplog.at_level(logging.WARNING, "ambient.agent.direct"):
        for _ in range(3):
            tables.began[CLIENT] = tables.room[CLIENT]
            shares.divide(shares.counted(), Counter({CLIENT: MOST // 2}))
        assert [record.getMessage() for record in caplog.records] == [
            "shop/web has its share of the same-node kernel path, 60 connections: more take the tunnel"
        ]
        now[0] += SAID_EVERY_S
        shares.divide(shares.counted(), Counter({CLIENT: MOST // 2}))
        assert len(caplog.records) == 2
