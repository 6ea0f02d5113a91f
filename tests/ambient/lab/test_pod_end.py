"""The end of a pod: what is said of it, and that the agent has let it go before its network goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from ambient.kube.files import read_json
from ambient.kube.objects import Pod, Records, parse_object
from ambient.kube.status import StatusWriter
from ambient.lab.kubelet.container import ContainerState
from ambient.lab.kubelet.pod import Host, PodRunner, last_phase
from ambient.lab.mesh import REDIRECTION
from ambient.lab.settings import LabSettings

Until = Callable[[Callable[[Records], bool]], Awaitable[None]]


def _pod(uid: str = "pod-that-never-ran", *, enrolled: bool = True) -> Pod:
    annotations = {REDIRECTION: "enabled"} if enrolled else {}
    metadata = {"name": "p", "namespace": "a", "uid": uid, "annotations": annotations}
    spec = {"nodeName": "n1", "containers": [{"name": "c", "command": ["true"]}]}
    pod = parse_object({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, "t")
    assert isinstance(pod, Pod)
    return pod


def _end(folder: Path, until: Until, *, mesh: bool = True) -> dict[str, Any]:
    """End a pod that never ran; what was said of it."""
    settings = LabSettings("end-of-a-pod", 1, mesh)
    status = StatusWriter(folder, "kubelet-n1")
    runner = PodRunner(_pod(), Host(settings, "n1", 1, status, until, lambda: None, lambda pod: None))
    runner.end()
    asyncio.run(runner.run())
    said = folder / "status" / "kubelet-n1" / "Pod.a.p.json"
    return dict(read_json(said)) if said.exists() else {}


def _records(*pods: Pod) -> Records:
    return Records(1, {pod.key: pod for pod in pods})


def test_a_pod_waits_until_the_agent_has_let_it_go(tmp_path: Path) -> None:
    waited: list[Callable[[Records], bool]] = []

    async def until(condition: Callable[[Records], bool]) -> None:
        waited.append(condition)

    assert _end(tmp_path, until)["phase"] == "Failed", "it never ran"
    (let_go,) = waited
    assert not let_go(_records(_pod()))
    assert let_go(_records(_pod(enrolled=False)))
    assert let_go(_records(_pod("another")))
    assert let_go(_records())


def test_an_agent_that_does_not_let_go_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def until(condition: Callable[[Records], bool]) -> None:
        raise TimeoutError

    _end(tmp_path, until)
    assert "pod a/p: the agent has not let it go" in capsys.readouterr().err


def test_without_a_mesh_nobody_is_waited_for(tmp_path: Path) -> None:
    async def until(condition: Callable[[Records], bool]) -> None:
        raise AssertionError("there is no agent")

    assert _end(tmp_path, until, mesh=False) == {}


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        ([ContainerState(ended=True, exit_code=0)], "Succeeded"),
        ([ContainerState(ended=True, exit_code=0), ContainerState(ended=True, exit_code=1)], "Failed"),
        ([ContainerState(ended=True, exit_code=0), ContainerState(running=True)], "Failed"),
        ([ContainerState(running=True, restarts=1, exit_code=0)], "Failed"),
        ([ContainerState(ended=True, exit_code=None)], "Failed"),
        ([], "Failed"),
    ],
)
def test_only_what_is_known_to_have_ended_well_has_succeeded(states: Collection[ContainerState], phase: str) -> None:
    assert last_phase(states) == phase
