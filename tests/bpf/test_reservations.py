"""What is noted for pod_lookup is ztunnel's, however often and however late it is looked up: nobody pushes it out, and
what nobody needs makes way. What may go to the application is not held up by it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from ambient.datapath import bpfsys, hooked, programs
from ambient.datapath.layout import Counter, FailMode, Flag
from ambient.model.address import Endpoint
from tests.support.capture_bench import EVERY_FORM, EVERY_WAY, FULL, Bench, greeting, used_up
from tests.support.capture_world import GIVE_UP
from tests.support.frames_tcp import syn
from tests.support.reserved import (
    ALIKE,
    NO_LISTENER,
    OLD,
    YOUNG,
    asked_by,
    reservation,
    reservations,
    row,
    siphash_1_3,
)
from tests.support.stand_in import StandIn

pytestmark = [EVERY_WAY, EVERY_FORM]

PORT = 81
"""Nobody listens: the stand-in closes first, so that the TIME_WAIT is on its side."""
THROWN_AWAY = 8000
NOBODY = ip_address("0.0.0.0")


def _taken(since: int, used: int) -> row:
    """Every place is somebody else's."""
    made = row()
    for number in range(ALIKE):
        somebody = asked_by(Endpoint(NOBODY, number + 1), Endpoint(NOBODY, 0))
        made.places[number] = reservation(somebody, since, used, NO_LISTENER)
    return made


def _seen(proxy: StandIn) -> int:
    """The source port of the next connection that ztunnel gets."""
    return proxy.seen.get(timeout=30).source.port


def _ended(bench: Bench, version: int, source_port: int, times: int = 1) -> tuple[StandIn, Endpoint, Endpoint]:
    """A captured pod's ztunnel, and the ends of a connection from outside that it got, and that is over."""
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    source, target = Endpoint(bench.world.outside.ip(version), source_port), Endpoint(bench.world.pod.ip(version), PORT)
    for _ in range(times):
        used_up(bench, bench.world.outside, target, source_port)
        assert _seen(proxy) == source_port
    return proxy, source, target


@pytest.mark.parametrize(("since", "used"), [(YOUNG, 0), (OLD, YOUNG)], ids=["noted", "looked up"])
def test_nobody_is_pushed_out_and_who_finds_no_place_is_late_and_never_the_applications(
    bench: Bench, since: int, used: int
) -> None:
    proxy, source, target = _ended(bench, 4, 25_640)
    bench.app(bench.world.pod, 4, PORT)
    before = bench.count(Counter.LISTENER_FULL)
    with reservations(bench.bpffs) as rows:
        rows.put_everywhere(_taken(since, used))
        with pytest.raises(TimeoutError):
            bench.connect(bench.world.outside, target, source_port=source.port, patience=GIVE_UP)
    assert bench.count(Counter.LISTENER_FULL) > before
    assert proxy.seen.empty()


@pytest.mark.parametrize(("since", "used"), [(OLD, 0), (YOUNG, OLD)], ids=["noted", "looked up"])
def test_what_nobody_needs_any_more_makes_way(bench: Bench, since: int, used: int) -> None:
    proxy, source, target = _ended(bench, 4, 25_641)
    bench.app(bench.world.pod, 4, PORT)
    before = bench.count(Counter.LISTENER_FULL)
    with reservations(bench.bpffs) as rows:
        rows.put_everywhere(_taken(since, used))
        greeting(bench.connect(bench.world.outside, target, source_port=source.port))
    assert _seen(proxy) == source.port
    assert bench.count(Counter.LISTENER_FULL) == before


def test_of_what_makes_way_the_oldest_goes(bench: Bench) -> None:
    _, source, target = _ended(bench, 4, 25_642)
    taken = _taken(OLD, 0)
    for number, since in enumerate((OLD + 2, YOUNG, OLD, OLD + 1)):
        taken.places[number].since = since
    with reservations(bench.bpffs) as rows:
        rows.put_everywhere(taken)
        used_up(bench, bench.world.outside, target, source.port)
        found = rows.find(asked_by(source, target))
    assert found is not None
    assert found[1] == 2


