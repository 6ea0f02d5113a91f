"""An agent that is stopped: everything stays when another one comes, nothing stays when its DaemonSet is gone."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from ambient.datapath import programs
from ambient.netns import entered
from tests.support import cni
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import World, run

CONFIGURATION = b'{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}'
POD = pod("pod", ["10.213.1.2", "fd00:213:1::2"])


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-nl-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with agent_lab(the_world) as made:
        for name in ("net.d", "bin"):
            (made.root / name).mkdir()
        (made.root / "net.d" / "10-pods.conflist").write_bytes(CONFIGURATION)
        made.settings |= {
            "AMBIENT_CNI_UDS": str(made.root / "cni.sock"),
            "AMBIENT_CNI_CONF_DIR": str(made.root / "net.d"),
            "AMBIENT_CNI_BIN_DIR": str(made.root / "bin"),
            "AMBIENT_CNI_PLUGIN": str(cni.plugin()),
        }
        yield made


@contextmanager
def api_server(lab: AgentLab, *answers: HTTPStatus) -> Iterator[list[str]]:
    """An API server on the node that is asked for the DaemonSet; the last answer is given for ever."""
    left = list(answers)
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status = left.pop(0) if len(left) > 1 else left[0]
            body = b'{"kind": "DaemonSet", "metadata": {}}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the test's output."""

    with entered(lab.world.node.netns):
        server = http.server.ThreadingHTTPServer(("10.213.0.1", 0), Handler)
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://10.213.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (lab.root / "kubeconfig").write_text(json.dumps(config))
    lab.settings |= {"KUBECONFIG": str(lab.root / "kubeconfig"), "AMBIENT_DAEMONSET": "ambient-agent"}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def on_the_node(lab: AgentLab) -> dict[str, bool]:
    """What there is of us."""
    rules = run("nsenter", f"--net=/run/netns/{lab.world.prefix}-pod", "ip", "rule")
    return {
        "configuration": (lab.root / "net.d" / "10-pods.conflist").read_bytes() != CONFIGURATION,
        "other files": sorted(p.name for p in (lab.root / "net.d").iterdir()) != ["10-pods.conflist"],
        "program": (lab.root / "bin" / "ambient-cni").exists(),
        "pins": lab.bpffs.exists() and bool(programs.attached(lab.bpffs)),
        "rule": "0x53a" in rules,
        "annotation": lab.shown("pod") is not None,
        "state": (lab.root / "state").exists(),
    }


def stopped(lab: AgentLab, *answers: HTTPStatus) -> dict[str, bool]:
    """What is left after an agent with one pod was told to stop."""
    with api_server(lab, *answers) as asked:
        agent = lab.agent()
        lab.ztunnel()
        lab.put(namespace("shop", "ambient"), POD)
        lab.enrolled("pod")
        eventually(lambda: asked, "the agent looks for its DaemonSet")
        assert all(on_the_node(lab).values()), on_the_node(lab)
        assert agent.end() == 0, agent.text()
        assert all(path.endswith("/namespaces/ambient-system/daemonsets/ambient-agent") for path in asked)
    return on_the_node(lab)


def test_replaced_it_leaves_everything(lab: AgentLab) -> None:
    assert all(stopped(lab, HTTPStatus.OK).values())


def test_with_its_daemon_set_gone_nothing_is_left(lab: AgentLab) -> None:
    assert not any(stopped(lab, HTTPStatus.OK, HTTPStatus.NOT_FOUND).values())


def test_with_its_rights_gone_too_nothing_is_left(lab: AgentLab) -> None:
    assert not any(stopped(lab, HTTPStatus.OK, HTTPStatus.FORBIDDEN).values())


def test_in_doubt_it_leaves_everything(lab: AgentLab) -> None:
    assert all(stopped(lab, HTTPStatus.FORBIDDEN).values())


def test_the_plugin_of_a_running_agent_is_put_back(lab: AgentLab) -> None:
    lab.agent()
    path = lab.root / "net.d" / "10-pods.conflist"
    eventually(lambda: b"ambient-cni" in path.read_bytes(), "the entry")
    path.write_bytes(CONFIGURATION)
    Path(lab.root / "bin" / "ambient-cni").unlink()
    eventually(lambda: b"ambient-cni" in path.read_bytes(), "the entry again")
    assert (lab.root / "bin" / "ambient-cni").read_bytes() == cni.plugin().read_bytes()
