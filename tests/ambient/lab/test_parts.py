"""Smaller pure parts of the lab: who is to be in the mesh, what components are told, routes, tokens, files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ambient.errors import InvalidInput, KernelError, Unavailable
from ambient.kube.objects import Pod, Records, Service, parse_object
from ambient.lab import credentials
from ambient.lab.addresses import Plan
from ambient.lab.admission import Cluster
from ambient.lab.components import components
from ambient.lab.endpoints import backends, target_port
from ambient.lab.kubelet.container import ContainerState
from ambient.lab.kubelet.node import node_routes
from ambient.lab.kubelet.pod import hosts, resolv_conf
from ambient.lab.mesh import is_enrolled, wants_mesh
from ambient.lab.names import Names
from ambient.lab.network import veth_name
from ambient.lab.process import Mark, alive, saved_mark, start_time
from ambient.lab.run import run
from ambient.lab.settings import LabSettings, load, read_json, write_atomically
from ambient.lab.status import mesh_state, table, why_not
from ambient.lab.supervisor import MAX_BACKOFF_S, backoff_s
from ambient.lab.teardown import remains


def _namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _pod(name: str = "x", *, node: str = "n1", ips: tuple[str, ...] = ("10.64.1.2",), **more: Any) -> dict[str, Any]:
    return {
        **{"apiVersion": "v1", "kind": "Pod"},
        "metadata": {"name": name, "namespace": "a", "uid": name, **more.pop("metadata", {})},
        "spec": {"nodeName": node, "containers": [{"name": "c", "command": ["true"]}], **more.pop("spec", {})},
        "status": {"phase": "Running", "ready": True, "podIPs": [{"ip": ip} for ip in ips]},
    }


def _records(*raws: dict[str, Any]) -> Records:
    return Records(1, {record.key: record for record in (parse_object(raw, "t") for raw in raws)})


MODE = "istio.io/dataplane-mode"


@pytest.mark.parametrize(
    ("namespace", "pod", "wanted"),
    [
        ({}, _pod(), False),
        ({MODE: "ambient"}, _pod(), True),
        ({MODE: "none"}, _pod(), False),
        ({}, _pod(metadata={"labels": {MODE: "ambient"}}), True),
        ({MODE: "ambient"}, _pod(metadata={"labels": {MODE: "none"}}), False),
        ({MODE: "ambient"}, _pod(spec={"hostNetwork": True}), False),
        ({MODE: "ambient"}, _pod(metadata={"annotations": {"sidecar.istio.io/status": "x"}}), False),
    ],
)
def test_a_pod_waits_for_the_mesh_only_where_the_labels_say_so(
    namespace: dict[str, str], pod: dict[str, Any], wanted: bool
) -> None:
    records = _records(_namespace("a", **namespace), pod)
    found = records.find(Pod, "a", "x")
    assert found is not None
    assert wants_mesh(found, records) is wanted
    assert mesh_state(found, records) == ("joining" if wanted else "out")
    assert not is_enrolled(found)


def test_a_pod_of_an_excluded_namespace_never_waits() -> None:
    pod = _pod(metadata={"namespace": "kube-system"})
    records = _records(_namespace("kube-system", **{MODE: "ambient"}), pod)
    found = records.find(Pod, "kube-system", "x")
    assert found is not None
    assert not wants_mesh(found, records)


def _nodes(*names: str) -> list[dict[str, Any]]:
    cluster = Cluster.of(Names("t"), Plan(0), Records())
    for name in names:
        raw = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        cluster.admit(parse_object(raw, "t"), raw)
    return [dict(node.raw) for node in cluster.new_nodes]


def test_a_mesh_lab_runs_one_control_plane_and_three_parts_on_each_node(tmp_path: Path) -> None:
    records = _records(*_nodes("n1", "n2"))
    titles = [part.title for part in components(LabSettings("t", 0), records)]
    assert titles == [
        "control",
        *(f"{node}/{part}" for node in ("n1", "n2") for part in ("kubelet", "agent", "ztunnel")),
    ]
    assert [part.title for part in components(LabSettings("t", 0, mesh=False), records)] == ["n1/kubelet", "n2/kubelet"]


def test_agent_and_ztunnel_of_a_node_meet_at_the_same_sockets_and_those_of_another_do_not() -> None:
    found = {part.title: part.env for part in components(LabSettings("t", 0), _records(*_nodes("n1", "n2")))}
    assert found["n1/agent"]["ZTUNNEL_UDS_ADDRESS"] == found["n1/ztunnel"]["INPOD_UDS"]
    assert found["n1/agent"]["AMBIENT_CUSTODY_UDS"] == found["n1/ztunnel"]["AMBIENT_CUSTODY_UDS"]
    for name in ("AMBIENT_CUSTODY_UDS", "AUTH_TOKEN", "AMBIENT_STATE_DIR", "AMBIENT_BPFFS"):
        values = [env[name] for env in found.values() if name in env]
        by_kind = {value for value in values if "custody" not in value}
        assert found["n1/agent"][name] != found["n2/agent"][name]
        assert len(values) >= len(by_kind)
    assert found["n1/agent"]["AUTH_TOKEN"] != found["n1/ztunnel"]["AUTH_TOKEN"]


def test_a_setting_reaches_the_part_it_is_meant_for() -> None:
    settings = LabSettings("t", 0, env=(("SECRET_TTL", "60s"), ("agent:AMBIENT_LOADER", "object")))
    found = {part.title: part.env for part in components(settings, _records(*_nodes("n1")))}
    assert found["n1/ztunnel"]["SECRET_TTL"] == found["control"]["SECRET_TTL"] == "60s"
    assert [title for title, env in found.items() if "AMBIENT_LOADER" in env] == ["n1/agent"]


def test_routes_lead_to_other_nodes_and_to_addresses_chosen_by_pods() -> None:
    records = _records(*_nodes("n1", "n2"), _pod("far", node="n2", ips=("10.64.2.9", "fdcc::9")))
    assert node_routes(records, LabSettings("t", 0), "n1") == [
        "route replace 10.64.2.0/24 via 10.128.0.2 dev eth0",
        "route replace fdab:0:0:2::/64 via fdab:0:0:fffe::2 dev eth0",
        "route replace fdcc::9/128 via fdab:0:0:fffe::2 dev eth0",
    ]
    assert "fdcc::9" not in " ".join(node_routes(records, LabSettings("t", 0), "n2"))


def test_names_of_cables_fit_the_kernel_and_differ() -> None:
    names = {veth_name(f"uid-{i}") for i in range(500)}
    assert len(names) == 500
    assert max(map(len, names)) <= 15


def test_a_pods_resolver_and_hosts_are_kubernetes() -> None:
    both, six = (parse_object(_pod(ips=ips), "t") for ips in (("10.64.1.2", "fd00::2"), ("fd00::2",)))
    assert isinstance(both, Pod)
    assert isinstance(six, Pod)
    settings = LabSettings("t", 0)
    assert resolv_conf(both, settings) == (
        "search a.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.192.0.10\noptions ndots:5\n"
    )
    assert "nameserver fdab:0:0:ffff::a\n" in resolv_conf(six, settings)
    assert hosts(both).endswith("10.64.1.2 x\nfd00::2 x\n")


def test_a_named_port_is_looked_up_in_each_pod() -> None:
    ports = [{"name": "web", "containerPort": 81}]
    pod = parse_object(
        _pod(metadata={"labels": {"app": "x"}}, spec={"containers": [{"name": "c", "command": ["x"], "ports": ports}]}),
        "t",
    )
    raw = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a"}}
    spec = {
        "selector": {"app": "x"},
        "ports": [{"port": 80, "targetPort": "web"}, {"port": 90, "targetPort": "no", "name": "n"}],
    }
    spec["ports"][0]["name"] = "m"  # type: ignore[index,call-overload]
    service = parse_object({**raw, "spec": spec}, "t")
    assert isinstance(service, Service)
    assert isinstance(pod, Pod)
    assert [target_port(port, pod) for port in service.ports] == [81, None]
    assert [backend.ready for backend in backends(service, [pod])] == [True]


def test_a_node_token_says_which_node_and_is_signed_by_the_labs_key(tmp_path: Path) -> None:
    credentials.make_token_key(tmp_path)
    token = credentials.node_token(tmp_path, "n1", "ztunnel")
    public = (tmp_path / "token-public.pem").read_text()
    claims = jwt.decode(token, public, algorithms=["ES256"], audience="istio-ca", issuer="ambient-lab")
    assert (claims["node"], claims["sub"]) == ("n1", "system:serviceaccount:ambient-system:ztunnel")
    credentials.make_token_key(other := tmp_path / "other")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, (other / "token-public.pem").read_text(), algorithms=["ES256"], audience="istio-ca")


def test_the_root_is_made_once_and_its_key_is_for_root_only(tmp_path: Path) -> None:
    credentials.make_ca(tmp_path)
    first = (tmp_path / "root-cert.pem").read_bytes()
    credentials.make_ca(tmp_path)
    assert (tmp_path / "root-cert.pem").read_bytes() == first
    certificate = x509.load_pem_x509_certificate(first)
    key = serialization.load_pem_private_key((tmp_path / "root-key.pem").read_bytes(), None)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.public_key() == key.public_key()
    assert (tmp_path / "root-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_mark_knows_its_process_and_no_other_with_its_number(tmp_path: Path) -> None:
    started = start_time(os.getpid())
    assert started is not None
    Mark(os.getpid(), started).save(tmp_path / "mark", restarts=2)
    assert saved_mark(tmp_path / "mark") == Mark(os.getpid(), started)
    assert read_json(tmp_path / "mark")["restarts"] == 2
    Mark(os.getpid(), started + 1).save(tmp_path / "mark")
    assert saved_mark(tmp_path / "mark") is None


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"], stdout=subprocess.DEVNULL) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(process.pid) is not None
        assert not alive(process.pid)


def test_a_failing_command_says_what_it_said() -> None:
    with pytest.raises(KernelError, match="oh no"):
        run(["sh", "-c", "echo oh no >&2; exit 3"])
    with pytest.raises(KernelError, match="install it"):
        run(["no-such-program-anywhere"])
    assert run(["cat"], "text") == "text"


def test_a_file_is_written_whole_or_not(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", "one", 0o600)
    write_atomically(tmp_path / "deep" / "file", "two")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert read_json(tmp_path / "none") is None
    (tmp_path / "broken").write_text("{")
    assert read_json(tmp_path / "broken") is None


def test_settings_survive_their_file_and_a_broken_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ambient.lab.names.LABS", tmp_path)
    with pytest.raises(Unavailable, match="ambient lab up"):
        load(Names("t"))
    settings = LabSettings("t", 3, mesh=False, env=(("A", "b"),))
    settings.save()
    assert load(Names("t")) == settings
    Names("t").settings.write_text(json.dumps({"lab": "t"}))
    with pytest.raises(InvalidInput, match="broken lab"):
        load(Names("t"))


def test_the_supervisor_restarts_at_once_and_then_slower_up_to_a_limit() -> None:
    delays = [backoff_s(failures) for failures in range(1, 20)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == MAX_BACKOFF_S


def test_of_a_lab_that_never_was_nothing_remains() -> None:
    assert remains(Names("never-made-in-any-test")) == []


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (ContainerState(running=True, restarts=2, exit_code=127), ""),
        (ContainerState(), ""),
        (ContainerState(ended=True, exit_code=0, reason="Completed"), ""),
        (ContainerState(ended=True, exit_code=3, reason="Error"), "Error, exit code 3"),
        (ContainerState(reason="StartError: no"), "StartError: no"),
        (
            ContainerState(restarts=3, exit_code=127, reason="CrashLoopBackOff"),
            "CrashLoopBackOff, exit code 127: its command was not found",
        ),
    ],
)
def test_a_pod_that_does_not_run_says_why(state: ContainerState, why: str) -> None:
    assert why_not([ContainerState(running=True).raw("one"), state.raw("two")]) == why


def test_the_table_shows_every_pod_and_what_is_refused() -> None:
    pod = {"namespace": "a", "name": "x", "node": "n1", "phase": "Running", "ready": True, "restarts": 3}
    state = {
        **{"lab": "t", "revision": 7, "mesh": True, "control": None, "services": []},
        "nodes": [{"name": "n1", "addresses": ["10.0.0.1"], "podCIDRs": ["10.0.0.0/24"], "components": {}}],
        "pods": [{**pod, "ips": ["10.0.0.2", "fd00::2"], "mesh": "enrolled"}],
        "refused": [{"object": "Pod/a/bad", "error": "why not"}],
    }
    lines = table(state).splitlines()
    assert "a          x    n1    Running  yes    3         10.0.0.2 fd00::2  enrolled" in lines
    assert "refused Pod/a/bad: why not" in lines
    state["pods"] = [{**pod, "ips": [], "mesh": "out", "message": "CrashLoopBackOff, exit code 1"}]
    assert "pod a/x: CrashLoopBackOff, exit code 1" in table(state).splitlines()
