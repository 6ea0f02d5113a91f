"""Where programs of tc may not put sockets into maps (Linux 7.3), ztunnel's listeners are found by name: chosen by
asking the kernel, and one form of the programs follows the other like any version.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.datapath import bpfinfo, bpfsys, programs, tc_sockets
from ambient.datapath.layout import Counter
from ambient.datapath.tc_sockets import FORMS, Listeners
from ambient.errors import KernelError
from ambient.model.address import PLAINTEXT_PORT, Endpoint
from tests.support.capture_bench import NAMED, Bench, echoed, greeting, used_up
from tests.support.capture_world import GIVE_UP
from tests.support.stand_in import marked_listener

PORT = 81
"""Nobody listens: the stand-in closes first, so that the TIME_WAIT is on its side."""
NOBODY = 65534
MANY = 128
"""Sockets that fill the map, each under many names: the kernel's time to let go of one grows with the square of its."""


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/amb-bt-{os.getpid()}-forms")
    yield path
    programs.unload(path)


@pytest.mark.parametrize("loader", ["bcc", "object"])
@pytest.mark.parametrize("form", FORMS)
def test_what_the_kernel_says_when_it_is_asked_holds_for_the_programs(
    scratch: Path, form: Listeners, loader: programs.Loader
) -> None:
    """What is not said to be taken is refused, and the form that is chosen without a word is the one that is said."""
    if form == "reserved" and tc_sockets.listeners() == "named":
        with pytest.raises(KernelError, match="sockmap"):
            programs.load(scratch, loader, listeners=form)
    else:
        assert programs.load(scratch, loader, listeners=form).listeners == form
        assert (scratch / "maps" / "listeners").exists() == (form == "named")
        assert (scratch / "maps" / "reborn").exists() == (form == "reserved")
    assert programs.load(scratch, loader).listeners == tc_sockets.listeners()


def test_who_may_load_nothing_is_told_so_and_not_taken_for_a_kernel_that_refuses() -> None:
    child = os.fork()
    if not child:
        told = "nothing"
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            tc_sockets.listeners()
        except KernelError as error:
            told = str(error)
        finally:
            os._exit(0 if "not permitted" in told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _own_port(bench: Bench, number: int) -> int:
    """A source port for this test and loader alone: what the one leaves in TIME_WAIT would make the other late."""
    return number + (100 if "bcc" in bench.bpffs.name else 0)


@contextlib.contextmanager
def _listeners(bench: Bench) -> Iterator[bpfsys.Map]:
    table = bpfsys.Map(bench.bpffs / "maps" / "listeners", 8, 8)
    try:
        yield table
    finally:
        table.close()


@NAMED
def test_a_listener_without_a_name_gets_that_connection_late_and_the_application_never(bench: Bench) -> None:
    """As one that listened before the program that names them was there; so the name is what makes it early."""
    programs.detach_node(bench.bpffs)
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(4), PORT)
    source_port = _own_port(bench, 25_610)
    used_up(bench, bench.world.outside, target, source_port)
    assert proxy.seen.get(timeout=30).source.port == source_port
    bench.app(bench.world.pod, 4, PORT)
    with pytest.raises(TimeoutError):
        bench.connect(bench.world.outside, target, source_port=source_port, patience=GIVE_UP)
    assert proxy.seen.empty()


@NAMED
def test_a_name_without_its_listener_gives_that_packet_to_nobody_and_the_next_one_to_ztunnel(bench: Bench) -> None:
    """As after the map of the listeners was emptied: late at worst, never the application's unjudged."""
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target, source_port = Endpoint(bench.world.pod.ip(4), PORT), _own_port(bench, 25_620)
    used_up(bench, bench.world.outside, target, source_port)
    assert proxy.seen.get(timeout=30).source.port == source_port
    bench.app(bench.world.pod, 4, PORT)
    with _listeners(bench) as table:
        keys = list(table.walk())
        assert keys
        assert all(table.delete(key) for key in keys)
    greeting(bench.connect(bench.world.outside, target, source_port=source_port, patience=30))
    assert proxy.seen.get(timeout=5).source.port == source_port, "the application had it, and ztunnel never"


@NAMED
def test_only_what_can_be_ztunnels_is_put_among_its_listeners(bench: Bench) -> None:
    """The mark alone is anybody's who may set it; each takes a place."""
    counted = bench.count(Counter.LISTENER_UNNAMED)
    with _listeners(bench) as table:
        before = len(list(table.walk()))
        for port, more in ((PORT, 0), (PLAINTEXT_PORT, 1)):
            with marked_listener(bench.world, bench.world.pod, port) as listener:
                listener.listen()
                assert len(list(table.walk())) == before + more, port
    assert bench.count(Counter.LISTENER_UNNAMED) == counted


@NAMED
def test_a_listener_for_which_there_is_no_place_is_counted_and_gets_its_connections(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    before = bench.count(Counter.LISTENER_UNNAMED)
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(_listeners(bench))
        places = bpfinfo.map_layout(table.path).entries
        for number in range(MANY):
            filler = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for name in range(number, places, MANY):
                table.put((1 << 63 | name).to_bytes(8, sys.byteorder), filler.fileno().to_bytes(8, sys.byteorder))
        proxy = bench.stand_in(bench.world.pod)
        assert bench.count(Counter.LISTENER_UNNAMED) > before
        source_port = _own_port(bench, 25_630)
        used_up(bench, bench.world.outside, Endpoint(bench.world.pod.ip(4), PORT), source_port)
        assert proxy.seen.get(timeout=30).source.port == source_port


@NAMED
def test_a_name_goes_with_its_listener(bench: Bench) -> None:
    """Nobody else gets what is left of it, and the next one has a name of its own."""
    bench.attach(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(4), PORT)
    for source_port in (_own_port(bench, 25_611), _own_port(bench, 25_612)):
        proxy = bench.stand_in(bench.world.pod)
        for _ in range(2):
            used_up(bench, bench.world.outside, target, source_port)
            assert proxy.seen.get(timeout=30).source.port == source_port
        proxy.close()
    assert bench.refused(bench.world.outside, target)


@NAMED
def test_from_one_form_to_the_other_and_back_connections_go_on(bench: Bench) -> None:
    loader: programs.Loader = "bcc" if "bcc" in bench.bpffs.name else "object"
    server = bench.app(bench.world.outside, 4)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.pod, server.address)
    greeting(client)
    rows = bench.maps.pods.items()
    for form in (tc_sockets.listeners(), "named"):
        loaded = programs.load(bench.bpffs, loader, listeners=form)
        assert (loaded.listeners, loaded.reused) == (form, form == "named" == tc_sockets.listeners())
        assert all(one.alive for one in programs.attached(bench.bpffs)["pod"])
        assert bench.maps.pods.items() == rows
        assert echoed(client, b"the same connection")
        before = bench.count(Counter.REDIRECTED_OUT)
        greeting(bench.connect(bench.world.pod, server.address))
        assert bench.count(Counter.REDIRECTED_OUT) == before + 1
