"""The compiled CNI plugin against a running agent: a pod of the mesh starts captured, or does not start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ambient.datapath import programs
from ambient.datapath.layout import Flag
from ambient.datapath.maps import Maps
from tests.support import cni
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import Place, World

AMBIENT = namespace("shop", "ambient")
PLAIN = namespace("shop")


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-cn-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with agent_lab(the_world) as made:
        made.settings["AMBIENT_CNI_UDS"] = str(made.root / "cni.sock")
        yield made


def pending(name: str, **metadata: Any) -> dict[str, Any]:
    """A pod that was given to the node and has no sandbox yet."""
    made = pod(name, [], **metadata)
    return {**made, "status": {"phase": "Pending"}}


class Runtime:
    """Calls the plugin as a container runtime does."""

    def __init__(self, lab: AgentLab, timeout_s: int = 30) -> None:
        self.lab = lab
        self.timeout_s = timeout_s

    def call(
        self, command: str, place: Place, *, uid: str = "", container: str = "c1", previous: bool = True
    ) -> cni.Ended:
        return cni.ended(self.begin(command, place, uid=uid, container=container, previous=previous))

    def begin(self, command: str, place: Place, *, uid: str = "", container: str = "c1", previous: bool = True) -> Any:
        result = cni.result(*place.addresses.values()) if previous else None
        return cni.started(
            command,
            cni.configuration(self.lab.root / "cni.sock", result, timeoutSeconds=self.timeout_s),
            netns=f"/run/netns/{self.lab.world.prefix}-{place.name}",
            args=cni.arguments("shop", place.name, uid or self.lab.uid(place.name), container),
            container=container,
        )


def held_because(runtime: Runtime, place: Place, why: str, **how: Any) -> None:
    """A start fails, and says why; an agent that is held up itself for longer than it is asked to wait says nothing."""

    def said() -> bool:
        held = runtime.call("ADD", place, **how)
        assert held.code == 1
        return held.json["code"] == 11 and why in held.json["msg"]

    eventually(said, why)


def captured(lab: AgentLab, place: Place) -> bool:
    with Maps.open(lab.bpffs) as tables:
        rows = [tables.pods.get(place.ip(version)) for version in (4, 6)]
    return all(row is not None and Flag.CAPTURE_OUT in row.flags for row in rows)


def ready(lab: AgentLab) -> None:
    eventually(lambda: (lab.root / "cni.sock").exists(), "the agent listens for the plugin")


def test_add_answers_when_the_pod_is_captured_and_hands_the_result_on(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    answer = Runtime(lab).call("ADD", lab.world.pod)
    assert captured(lab, lab.world.pod)
    assert (answer.code, answer.json) == (0, cni.result(*lab.world.pod.addresses.values()))
    lab.enrolled("pod")


def test_without_capture_the_check_above_sees_it(lab: AgentLab) -> None:
    """Sabotage: an agent that answers without enrolling (the pod has opted out) leaves no captured row."""
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod", labels={"istio.io/dataplane-mode": "none"}))
    ready(lab)
    assert Runtime(lab).call("ADD", lab.world.pod).code == 0
    assert not captured(lab, lab.world.pod)


def test_a_pod_outside_the_mesh_starts_whether_or_not_a_ztunnel_is_there(lab: AgentLab) -> None:
    lab.agent()
    lab.put(PLAIN, pending("pod"))
    ready(lab)
    assert Runtime(lab).call("ADD", lab.world.pod).code == 0
    assert lab.pods() == {}


def test_a_namespace_labelled_just_before_the_pod_was_made_counts(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.settled(lab.put(PLAIN))
    ready(lab)
    lab.put(AMBIENT)
    lab.put(pending("pod"))
    assert Runtime(lab).call("ADD", lab.world.pod).code == 0
    assert captured(lab, lab.world.pod)


def test_without_a_ztunnel_the_pod_is_held_with_a_reason_and_starts_once_there_is_one(lab: AgentLab) -> None:
    lab.agent()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    held_because(Runtime(lab, timeout_s=2), lab.world.pod, "no ztunnel serves it")
    eventually(lambda: lab.pods() == {}, "nothing of the failed start is left")
    lab.ztunnel()
    assert Runtime(lab).call("ADD", lab.world.pod, container="c2").code == 0
    assert captured(lab, lab.world.pod)


def test_without_an_agent_the_plugin_holds_the_pod_and_says_what_to_look_at(lab: AgentLab) -> None:
    lab.put(AMBIENT, pending("pod"))
    held = Runtime(lab).call("ADD", lab.world.pod)
    assert held.code == 1
    assert held.json["code"] == 11
    assert "daemonset ambient-agent" in held.json["msg"]


def test_an_agent_that_was_killed_holds_new_pods_and_its_successor_lets_them_start(lab: AgentLab) -> None:
    agent = lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    agent.end(signal.SIGKILL)
    assert Runtime(lab).call("ADD", lab.world.pod).code == 1
    lab.agent()
    runtime = Runtime(lab)
    eventually(lambda: runtime.call("ADD", lab.world.pod).code == 0, "the next agent lets it start")
    assert captured(lab, lab.world.pod)


def test_an_agent_that_stops_in_the_middle_of_a_start_holds_the_pod(lab: AgentLab) -> None:
    agent = lab.agent()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    call = Runtime(lab).begin("ADD", lab.world.pod)
    eventually(lambda: "shop/pod" in lab.pods(), "the start is under way")
    agent.end(signal.SIGKILL)
    assert cni.ended(call).code == 1


def test_a_restart_before_the_status_shows_the_address_keeps_the_pod_captured(lab: AgentLab) -> None:
    agent = lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    assert Runtime(lab).call("ADD", lab.world.pod).code == 0
    agent.end(signal.SIGKILL)
    later = lab.agent()
    eventually(lambda: lab.pods().get("shop/pod", {}).get("state") == "enrolled", "taken over")
    assert captured(lab, lab.world.pod)
    assert "released" not in later.text()


def test_check_tells_a_captured_pod_from_one_that_is_not(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    runtime = Runtime(lab)
    before = runtime.call("CHECK", lab.world.pod)
    assert (before.code, before.json["code"]) == (1, 101)
    assert runtime.call("ADD", lab.world.pod).code == 0
    after = runtime.call("CHECK", lab.world.pod)
    assert (after.code, after.output) == (0, "")


def test_del_lets_go_of_the_pod_so_that_its_address_can_be_given_again(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    runtime = Runtime(lab)
    assert runtime.call("ADD", lab.world.pod).code == 0
    assert runtime.call("DEL", lab.world.pod).code == 0
    assert not captured(lab, lab.world.pod)
    assert programs.attached(lab.bpffs) == {}
    assert runtime.call("ADD", lab.world.pod, container="c2").code == 0
    assert captured(lab, lab.world.pod)


def test_del_of_an_old_sandbox_leaves_the_pod_that_lives(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    runtime = Runtime(lab)
    assert runtime.call("ADD", lab.world.pod, container="c2").code == 0
    assert runtime.call("DEL", lab.world.pod, container="c1").code == 0
    assert captured(lab, lab.world.pod)


def test_an_address_that_another_pod_holds_holds_the_next_one_until_that_one_is_gone(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"), pending("other"))
    ready(lab)
    runtime = Runtime(lab, timeout_s=2)
    assert runtime.call("ADD", lab.world.pod).code == 0
    twin = replace(lab.world.pod, name="other")
    held_because(runtime, twin, "address-is-held-by-another-pod", container="c2")
    assert captured(lab, lab.world.pod)
    assert runtime.call("DEL", lab.world.pod).code == 0
    other = lab.world.other
    assert Runtime(lab).call("ADD", other, container="c3").code == 0


def test_a_pod_that_the_api_does_not_know_is_held(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, pending("pod"))
    ready(lab)
    held = Runtime(lab).call("ADD", lab.world.pod, uid="another-pods-uid")
    assert held.code == 1
    assert "no such pod" in held.json["msg"]
    assert not captured(lab, lab.world.pod)


def test_before_the_objects_were_read_only_what_the_mesh_needs_itself_starts(lab: AgentLab) -> None:
    lab.agent()
    ready(lab)
    place = lab.world.pod
    held = Runtime(lab, timeout_s=2).call("ADD", place, uid="u")
    assert held.code == 1
    system = cni.call(
        "ADD",
        cni.configuration(lab.root / "cni.sock", cni.result("10.213.1.2")),
        args=cni.arguments("kube-system", "dns", "u"),
    )
    assert system.code == 0


def test_the_socket_is_roots_alone(lab: AgentLab) -> None:
    lab.agent()
    ready(lab)
    assert Path(lab.root / "cni.sock").stat().st_mode & 0o777 == 0o600
