"""Somebody takes pod_egress off: until it is put back, nothing that a captured connection sends leaves the node."""

from __future__ import annotations

import socket

import pytest

from ambient.datapath import hooked, programs
from ambient.datapath.layout import Counter
from tests.support.capture_bench import EVERY_WAY, Bench, outside_saw
from tests.support.proxied import captured_out, handed_in

pytestmark = [EVERY_WAY, pytest.mark.usefixtures("one_cpu")]

SECRET = b"a secret that is for ztunnel only"
PATIENCE_S = 60.0
"""For what the kernel repeats: in seconds, when it has waited."""


def _take_off(bench: Bench, program: str) -> None:
    hooked.take_off(bench.bpffs / "pods" / bench.world.pod.name / program)


def _held_back(bench: Bench, version: int, here: socket.socket, ztunnel: socket.socket) -> None:
    """It goes nowhere, is counted, and arrives where it belongs once the program is back."""
    before = bench.count(Counter.REFUSED_BYPASS)
    _take_off(bench, "pod_egress")
    assert not outside_saw(bench, version, SECRET, lambda: here.sendall(SECRET))
    assert bench.count(Counter.REFUSED_BYPASS) > before
    programs.attach_pod(bench.bpffs, bench.world.pod.netns, bench.world.pod.name, via=bench.via)
    ztunnel.settimeout(PATIENCE_S)
    assert ztunnel.recv(len(SECRET), socket.MSG_WAITALL) == SECRET


def test_what_a_client_sends_is_held_back_until_the_program_is_there_again(bench: Bench, version: int) -> None:
    _held_back(bench, version, *captured_out(bench, version))


def test_what_a_server_answers_is_held_back_until_the_program_is_there_again(bench: Bench, version: int) -> None:
    _held_back(bench, version, *handed_in(bench, version))


def test_sabotage_without_the_guard_of_the_node_it_leaks(bench: Bench, version: int) -> None:
    here, _ = captured_out(bench, version)
    _take_off(bench, "host_ingress")
    _take_off(bench, "pod_egress")
    assert outside_saw(bench, version, SECRET, lambda: here.sendall(SECRET))


def test_what_was_not_captured_goes_on(bench: Bench, version: int) -> None:
    """A row of a pod that is released says nothing about what its sockets were before."""
    here, _ = captured_out(bench, version)
    for text in bench.world.pod.addresses:
        bench.maps.pods.delete(bench.world.pod.ip(text))
    _take_off(bench, "pod_egress")
    assert outside_saw(bench, version, SECRET, lambda: here.sendall(SECRET))
