"""The read commands over the golden dump: the rows people see and the JSON scripts get."""

from __future__ import annotations

import pytest

from ambient.cli.certs import hexadecimal, left
from ambient.cli.env import Exit
from tests.support.cli import FakeMesh, ambient, healthy


def _row(out: str, *cells: str) -> list[str]:
    rows = [line.split() for line in out.splitlines() if all(cell in line.split() for cell in cells)]
    assert len(rows) == 1, f"{cells} in {len(rows)} rows of:\n{out}"
    return rows[0]


def test_workloads_show_address_node_protocol_and_identity() -> None:
    ran = ambient(healthy("n1"), "workloads")
    assert _row(ran.out, "mesh", "srv-x")[2:6] == ["10.244.2.5", "n2", "HBONE", "mesh/srv-x"]


def test_workloads_of_one_namespace_are_only_those() -> None:
    ran = ambient(healthy("n1"), "workloads", "-n", "plain", "-o", "json")
    assert {entry["name"] for entry in ran.json} == {"client", "tools", "srv-s", "srv-x"}


def test_a_workload_known_to_two_nodes_is_shown_once() -> None:
    assert ambient(healthy("n1", "n2"), "workloads").out == ambient(healthy("n1"), "workloads").out


def test_services_count_healthy_and_all_endpoints() -> None:
    ran = ambient(healthy("n1"), "services", "-n", "mesh")
    assert "2/3" in _row(ran.out, "both")
    assert "mesh/wp.mesh.svc.cluster.local" in _row(ran.out, "withwp")
    assert "80->8080" in _row(ran.out, "withwp")


def test_a_named_target_port_shows_where_the_endpoints_have_it() -> None:
    mesh = FakeMesh()
    for own, wanted in (
        ([], "(named)"),
        ([{}], "(named)"),
        ([{"100": 8100}], "8100"),
        ([{"100": 9100}, {"100": 8100}], "8100/9100"),
    ):
        endpoints = {str(n): {"port": port, "workloadUid": str(n)} for n, port in enumerate(own)}
        service = {"name": "db", "namespace": "shop", "hostname": "db.shop", "ports": {"80": 8080, "100": 0}}
        mesh.answers["n1/ztunnel", "/config_dump"] = {"services": [service | {"endpoints": endpoints}]}
        assert f"80->8080,100->{wanted}" in _row(ambient(mesh, "services").out, "db")


def test_policies_show_action_scope_and_how_many_they_select() -> None:
    ran = ambient(healthy("n1"), "policies")
    assert "Deny" in _row(ran.out, "global-deny")
    assert "the mesh" in ran.out
    found = ambient(healthy("n1"), "policies", "-n", "mesh", "-o", "json").json
    assert found[0]["name"] == "allow-client"


def test_certificates_show_leaf_and_root_and_what_is_left() -> None:
    ran = ambient(healthy("n1"), "certs")
    leaf = [line for line in ran.out.splitlines() if "sa/client" in line and " leaf " in line]
    assert len(leaf) == 1
    assert "2bc6c1ec5fdafbe2" in leaf[0], "the serial in hexadecimal"
    assert leaf[0].split()[-1].endswith("m")
    assert any(" root " in line for line in ran.out.splitlines())


@pytest.mark.parametrize(
    ("decimal", "text"),
    [("0", "00"), ("10", "0a"), ("255", "ff"), ("2748", "0abc"), (str(0x0BC6 << 112), "0bc6" + "0" * 28), ("²", "²")],
)
def test_a_serial_is_whole_octets(decimal: str, text: str) -> None:
    assert hexadecimal(decimal) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "expired"), (-5, "expired"), (59, "0m59s"), (3661, "1h1m"), (90000, "1d1h")]
)
def test_what_is_left_of_a_certificate_has_two_units(seconds: int, text: str) -> None:
    assert left("2026-11-21T10:00:00Z", 1_795_255_200 - seconds) == text


def test_what_is_left_of_a_certificate_with_an_odd_date_is_blank() -> None:
    assert left("someday", 0) == ""


def test_connections_show_both_directions() -> None:
    mesh = healthy("n1")
    mesh.answers["n1/ztunnel", "/config_dump"] = {
        "workloadState": {
            "uid": {
                "state": "Up",
                "info": {"name": "web", "namespace": "shop", "serviceAccount": "web"},
                "connections": {
                    "inbound": [
                        {"src": "10.0.0.1:5", "originalDst": None, "actualDst": "10.0.0.2:80", "protocol": "HBONE"}
                    ],
                    "outbound": [
                        {
                            "src": "10.0.0.2:6",
                            "originalDst": "10.9.9.9:80",
                            "actualDst": "10.0.0.3:15008",
                            "protocol": "HBONE",
                        }
                    ],
                },
            }
        }
    }
    mesh.answers["n1/ztunnel", "/connections"] = [
        {
            "namespace": "shop",
            "pod": "web",
            "direction": "outbound",
            "src": "10.0.0.2:6",
            "actualDst": "10.0.0.3:15008",
            "peer": "spiffe://cluster.local/ns/shop/sa/db",
            "ageSeconds": 12.5,
        }
    ]
    ran = ambient(mesh, "connections")
    assert _row(ran.out, "inbound")[3:5] == ["10.0.0.1:5", "10.0.0.2:80"]
    assert _row(ran.out, "outbound")[4:6] == ["10.9.9.9:80", "10.0.0.3:15008"]
    assert (_row(ran.out, "inbound")[-1], _row(ran.out, "outbound")[-1]) == ("-", "12.5s")
    assert ambient(mesh, "connections", "-n", "other", "-o", "json").json == []
    whole = ambient(mesh, "connections", "-o", "json").json
    assert [one["peer"] for one in whole] == [None, "spiffe://cluster.local/ns/shop/sa/db"]
    # Istio's ztunnel has no such page.
    mesh.answers["n1/ztunnel", "/connections"] = (404, "")
    assert [one["age_s"] for one in ambient(mesh, "connections", "-o", "json").json] == [None, None]


