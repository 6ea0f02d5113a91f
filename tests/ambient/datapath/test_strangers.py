"""A program of somebody else is said with its place."""

from __future__ import annotations

from ambient.datapath.strangers import Stranger


def test_a_stranger_says_where_it_is_and_whether_it_runs_first() -> None:
    assert str(Stranger("eth0", "egress", "tcx", "cil_to_host", first=True)) == (
        "cil_to_host (tcx, egress of eth0, before ours)"
    )
    assert str(Stranger("eth0", "ingress", "clsact", "")) == "a program (clsact, ingress of eth0, after ours)"
