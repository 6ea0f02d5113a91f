"""Programs come onto interfaces by TCX or as filters of clsact: from one to the other, beside others, seen when
they are taken off, exchanged when another version comes.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ambient.datapath import bpfsys, hooked, programs
from ambient.datapath.hooks import HOOKS, Attach
from ambient.datapath.layout import Counter
from ambient.datapath.strangers import Stranger, strangers
from ambient.netns import entered
from tests.support.bpf_links import link_programs
from tests.support.capture_bench import Bench, echoed, greeting
from tests.support.capture_world import run

CLSACT = pytest.mark.parametrize("via", ["clsact"], indirect=True)


def tc(bench: Bench, *words: str) -> str:
    return run("nsenter", f"--net=/run/netns/{bench.world.prefix}-pod", "tc", *words)


@CLSACT
def test_filters_are_on_and_off_with_the_pod_and_leave_nothing(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    attached = programs.attached(bench.bpffs)["pod"]
    assert {one.program for one in attached if one.alive} == {hook.program for hook in HOOKS}
    pods = {hook.program for hook in HOOKS}
    ours = {bpfsys.program_id(pin) for pin in (bench.bpffs / "programs").glob("*/*") if pin.name in pods}
    assert len([program for program in link_programs() if program in ours]) == 1, "the look-up of listeners alone"
    assert "ambient:pod_egress" in tc(bench, "filter", "show", "dev", "eth0", "egress")
    assert strangers(bench.bpffs, bench.world.pod.netns, "eth0") == ()
    programs.detach_pod(bench.bpffs, "pod")
    assert programs.attached(bench.bpffs) == {}
    assert "clsact" not in tc(bench, "qdisc", "show")


def test_from_one_to_the_other_and_back_connections_go_on(bench: Bench) -> None:
    server = bench.app(bench.world.outside, 4)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.pod, server.address)
    greeting(client)
    for via in ("clsact", "tcx"):
        programs.attach_pod(bench.bpffs, bench.world.pod.netns, "pod", via=via)
        programs.attach_host(bench.bpffs, bench.world.node.netns, "pod", "pod", via)
        assert all(one.alive for one in programs.attached(bench.bpffs)["pod"])
        assert ("clsact" in tc(bench, "qdisc", "show")) == (via == "clsact")
        with entered(bench.world.pod.netns):
            links = bpfsys.attached_programs(socket.if_nametoindex("eth0"), Attach.TCX_EGRESS)
        assert len(links) == (via == "tcx")
        assert echoed(client, b"the same connection")
        before = bench.count(Counter.REDIRECTED_OUT)
        greeting(bench.connect(bench.world.pod, server.address))
        assert bench.count(Counter.REDIRECTED_OUT) == before + 1


@CLSACT
def test_a_filter_that_somebody_takes_off_or_replaces_is_seen_and_put_back(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    ours = ("dev", "eth0", "egress", "pref", "1", "handle", "0xa3b", "bpf")
    tc(bench, "filter", "del", *ours)
    assert [one.program for one in programs.attached(bench.bpffs)["pod"] if not one.alive] == ["pod_egress"]
    programs.attach_pod(bench.bpffs, bench.world.pod.netns, "pod", via="clsact")
    assert all(one.alive for one in programs.attached(bench.bpffs)["pod"])
    foreign = str(next((bench.bpffs / "programs").iterdir()) / "host_egress")
    tc(bench, "filter", "replace", *ours, "da", "object-pinned", foreign)
    assert [one.program for one in programs.attached(bench.bpffs)["pod"] if not one.alive] == ["pod_egress"]
    programs.attach_pod(bench.bpffs, bench.world.pod.netns, "pod", via="clsact")
    assert all(one.alive for one in programs.attached(bench.bpffs)["pod"])


@CLSACT
def test_what_is_left_of_a_pod_whose_namespace_has_a_new_owner_does_not_touch_its_filters(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    there = bench.bpffs / "pods" / "pod" / "pod_egress"
    gone = bench.bpffs / "pods" / "gone"
    gone.mkdir()
    (gone / "pod_egress").symlink_to(os.readlink(there))
    assert [one.alive for one in programs.attached(bench.bpffs)["gone"]] == [False]
    before = hooked.program(there)
    hooked.put_program(gone / "pod_egress", next((bench.bpffs / "programs").iterdir()) / "host_egress")
    programs.detach_pod(bench.bpffs, "gone")
    assert hooked.program(there) == before
    assert all(one.alive for one in programs.attached(bench.bpffs)["pod"])


@CLSACT
def test_filters_of_others_stay_and_are_named_with_their_place(bench: Bench) -> None:
    foreign = str(next((bench.bpffs / "programs").iterdir()) / "host_egress")
    tc(bench, "qdisc", "add", "dev", "eth0", "clsact")
    bench.stack.callback(tc, bench, "qdisc", "del", "dev", "eth0", "clsact")
    for preference in ("2", "1"):
        tc(
            bench,
            *("filter", "add", "dev", "eth0", "ingress", "pref", preference, "handle", "0x7", "bpf", "da"),
            *("object-pinned", foreign),
        )
    bench.attach(bench.world.pod)
    found = strangers(bench.bpffs, bench.world.pod.netns, "eth0")
    assert [(one.kind, one.direction, one.first) for one in found] == [
        ("clsact", "ingress", False),
        ("clsact", "ingress", False),
    ]
    assert isinstance(found[0], Stranger)
    programs.detach_pod(bench.bpffs, "pod")
    assert tc(bench, "filter", "show", "dev", "eth0", "ingress").count("handle 0x7") == 2


@CLSACT
def test_another_version_exchanges_the_filters_and_a_namespace_that_is_gone_is_nobodys(bench: Bench) -> None:
    loader: programs.Loader = "bcc" if next((bench.bpffs / "programs").iterdir()).name.endswith("bcc") else "object"
    server = bench.app(bench.world.outside, 4)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    pins = [pin for pin in (bench.bpffs / "pods" / "pod").iterdir() if pin.is_symlink()]
    before = {hooked.program(pin) for pin in pins}
    programs.load(bench.bpffs, "object" if loader == "bcc" else "bcc")
    try:
        assert not before & {hooked.program(pin) for pin in pins}
        greeting(bench.connect(bench.world.pod, server.address))
    finally:
        programs.load(bench.bpffs, loader)
    gone = bench.bpffs / "pods" / "gone"
    gone.mkdir()
    (gone / "pod_egress").symlink_to(f"clsact:{os.getpid()}:3:{int(Attach.TCX_EGRESS)}")
    assert [one.alive for one in programs.attached(bench.bpffs)["gone"]] == [False]
    programs.detach_pod(bench.bpffs, "gone")
    assert not Path(gone).exists()