def test_status_shows_every_node_and_the_revision() -> None:
    ran = ambient(healthy("n1", "n2"), "status")
    assert ran.code == Exit.OK
    assert "lab test: control plane ready, revision 7" in ran.out
    assert _row(ran.out, "n2")[1:4] == ["ready", "ready", "revision"]


@pytest.mark.parametrize(
    ("workers", "shown"),
    [
        ("compiled (46 modules, mypyc 2)", "ready, compiled"),
        ("interpreted (stream.py is not what was compiled)", "ready, interpreted"),
        ("compiled (46 modules, mypyc 2), interpreted (ZTUNNEL_COMPILED=never)", "ready, compiled+interpreted"),
        ("", "ready"),
    ],
)
def test_status_says_which_form_the_workers_run_and_in_full_why(workers: str, shown: str) -> None:
    mesh = healthy("n1")
    mesh.answers["n1/ztunnel", "/config_dump"] = {"version": {"workers": workers}}
    (node,) = ambient(mesh, "status", "-o", "json").json["nodes"]
    assert (node["ztunnel"], node["workers"]) == (shown, workers)


def test_status_shows_a_part_that_does_not_answer_and_goes_on() -> None:
    mesh = healthy("n1", "n2")
    del mesh.answers["n1/ztunnel", "/config_dump"]
    del mesh.answers["n1/ready", "/healthz/ready"]
    document = ambient(mesh, "status", "-o", "json").json
    assert [node["healthy"] for node in document["nodes"]] == [False, True]
    assert document["nodes"][0]["ztunnel"] == "Connection refused"


def test_status_without_a_control_plane_says_so() -> None:
    mesh = healthy("n1")
    del mesh.answers["control", "/ready"]
    assert "NOT READY (Connection refused)" in ambient(mesh, "status").out


def test_check_is_content_with_a_healthy_mesh() -> None:
    ran = ambient(healthy("n1", "n2"), "check")
    assert (ran.code, "FAILED" in ran.out) == (Exit.OK, False), ran.out


def _broken(part: str) -> FakeMesh:
    mesh = healthy("n1")
    clients = mesh.answers["control", "/sync"]["clients"]
    match part:
        case "control":
            mesh.answers["control", "/ready"] = (503, "no snapshot yet")
        case "agent":
            mesh.answers["n1/agent", "/ready"] = (503, "no programs")
        case "ztunnel":
            mesh.answers["n1/ready", "/healthz/ready"] = (500, "not ready, pending: proxy")
        case "behind":
            clients["n1/agent"]["acked"] = 6
        case "nack":
            clients["n1/ztunnel"]["nack"] = "shop/p: no such field"
        case "absent":
            clients.clear()
        case "certificate":
            mesh.answers["n1/ztunnel", "/config_dump"] = {
                "certificates": [{"identity": "spiffe://td/ns/a/sa/b", "state": "Unavailable: refused"}]
            }
        case "pending":
            mesh.answers["n1/ztunnel", "/config_dump"] = {
                "workloadState": {"u": {"state": "Pending", "info": {"namespace": "shop", "name": "web"}}}
            }
    return mesh


@pytest.mark.parametrize(
    ("part", "detail"),
    [
        ("control", "no snapshot yet"),
        ("agent", "no programs"),
        ("ztunnel", "not ready, pending: proxy"),
        ("behind", "n1/agent is at 6 of 7"),
        ("nack", "n1/ztunnel refused shop/p: no such field"),
        ("absent", "not connected to the control plane"),
        ("certificate", "spiffe://td/ns/a/sa/b: Unavailable: refused"),
        ("pending", "pending: shop/web"),
    ],
)
def test_check_names_what_is_broken_and_its_exit_code_says_no(part: str, detail: str) -> None:
    ran = ambient(_broken(part), "check")
    assert ran.code == Exit.NEGATIVE
    failed = [line for line in ran.out.splitlines() if "FAILED" in line]
    assert len(failed) == 1
    assert detail in failed[0]


