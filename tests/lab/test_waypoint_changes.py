"""What changes of a waypoint and behind it while 500 requests a second pass, and a pod that goes without a word: no
request fails.

`./dev campaign waypoint_changes` does the same many times over; routes and canaries are in test_waypoint_steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ambient.cli.demo.stage import PYTHON
from ambient.lab.run import inside, run
from tests.support.lab import LabUnderTest, pod_yaml, until
from tests.support.waypoint_changes import CHANGES, changing_lab, under_load
from tests.support.waypoint_lab import SERVER, WEB, echo, status

FEW = {"endpoint churn": 3, "certificate rotation": 1, "waypoint rollout": 1}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with changing_lab("60s") as lab:
        yield lab


def test_a_tunnel_to_a_pod_that_went_without_a_word_fails_no_request_to_the_next_pod_of_its_address(
    lab: LabUnderTest,
) -> None:
    """On a busy machine the old tunnel may have been given up before the next pod is there: then there is nothing to
    see, and it is tried again."""
    command, labels = [PYTHON, "-u", "-c", SERVER], {"app": "web"}
    gone, heir = (
        pod_yaml(f"shop/{name}", command, node="n2", account="web", labels=labels, grace=0) for name in ("gone", "heir")
    )
    for _ in range(8):
        there = _silently_replaced(lab, gone, heir)
        _nft(lab, "delete table inet silence")
        if there:
            until("it is asked, and nobody asks in vain", lambda: echo(lab, "shop/client")["pod"] == "heir")
        lab.delete(heir)
        if there:
            return
    raise AssertionError("never was there a tunnel to a pod that had gone, and another one at its address")


def _silently_replaced(lab: LabUnderTest, gone: str, heir: str) -> bool:
    """Whether `heir` has the address of `gone`, and a tunnel to that one is still there, from which nobody hears."""
    lab.apply(gone)
    lab.wait_ready("shop/gone")
    address = lab.ip("shop/gone")
    until("a tunnel leads to it", lambda: status(lab, "shop/client", url=WEB) == 200 and address in _tunnels(lab))
    for hook, of in (("output", "daddr"), ("input", "saddr")):
        rule = f"type filter hook {hook} priority 0; ip {of} {address} drop;"
        _nft(lab, f"table inet silence {{\nchain {hook} {{\n{rule}\n}}\n}}")
    lab.delete(gone)
    lab.apply(heir)
    lab.wait_ready("shop/heir")
    return lab.ip("shop/heir") == address and address in _tunnels(lab)


def _nft(lab: LabUnderTest, text: str) -> None:
    run([*inside(lab.names.pod("shop", "waypoint")), "nft", "-f", "-"], text)


def _tunnels(lab: LabUnderTest) -> str:
    return lab.must("exec", "shop/waypoint", "--", "ss", "-tnH", "state", "established", "dport = :15008")


@pytest.mark.parametrize("change", FEW)
def test_no_request_fails_during(lab: LabUnderTest, change: str) -> None:
    until("requests pass", lambda: status(lab, "shop/client", url=WEB) == 200)
    held = under_load(lab, change, FEW[change], CHANGES[change])
    assert held.failed == {}
    # A slow machine does not ask as often as it is told to; but it asks all the time.
    assert held.requests >= held.seconds
