"""Rows for UDP and ICMP follow the policies that name them and the pods of the node."""

from __future__ import annotations

from ipaddress import ip_address

from ambient.agent.enrol import PodTarget
from ambient.agent.kernel_datagrams import Datagrams
from ambient.datapath.deny_rows import Numbers
from ambient.datapath.layout import Side
from ambient.model.deny import Guarded
from ambient.model.identity import Identity
from ambient.model.policy import Action, Authorization, Datagram, PolicyScope
from tests.support.agent_fakes import target

IP = ip_address("10.0.0.5")
ME = Identity("cluster.local", "shop", "web")
DENY = Authorization(
    name="no",
    namespace="shop",
    scope=PolicyScope.NAMESPACE,
    action=Action.DENY,
    rules=((),),
    datagrams=frozenset({Datagram.UDP}),
)
POD: PodTarget = target()


def test_a_policy_that_names_udp_is_told_for_udp_once() -> None:
    datagrams = Datagrams(Numbers())
    told = datagrams.plan([(POD, Guarded(ME, (DENY,)))], [], [])
    assert set(told.tables) == {(ip, side) for ip in POD.addresses for side in (Side.UDP_IN, Side.UDP_PROVEN)}
    assert told.gone == ()
    assert datagrams.plan([(POD, Guarded(ME, (DENY,)))], [], told.tables).tables == {}


def test_a_pod_is_judged_under_the_number_of_its_interface_too_which_goes_with_it() -> None:
    datagrams, interfaces = Datagrams(Numbers()), {POD.uid: 7}
    numbers = (ip_address("0.0.0.7"), ip_address("::7"))
    told = datagrams.plan([(POD, Guarded(ME, (DENY,)))], [], [], interfaces)
    assert {(ip, side) for ip in numbers for side in (Side.UDP_IN, Side.UDP_PROVEN)} < set(told.tables)
    assert all(told.tables[ip, Side.UDP_IN] for ip in numbers)
    assert set(datagrams.plan([], [], told.tables, interfaces).gone) == set(told.tables)


def test_what_the_kernel_did_not_take_is_told_again() -> None:
    datagrams = Datagrams(Numbers())
    told = datagrams.plan([(POD, Guarded(ME, (DENY,)))], [], [])
    datagrams.forget([(IP, Side.UDP_IN)])
    again = datagrams.plan([(POD, Guarded(ME, (DENY,)))], [], []).tables
    assert again == {table: rows for table, rows in told.tables.items() if table[0] == IP}


def test_tables_go_with_the_policy_and_with_the_pod() -> None:
    there = [(IP, Side.UDP_IN), (IP, Side.UDP_PROVEN), (IP, Side.IN)]
    datagrams = Datagrams(Numbers())
    datagrams.plan([(POD, Guarded(ME, (DENY,)))], [], [])
    assert datagrams.plan([(POD, Guarded(ME))], [], there).gone == tuple(there[:2])
    assert datagrams.plan([], [], there).gone == tuple(there[:2])


def test_tables_of_a_pod_of_which_not_all_is_known_stay() -> None:
    there = [(IP, Side.UDP_IN), (IP, Side.UDP_PROVEN)]
    datagrams = Datagrams(Numbers())
    assert datagrams.plan([(POD, Guarded(ME, missing=True))], [], there).gone == ()
    assert datagrams.plan([], [IP], there).gone == ()