def test_pods_show_state_and_older_connections() -> None:
    mesh = healthy("n1")
    mesh.answers["n1/agent", "/pods"] = {
        "node": "n1",
        "pods": [
            {
                "pod": "shop/web",
                "uid": "u",
                "state": "enrolled",
                "addresses": {"10.0.0.2": None},
                "older_connections": [{}, {}],
            }
        ],
        "not_enrolled": [
            {"pod": "plain/x", "uid": "v", "reason": "not-labelled"},
            {"pod": "shop/db", "uid": "w", "reason": "runs-on-another-node"},
        ],
    }
    ran = ambient(mesh, "pods")
    assert _row(ran.out, "web")[2:] == ["n1", "10.0.0.2", "enrolled", "-", "2"]
    assert _row(ran.out, "x")[3:6] == ["-", "out", "not-labelled"]
    assert [pod["name"] for pod in ambient(mesh, "pods", "-n", "plain", "-o", "json").json] == ["x"]


def test_version_names_the_parts_of_a_bug_report() -> None:
    assert {"ambient", "python", "openssl", "kernel"} <= set(ambient(FakeMesh(), "version", "-o", "json").json)


@pytest.mark.parametrize("name", ["agent", "control"])
def test_agent_and_control_become_that_process(name: str) -> None:
    assert ambient(FakeMesh(), name).became[1:] == ("-m", f"ambient.{name}")
    assert ambient(FakeMesh(), name, "--port").code == Exit.USAGE
    assert ambient(FakeMesh(), name, "--help").code == Exit.OK


def _with_web(mesh: FakeMesh) -> FakeMesh:
    mesh.answers["n1/agent", "/pods"] = {"pods": [], "not_enrolled": [{"pod": "shop/out", "reason": "not-labelled"}]}
    mesh.answers["n2/agent", "/pods"] = {"pods": [{"pod": "shop/web", "state": "enrolled"}]}
    mesh.answers["n2/agent", "POST /cut shop/web"] = {"pod": "shop/web", "cut": 2}
    return mesh


def test_cut_asks_the_agent_of_the_pods_node_and_says_how_many_it_ended() -> None:
    ran = ambient(_with_web(healthy("n1", "n2")), "pods", "--cut", "shop/web")
    assert (ran.code, _row(ran.out, "web")[2:]) == (Exit.OK, ["n2", "2"])


@pytest.mark.parametrize(
    ("pod", "code", "why"),
    [
        ("web", Exit.USAGE, "expected NAMESPACE/POD"),
        ("shop/", Exit.USAGE, "expected NAMESPACE/POD"),
        ("shop/web/x", Exit.USAGE, "expected NAMESPACE/POD"),
        ("shop/out", Exit.FAILURE, "pod shop/out is not in the mesh"),
        ("shop/none", Exit.FAILURE, "pod shop/none is not in the mesh"),
    ],
)
def test_cut_refuses_what_is_no_pod_of_the_mesh(pod: str, code: int, why: str) -> None:
    ran = ambient(_with_web(healthy("n1", "n2")), "pods", "--cut", pod)
    assert ran.code == code
    assert why in ran.err


def test_cut_tells_when_the_agent_cannot() -> None:
    mesh = _with_web(healthy("n1", "n2"))
    mesh.answers["n2/agent", "POST /cut shop/web"] = (503, '{"error": "sock_diag: not permitted"}')
    ran = ambient(mesh, "pods", "--cut", "shop/web")
    assert ran.code == Exit.FAILURE
    assert "not permitted" in ran.err


def test_check_names_a_program_that_sees_packets_before_ours_and_counts_those_behind() -> None:
    mesh = healthy("n1", "n2")
    behind = {"what": "cil_from (tcx, ingress of eth0, after ours)", "first": False}
    mesh.answers["n1/agent", "/strangers"] = {"shop/web": [behind]}
    mesh.answers["n2/agent", "/strangers"] = {}
    ran = ambient(mesh, "check")
    assert ran.code == Exit.OK
    assert "1 beside ours" in ran.out
    assert "ours alone" in ran.out
    before = {"what": "cil_from (tcx, ingress of eth0, before ours)", "first": True}
    mesh.answers["n1/agent", "/strangers"] = {"shop/web": [behind, before]}
    ran = ambient(mesh, "check")
    assert ran.code == Exit.NEGATIVE
    assert "before ours: shop/web: cil_from" in ran.out


def test_check_and_status_tell_how_pods_are_captured_on_each_node() -> None:
    mesh = healthy("n1", "n2")
    said = {"via": "clsact", "why": "it is set so", "loader": "bcc", "version": "0123", "schema": "4567"}
    mesh.answers["n1/agent", "/datapath"] = said
    ran = ambient(mesh, "check")
    assert ran.code == Exit.OK
    assert "n1/datapath" in ran.out
    assert "clsact: it is set so; 0123 by bcc" in ran.out
    assert "n2/datapath" not in ran.out
    node, other = ambient(mesh, "status", "-o", "json").json["nodes"]
    assert (node["capture"], other["capture"]) == ("clsact", "")
    assert "listeners by name" not in ran.out
    mesh.answers["n1/agent", "/datapath"] = {**said, "listeners": "named"}
    for verb in ("check", "status"):
        assert "listeners by name" in ambient(mesh, verb, "-o", "json").out, verb
