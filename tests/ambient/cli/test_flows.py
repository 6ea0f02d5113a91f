"""`ambient flows`: merged by time, filtered, followed; a bad filter is a usage error."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import ztunnel
from ambient.cli.env import Exit
from ambient.flows.record import Event
from ambient.model.outcome import NoRoute, Reason
from tests.support.cli import FakeMesh, ambient
from ztunnel.telemetry.record import Flag


def _flow(time: float, node: str, **more: Any) -> bytes:
    record = {"event": "closed", "time_unix": time, "node": node, "direction": "outbound", "source": "10.0.0.1:5"}
    return json.dumps(record | {"destination": "10.0.0.2:80"} | more).encode() + b"\n"


def _mesh() -> FakeMesh:
    return FakeMesh(
        {
            ("n1/ztunnel", "/flows"): _flow(1, "n1", source_pod="web", source_namespace="shop") + _flow(3, "n1"),
            ("n2/ztunnel", "/flows"): b"\n" + _flow(2, "n2", event="denied", reason="denied-by", policy="shop/closed"),
        },
        names=("n1", "n2"),
    )


def test_flows_of_all_nodes_are_merged_by_time() -> None:
    lines = ambient(_mesh(), "flows", "-o", "json").out.splitlines()
    assert [json.loads(line)["time_unix"] for line in lines] == [1, 2, 3]


def test_what_a_kernel_refused_is_among_them_as_its_agent_tells_it() -> None:
    mesh = _mesh()
    mesh.answers["n1/agent", "/flows"] = _flow(1.5, "n1", event="denied", reason="denied-by", sequence=1)
    mesh.answers["n2/agent", "/flows"] = (404, "somebody else's agent")
    ran = ambient(mesh, "flows", "-o", "json")
    assert [json.loads(line)["time_unix"] for line in ran.out.splitlines()] == [1, 1.5, 2, 3]
    assert ran.err == ""
    following = ambient(mesh, "flows", "--follow", "-o", "json", "reason=clear-text")
    assert following.code == Exit.OK


def test_an_agent_that_does_not_answer_is_named_and_the_others_are_shown() -> None:
    ran = ambient(_mesh(), "flows", "-o", "json")
    assert "what the kernel refused is not shown: n1/agent does not answer" in ran.err
    assert len(ran.out.splitlines()) == 3


def test_the_table_has_a_header_and_names_the_policy_that_denied() -> None:
    lines = ambient(_mesh(), "flows").out.splitlines()
    assert lines[0].startswith("TIME")
    assert "shop/web" in lines[1]
    assert "denied-by shop/closed" in lines[2]


@pytest.mark.parametrize(
    ("terms", "times"), [(["event=denied"], [2]), (["event!=denied", "from=shop/web"], [1]), (["node=n2"], [2])]
)
def test_filters_choose_flows(terms: list[str], times: list[int]) -> None:
    lines = ambient(_mesh(), "flows", "-o", "json", *terms).out.splitlines()
    assert [json.loads(line)["time_unix"] for line in lines] == times


@pytest.mark.parametrize("argv", [["color=red"], ["event=lost"], ["event"], ["--last", "-1"]])
def test_a_filter_that_means_nothing_is_a_usage_error(argv: list[str]) -> None:
    ran = ambient(_mesh(), "flows", *argv)
    assert ran.code == Exit.USAGE
    assert ran.err.startswith("ambient flows: ")


@pytest.mark.parametrize(
    ("term", "allowed"),
    [
        ("direction=sideways", "inbound, outbound"),
        ("direction!=in", "inbound, outbound"),
        ("direction=inbound,sideways", "inbound, outbound"),
        ("security=tls", "mutual_tls, unknown"),
        ("flags=deny", ", ".join(Flag)),
        ("event=lost", ", ".join(Event)),
        ("reason=nonsense", ", ".join(Reason)),
        ("reason!=denied-by,nonsense", ", ".join(NoRoute)),
        ("node=n3", "node is one of n1, n2"),
    ],
)
def test_a_value_that_no_flow_can_have_is_refused_with_those_there_are(term: str, allowed: str) -> None:
    ran = ambient(_mesh(), "flows", term)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert allowed in ran.err


def reasons_of_ztunnel() -> set[str]:
    """Third arguments of `Failure(...)` and `_miss(...)`, and `reason=`, wherever ztunnel has them written out."""
    found = set()
    for path in Path(ztunnel.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Failure", "_miss"):
                given = [*node.args[2:3], *(word.value for word in node.keywords if word.arg == "reason")]
                found |= {one.value for one in given if isinstance(one, ast.Constant)}
    return {str(reason) for reason in found}


def test_every_reason_that_ztunnel_gives_may_be_asked_for() -> None:
    reasons = reasons_of_ztunnel()
    assert "ip-mismatch" in reasons
    for reason in sorted({*reasons, *Reason, *NoRoute}):
        assert ambient(_mesh(), "flows", f"reason={reason}").code == Exit.OK, reason


@pytest.mark.parametrize("flag", Flag)
def test_every_value_that_a_flow_can_have_may_be_asked_for(flag: Flag) -> None:
    terms = (f"flags={flag}", "direction=inbound,outbound", "security=mutual_tls,unknown", "event=closed,opened")
    assert ambient(_mesh(), "flows", *terms).code == Exit.OK


def test_following_shows_every_node_until_all_are_gone() -> None:
    ran = ambient(_mesh(), "flows", "--follow", "-o", "json")
    assert sorted(json.loads(line)["time_unix"] for line in ran.out.splitlines()) == [1, 2, 3]


def test_following_says_which_node_is_gone_and_goes_on_with_the_others() -> None:
    mesh = _mesh()
    del mesh.answers["n1/ztunnel", "/flows"]
    ran = ambient(mesh, "flows", "--follow", "-o", "json")
    assert "n1/ztunnel does not answer" in ran.err
    assert json.loads(ran.out)["node"] == "n2"


def test_a_line_that_is_no_flow_is_one_readable_error() -> None:
    mesh = FakeMesh({("n1/ztunnel", "/flows"): b'{"event": "closed"}\n'})
    ran = ambient(mesh, "flows")
    assert ran.code == Exit.FAILURE
    assert "flows of node n1: time_unix is missing" in ran.err
