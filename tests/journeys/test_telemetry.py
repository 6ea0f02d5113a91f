"""One connection, and what is told of it: counters, access log and flows at both ends, with the same numbers."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys

import pytest

from ambient.cli.demo.meters import COUNTERS, traffic
from ambient.cli.reach import LabReach
from tests.support.journey import BATCH, BYTES, CUT_S, FAR, HTTP, LEGACY, LINES, NEAR, OUTSIDE, WEB, Journey, policy
from tests.support.lab import until

SPIFFE = "spiffe://cluster.local/ns/shop/sa/"
STATS_PORT = 15020
NODE_OF = {NEAR: "n1", FAR: "n2", WEB: "n1", LEGACY: "n2", OUTSIDE: "n1"}


def _meters(mesh: Journey, node: str, **labels: str) -> dict[str, float]:
    return traffic(LabReach(mesh.lab.name).ztunnel(node, "/metrics", STATS_PORT).text, labels)


def _labels(server: str) -> dict[str, str]:
    name = server.partition("/")[2]
    return {
        "source_principal": f"{SPIFFE}web",
        "destination_principal": f"{SPIFFE}{name}",
        "source_workload": "web",
        "source_workload_namespace": "shop",
        "destination_workload": name,
        "destination_workload_namespace": "shop",
        "destination_service": f"{name}.shop.svc.cluster.local",
        "destination_service_name": name,
        "destination_service_namespace": "shop",
        "connection_security_policy": "mutual_tls",
        "request_protocol": "tcp",
        "response_flags": "-",
    }


@pytest.mark.parametrize("server", [NEAR, FAR])
def test_both_ends_count_the_same_connections_and_bytes_under_both_principals(mesh: Journey, server: str) -> None:
    ends = (("n1", "source"), (NODE_OF[server], "destination"))
    before = {end: _meters(mesh, end[0], reporter=end[1], **_labels(server)) for end in ends}
    assert mesh.stage.move(WEB, f"{server.partition('/')[2]}.shop", BYTES, 4, 12_345) == 4 * 2 * 12_345
    wanted = dict(zip(COUNTERS, (4, 4, 4 * 12_345, 8 * 12_345), strict=True))
    for end in ends:

        def grown(end: tuple[str, str] = end) -> bool:
            now = _meters(mesh, end[0], reporter=end[1], **_labels(server))
            return {name: now[name] - before[end][name] for name in COUNTERS} == wanted

        until(f"{end}: {wanted}", grown)


def test_open_connections_are_counted_before_they_end(mesh: Journey) -> None:
    labels = {"reporter": "source", "source_principal": f"{SPIFFE}batch", "destination_workload": "far"}
    with mesh.stage.talk(BATCH, "far.shop", LINES) as talk:
        assert talk.next().startswith("got hello")
        opened, closed = COUNTERS[:2]
        until("it is open", lambda: _meters(mesh, "n1", **labels)[opened] == _meters(mesh, "n1", **labels)[closed] + 1)
        sent = _meters(mesh, "n1", **labels)[COUNTERS[3]]
        assert all(talk.echo("more" * 10) for _ in range(20))
        until("its octets count too", lambda: _meters(mesh, "n1", **labels)[COUNTERS[3]] >= sent + 800)
    until("it is closed", lambda: _meters(mesh, "n1", **labels)[opened] == _meters(mesh, "n1", **labels)[closed])


def _logged(mesh: Journey, node: str, *words: str) -> list[str]:
    lines = mesh.stage.logs(node, "ztunnel").splitlines()
    return [line for line in lines if "\taccess\t" in line and all(word in line for word in words)]


def test_the_access_logs_of_both_ends_agree(mesh: Journey) -> None:
    mesh.stage.move(WEB, "far.shop", BYTES, 1, 54_321)
    out = until("outbound", lambda: _logged(mesh, "n1", 'direction="outbound"', "bytes_sent=54321"))[0]
    came = until("inbound", lambda: _logged(mesh, "n2", 'direction="inbound"', "bytes_recv=54321"))[0]
    for line in (out, came):
        for field in (
            'src.workload="web"',
            'src.namespace="shop"',
            f'src.identity="{SPIFFE}web"',
            'dst.service="far.shop.svc.cluster.local"',
            'dst.workload="far"',
            'dst.namespace="shop"',
            f'dst.identity="{SPIFFE}far"',
        ):
            assert field in line, line
        assert re.search(r'duration="\d+ms"', line)
    assert "bytes_recv=108642" in out
    assert "bytes_sent=108642" in came


def test_what_is_outside_has_no_principal(mesh: Journey) -> None:
    assert mesh.reaches(OUTSIDE, FAR)
    line = until("inbound in clear", lambda: _logged(mesh, "n2", 'direction="inbound"', 'src.workload="outside"'))[-1]
    assert "src.identity" not in line
    assert mesh.reaches(WEB, LEGACY)
    line = until("outbound in clear", lambda: _logged(mesh, "n1", 'direction="outbound"', 'dst.workload="legacy"'))[-1]
    assert "dst.identity" not in line
    labels = {"reporter": "source", "destination_workload": "legacy", "connection_security_policy": "unknown"}
    until("counted as such", lambda: _meters(mesh, "n1", **labels)["istio_tcp_connections_opened_total"] >= 1)


def test_a_denial_is_told_with_its_policy_at_the_end_that_denied(mesh: Journey) -> None:
    only_web = policy("only-web", "ALLOW", [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}])
    mesh.lab.apply(only_web)
    try:
        assert not mesh.reaches(BATCH, FAR)
        asked = ("flows", "--name", mesh.lab.name, "--node", "n2", "event=denied", "-o", "json")
        told = json.loads(until("a flow", lambda: mesh.stage.must(*asked).splitlines())[-1])
        assert told["policy"] == "shop/only-web"
        assert told["source_principal"] == f"{SPIFFE}batch"
        assert told["reason"] == "no-allow-matched"
        line = until("a log line", lambda: _logged(mesh, "n2", f'src.identity="{SPIFFE}batch"', "error="))[-1]
        assert 'policy="shop/only-web" reason="no-allow-matched"' in line
        nearest = "nearest is rule 1 of shop/only-web: source.principals: cluster.local/ns/shop/sa/batch is not"
        assert nearest in line
        assert nearest in told["detail"]
        labels = {"policy": "shop/only-web", "reason": "no-allow-matched"}
        until("a count", lambda: _counted(mesh, "n2", "ambient_policy_denials_total", **labels) >= 1)
    finally:
        mesh.lab.delete(only_web)


def _counted(mesh: Journey, node: str, name: str, **labels: str) -> float:
    text = LabReach(mesh.lab.name).ztunnel(node, "/metrics", STATS_PORT).text
    shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name}{{{shown}}} ")]
    return float(found[0]) if found else 0.0


def test_a_dry_run_refuses_nobody_cuts_nobody_and_is_counted(mesh: Journey) -> None:
    dry = policy("soon", "DENY", [{}], annotations={"istio.io/dry-run": "true"})
    labels = {"policy": "shop/soon", "effect": "would-deny"}
    with mesh.stage.talk(BATCH, mesh.host(FAR, 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        mesh.lab.apply(dry)
        try:
            assert mesh.reaches(BATCH, FAR)
            until("counted", lambda: _counted(mesh, "n2", "ambient_policy_dry_runs_total", **labels) >= 1)
            assert talk.next(CUT_S) == "", "it lives on"
            explained = mesh.stage.command("explain", "--name", mesh.lab.name, BATCH, f"far.shop:{HTTP}")
            assert "shop/soon, a dry run, would deny" in explained.out
        finally:
            mesh.lab.delete(dry)


def test_both_ends_of_a_connection_are_of_one_trace(mesh: Journey) -> None:
    mesh.stage.move(WEB, "far.shop", BYTES, 1, 31_337)
    asked = ("flows", "--name", mesh.lab.name, "event=closed", "from=shop/web", "-o", "json")

    def traces() -> list[str]:
        flows = [json.loads(line) for line in mesh.stage.must(*asked).splitlines()]
        return [flow["traceparent"] for flow in flows if flow.get("bytes_sent") == 31_337]

    until("both ends told of it", lambda: len(traces()) == 2)
    out, came = traces()
    assert out == came
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", out)


def test_following_flows_shows_a_connection_as_it_happens(mesh: Journey) -> None:
    argv = [sys.executable, "-m", "ambient", "flows", "--name", mesh.lab.name, "--follow", "--last", "0", "-o", "json"]
    with subprocess.Popen([*argv, "from=shop/web", "port=7001"], stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            # The follower may not be there yet when the first goes by: move until a line has come.
            while not select.select([following.stdout], [], [], 0.2)[0]:
                mesh.stage.move(WEB, "far.shop", BYTES, 1, 10)
            first = json.loads(following.stdout.readline())
            assert first["source_pod"] == "web"
        finally:
            following.terminate()
