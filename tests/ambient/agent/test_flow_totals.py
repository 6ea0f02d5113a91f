"""Totals of flows are added up by who talks to whom, and their number of series is bounded."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from prometheus_client.parser import text_string_to_metric_families

from ambient.agent.flow_totals import FlowTotals
from ambient.datapath.layout import End
from tests.support.told_flows import CLIENT, WORKLOADS, line


def samples(totals: FlowTotals) -> dict[tuple[str, str, str, str], float]:
    """(name, source, destination, end) -> value."""
    text = "\n".join(totals.series()) + "\n"
    return {
        (one.name, one.labels["source"], one.labels["destination"], one.labels.get("end", "")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_lines_of_the_same_two_are_added_up_whatever_their_addresses_and_ports() -> None:
    totals = FlowTotals()
    totals.add([line(), line(port=81), line(end=End.ORDERLY)], WORKLOADS.get)
    totals.add([line()], WORKLOADS.get)
    found = samples(totals)
    assert found["ambient_flows_total", "shop/web", "data/db", "none"] == 3
    assert found["ambient_flows_total", "shop/web", "data/db", "orderly"] == 1
    assert found["ambient_flow_sent_bytes_total", "shop/web", "data/db", ""] == 40
    assert found["ambient_flow_received_packets_total", "shop/web", "data/db", ""] == 4
    assert found["ambient_flow_round_trip_microseconds_total", "shop/web", "data/db", ""] == 400
    assert ("ambient_flow_retransmitted_total", "shop/web", "data/db", "") not in found


def test_who_is_no_workload_is_unknown() -> None:
    totals = FlowTotals()
    totals.add([line(destination=IPv4Address("192.0.2.1"))], WORKLOADS.get)
    assert ("ambient_flows_total", "shop/web", "unknown", "none") in samples(totals)


def test_after_so_many_pairs_the_rest_is_added_up_as_others() -> None:
    totals = FlowTotals(most=1)
    totals.add([line(), line(destination=CLIENT), line(destination=IPv4Address("192.0.2.1"))], WORKLOADS.get)
    found = samples(totals)
    assert {(key[1], key[2]) for key in found} == {("shop/web", "data/db"), ("other", "other")}
    assert found["ambient_flows_total", "other", "other", "none"] == 2


def test_what_the_kernel_added_up_beyond_a_share_is_with_others() -> None:
    totals = FlowTotals()
    totals.add([line(destination=IPv6Address("::"), port=0)], WORKLOADS.get)
    assert ("ambient_flows_total", "shop/web", "other", "none") in samples(totals)