@pytest.mark.parametrize(
    ("changes", "who"),
    [({}, "ztunnel"), ({"used": OLD, "since": OLD}, "ztunnel"), ({"protocol": socket.IPPROTO_UDP}, "application")],
    ids=["again", "late", "of UDP"],
)
def test_a_second_look_up_is_given_what_the_first_was(
    bench: Bench, version: int, changes: dict[str, int], who: str
) -> None:
    """As of two equal packets on two CPUs of which one has used the note of both: the second is looked up, nothing is
    noted before. A note of UDP is none of TCP."""
    proxy, source, target = _ended(bench, version, 25_643, times=2)
    with reservations(bench.bpffs) as rows:
        found = rows.find(asked_by(source, target))
        assert found is not None
        number, place = found
        value = rows.get(number)
        assert value.places[place].used
        for member, changed in changes.items():
            setattr(value.places[place].asked if member == "protocol" else value.places[place], member, changed)
        rows.put(number, value)
        bench.app(bench.world.pod, version, PORT)
        hooked.take_off(bench.bpffs / "pods" / "pod" / "pod_ingress")
        seen = greeting(bench.connect(bench.world.outside, target, source_port=source.port))
    assert (seen == source) == (who == "application")
    assert proxy.seen.empty() == (who == "application")
    if who == "ztunnel":
        assert _seen(proxy) == source.port


@pytest.mark.parametrize("how", ["not captured", "nothing captured", "open", "probe", "the pod itself"])
def test_what_may_go_to_the_application_is_not_held_up_by_an_older_note(bench: Bench, version: int, how: str) -> None:
    """Of the same four-tuple, as after a change of policy, or where ztunnel speaks with an address of its client."""
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    flags = {"not captured": Flag.HBONE_IN, "nothing captured": Flag(0)}.get(how, FULL)
    bench.enrol(bench.world.pod, flags, fail_in=FailMode.OPEN if how == "open" else FailMode.CLOSED)
    place = {"probe": bench.world.node, "the pod itself": bench.world.pod}.get(how, bench.world.outside)
    source = Endpoint(place.ip(version), 25_644)
    note = row()
    note.places[1] = reservation(asked_by(source, server.address), YOUNG, 0, NO_LISTENER)
    with reservations(bench.bpffs) as rows:
        rows.put_everywhere(note)
        owner = "kubelet" if how == "probe" else "app"
        client = bench.connect(place, server.address, source_port=source.port, owner=owner)
        assert greeting(client) == source


def test_a_row_is_chosen_under_the_nodes_own_key(bench: Bench, version: int) -> None:
    _, source, target = _ended(bench, version, 25_645, times=2)
    table = bpfsys.Map(bench.bpffs / "maps" / "seed", 4, programs.SEED_SIZE)
    seed = table.get(bytes(4))
    table.close()
    assert seed
    assert any(seed)
    asked = asked_by(source, target)
    with reservations(bench.bpffs) as rows:
        found = rows.find(asked)
        assert found is not None
        assert found[0] == siphash_1_3(seed, bytes(asked)) % rows.entries


def test_opening_packets_that_the_kernel_throws_away_leave_room_for_others(bench: Bench) -> None:
    """Before Linux 6.6 each is noted, and none is ever looked up: their checksum is wrong."""
    server = bench.app(bench.world.pod, 4)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    outside = bench.world.outside
    with bench.world.inside(outside, "app"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for port in range(10_000, 10_000 + THROWN_AWAY):
            segment = bytearray(syn(Endpoint(outside.ip(4), port), server.address)[34:])
            segment[16] ^= 0xFF
            raw.sendto(segment, (str(server.address.ip), 0))
    greeting(bench.connect(outside, server.address, patience=30))
    assert proxy.seen.get(timeout=30).destination == server.address
