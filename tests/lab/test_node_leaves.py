"""An agent that is stopped: everything stays when another one comes, nothing stays when its DaemonSet is gone."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ambient.datapath import programs
from ambient.netns import entered
from tests.support import cni, own_daemon_set
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import World, run
from tests.support.kube_api import FakeApi
from tests.support.own_daemon_set import all_of, delete, end_rights

Act = Callable[[FakeApi], None]
Ask = Callable[[Callable[[FakeApi], bool | None]], bool]

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
def api_server(lab: AgentLab) -> Iterator[Ask]:
    """An API server on the node that has the agent's DaemonSet; what is yielded does something on it."""
    loop = asyncio.new_event_loop()

    async def opened() -> FakeApi:
        api = await FakeApi().__aenter__()
        api.put(own_daemon_set.namespace())
        api.put(own_daemon_set.daemon_set())
        return api

    def on_the_node() -> None:
        with entered(lab.world.node.netns):
            loop.run_forever()

    thread = threading.Thread(target=on_the_node)
    thread.start()
    api = asyncio.run_coroutine_threadsafe(opened(), loop).result()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (lab.root / "kubeconfig").write_text(json.dumps(config))
    lab.settings |= {"KUBECONFIG": str(lab.root / "kubeconfig"), "AMBIENT_DAEMONSET": "ambient-agent"}

    def ask(what: Callable[[FakeApi], bool | None]) -> bool:
        async def do() -> bool:
            return bool(what(api))

        return asyncio.run_coroutine_threadsafe(do(), loop).result()

    try:
        yield ask
    finally:
        asyncio.run_coroutine_threadsafe(api.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


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


def stopped(lab: AgentLab, *acts: Act, at_once: bool = False) -> dict[str, bool]:
    """What is left after an agent with one pod was told to stop; before that, or before it began, `acts` were done."""
    with api_server(lab) as ask:
        if at_once:
            ask(all_of(*acts))
        agent = lab.agent()
        lab.ztunnel()
        lab.put(namespace("shop", "ambient"), POD)
        lab.enrolled("pod")
        if not at_once:
            eventually(lambda: ask(lambda api: bool(api.watchers)), "the agent watches its DaemonSet")
            ask(all_of(*acts))
        eventually(lambda: all(on_the_node(lab).values()), "all of it is there")
        assert agent.end() == 0, agent.text()
    return on_the_node(lab)


def test_replaced_it_leaves_everything(lab: AgentLab) -> None:
    assert all(stopped(lab).values())


def test_with_its_daemon_set_gone_nothing_is_left(lab: AgentLab) -> None:
    assert not any(stopped(lab, delete).values())


def test_with_its_rights_gone_too_nothing_is_left(lab: AgentLab) -> None:
    assert not any(stopped(lab, delete, end_rights).values())


def test_in_doubt_it_leaves_everything(lab: AgentLab) -> None:
    assert all(stopped(lab, end_rights, at_once=True).values())


def test_the_plugin_of_a_running_agent_is_put_back(lab: AgentLab) -> None:
    lab.agent()
    path = lab.root / "net.d" / "10-pods.conflist"
    eventually(lambda: b"ambient-cni" in path.read_bytes(), "the entry")
    path.write_bytes(CONFIGURATION)
    Path(lab.root / "bin" / "ambient-cni").unlink()
    eventually(lambda: b"ambient-cni" in path.read_bytes(), "the entry again")
    program = lab.root / "bin" / "ambient-cni"
    eventually(lambda: program.exists() and program.read_bytes() == cni.plugin().read_bytes(), "the program again")
