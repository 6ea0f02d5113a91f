"""Policy in the kernel: what is known to be refused is refused at once, everything else goes to ztunnel as before."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from ambient.datapath.deny import DenyRow, DenyTables
from ambient.datapath.layout import Bits, Counter, FailMode, Option, Side
from ambient.model.address import HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK, Endpoint, IpAddress
from ambient.model.deny import ANY_PORT, OTHER_PORT, TUNNEL, block_of
from tests.support.capture_bench import Bench, greeting
from tests.support.frames_tcp import syn
from tests.support.kernel_policy import Compared, compare, programs_of

EVERYBODY = (0, 0)
LEASE_S = 600.0


@pytest.fixture(autouse=True)
def no_rows_left(bench: Bench) -> Iterator[None]:
    yield
    bench.maps.deny.delete(bench.maps.deny.tables())
    bench.maps.shadow.clear()
    bench.maps.lease.end()
    bench.maps.config.set(Option(0))


def refuse(bench: Bench, pod: IpAddress, side: Side, *ports: int, peer: tuple[int, int] = EVERYBODY) -> None:
    rows = [DenyRow(ANY_PORT, EVERYBODY), *(DenyRow(port, peer, Bits.REFUSES, 1) for port in ports)]
    put(bench, pod, side, rows)


def put(bench: Bench, pod: IpAddress, side: Side, rows: list[DenyRow]) -> None:
    assert bench.maps.deny.replace({(pod, side): rows}) == {}


def test_a_refused_connect_fails_at_once_and_never_reaches_ztunnel(bench: Bench, version: int) -> None:
    server, free = (bench.app(bench.world.outside, version) for _ in range(2))
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    pod = bench.world.pod.ip(version)
    refuse(bench, pod, Side.OUT, server.address.port, peer=block_of(server.address.ip))
    before = bench.count(Counter.REFUSED_POLICY_OUT), bench.count(Counter.REDIRECTED_OUT)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.pod, server.address)
    assert proxy.seen.empty()
    assert (bench.count(Counter.REFUSED_POLICY_OUT), bench.count(Counter.REDIRECTED_OUT)) == (before[0] + 1, before[1])
    assert greeting(bench.connect(bench.world.pod, free.address)).ip == pod
    assert proxy.seen.get(timeout=30).port == OUTBOUND_PORT


def test_plain_text_that_policy_refuses_is_answered_by_a_reset(bench: Bench, version: int) -> None:
    server, free = (bench.app(bench.world.pod, version) for _ in range(2))
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.pod.ip(version), Side.IN, server.address.port)
    before = bench.count(Counter.REFUSED_POLICY_IN)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.outside, server.address)
    assert proxy.seen.empty()
    assert bench.count(Counter.REFUSED_POLICY_IN) == before + 1
    assert greeting(bench.connect(bench.world.outside, free.address)).ip == bench.world.outside.ip(version)
    assert proxy.seen.get(timeout=30).port == PLAINTEXT_PORT


def test_rows_that_nobody_vouches_for_leave_it_to_ztunnel(bench: Bench, version: int) -> None:
    here, there = bench.app(bench.world.pod, version), bench.app(bench.world.outside, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    pod = bench.world.pod.ip(version)
    refuse(bench, pod, Side.IN, ANY_PORT)
    refuse(bench, pod, Side.OUT, ANY_PORT)
    calls = ((bench.world.outside, here.address, PLAINTEXT_PORT), (bench.world.pod, there.address, OUTBOUND_PORT))
    bench.maps.lease.renew(LEASE_S)
    for place, address, _ in calls:
        with pytest.raises(ConnectionRefusedError):
            bench.connect(place, address)
    assert proxy.seen.empty()
    bench.maps.lease.renew(-1)
    before = bench.count(Counter.LAPSED_POLICY)
    for place, address, port in calls:
        greeting(bench.connect(place, address))
        assert proxy.seen.get(timeout=30).port == port
    assert bench.count(Counter.LAPSED_POLICY) >= before + len(calls)


@pytest.mark.parametrize("mode", list(FailMode))
def test_where_ztunnel_does_not_listen_rows_refuse_however_old_they_are(
    bench: Bench, version: int, mode: FailMode
) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    bench.enrol(bench.world.pod, fail_out=mode)
    pod = bench.world.pod.ip(version)
    refuse(bench, pod, Side.OUT, ANY_PORT)
    bench.maps.lease.renew(-1)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.pod, server.address)


def test_silence_instead_of_a_reset_where_the_node_is_set_so(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.pod.ip(version), Side.IN, server.address.port)
    bench.maps.config.set(Option.SILENT_IN)
    assert bench.refused(bench.world.outside, server.address)


def test_only_tunnels_from_where_nobody_may_ask_anything_are_refused(bench: Bench, version: int) -> None:
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(version), HBONE_PORT)
    refuse(bench, target.ip, Side.IN, HBONE_PORT, OTHER_PORT)  # of plain text: says nothing about tunnels
    assert bench.connect(bench.world.outside, target).recv(16) == b"hbone\n"
    refuse(bench, target.ip, Side.IN, TUNNEL, peer=block_of(bench.world.outside.ip(version)))
    before = bench.count(Counter.REFUSED_POLICY_TUNNEL)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.outside, target)
    assert bench.count(Counter.REFUSED_POLICY_TUNNEL) == before + 1
    assert bench.connect(bench.world.other, target).recv(16) == b"hbone\n"


def test_what_the_kubelet_probes_is_answered_whatever_policy_says(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.pod.ip(version), Side.IN, ANY_PORT)
    greeting(bench.connect(bench.world.node, server.address, owner="kubelet"))


def test_ztunnels_own_connections_are_not_judged_again(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.pod.ip(version), Side.OUT, ANY_PORT, OTHER_PORT)

    greeting(bench.connect(bench.world.pod, server.address, owner="ztunnel", mark=PROXY_MARK))


def test_rows_of_one_pod_say_nothing_about_another(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.other.ip(version), Side.IN, OTHER_PORT)
    greeting(bench.connect(bench.world.outside, server.address))


def test_a_table_is_exchanged_whole_under_traffic(bench: Bench, version: int) -> None:
    """Two versions that refuse the same by different rows: no connection slips through between them."""
    server = bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    pod, over = bench.world.pod.ip(version), threading.Event()

    def exchange() -> None:
        while not over.is_set():
            refuse(bench, pod, Side.IN, server.address.port)
            refuse(bench, pod, Side.IN, OTHER_PORT, peer=block_of(bench.world.outside.ip(version)))

    refuse(bench, pod, Side.IN, server.address.port)
    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(300):
            with pytest.raises(ConnectionRefusedError):
                bench.connect(bench.world.outside, server.address)
    finally:
        over.set()
        thread.join()
    assert proxy.seen.empty()


def test_a_table_that_does_not_fit_changes_nothing(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    pod = bench.world.pod.ip(version)
    refuse(bench, pod, Side.IN, server.address.port)
    small = DenyTables(bench.maps.deny._outer, bench.maps.deny._shape, most=3)
    told = {(pod, Side.IN): [DenyRow(port, EVERYBODY) for port in range(4)]}
    assert [str(error) for error in small.replace(told).values()] == [f"too many rows of policy: IN of {pod}: 4 of 3"]
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.outside, server.address)


def test_ten_thousand_rows_are_looked_up_like_ten(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    number, length = block_of(bench.world.outside.ip(version))
    rows = [DenyRow(ANY_PORT, EVERYBODY)]
    rows += [DenyRow(port % 50_000, (number - port, length), Bits.REFUSES, 1) for port in range(1, 10_001)]
    put(bench, bench.world.pod.ip(version), Side.IN, rows)
    greeting(bench.connect(bench.world.outside, server.address))
    rows.append(DenyRow(server.address.port, (number, length), Bits.REFUSES, 1))
    put(bench, bench.world.pod.ip(version), Side.IN, rows)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.outside, server.address)


def test_programs_say_what_policy_says(bench: Bench) -> None:
    found = _compared(bench)
    assert found.differences == []
    assert found.refused > found.pairs // 4
    assert found.effects > 100


def test_a_wrong_row_is_found_by_that_comparison(bench: Bench) -> None:
    assert _compared(bench, sabotage=True).differences


def _compared(bench: Bench, *, sabotage: bool = False) -> Compared:
    with programs_of(bench.bpffs) as programs:
        return compare(programs, seed=11, scenes=60, flows=40, sabotage=sabotage)


@pytest.mark.parametrize("outbound", [True, False])
def test_data_with_a_refused_opening_packet_goes_nowhere_and_raises_no_alarm(
    bench: Bench, one_cpu: None, outbound: bool
) -> None:
    """As TCP Fast Open sends it: the reset that it becomes carries the data back."""
    here, there = (bench.world.pod, bench.world.outside) if outbound else (bench.world.outside, bench.world.pod)
    server = bench.app(there, 4)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.pod.ip(4), Side.OUT if outbound else Side.IN, OTHER_PORT)
    reasons = (Counter.CLEAR_OUT, Counter.CLEAR_IN)
    before = [bench.count(reason) for reason in reasons]
    with bench.world.inside(here, "app"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(syn(Endpoint(here.ip(4), 40_000), server.address, data=b"early")[34:], (str(server.address.ip), 0))
    with pytest.raises(ConnectionRefusedError):  # and whatever was sent before has been through by now
        bench.connect(here, server.address)
    assert [bench.count(reason) for reason in reasons] == before
