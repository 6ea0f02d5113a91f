"""What the two parts of a machine are told: both settings parsers accept it, and the one pod is the workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.enrol import Capture, PodTarget, Rules, target
from ambient.agent.settings import AgentSettings
from ambient.join.machine import Machine, place
from ambient.kube.folder import ObjectFolder
from ambient.kube.joined import REDIRECTION
from ambient.kube.objects import Namespace, Pod
from ambient.settings import read_settings
from tests.support.machine import member
from ztunnel.config import read_config


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine("ledger", Path("/run/netns/ledger"), tmp_path / "run", tmp_path / "state")
    made.prepare(member())
    return made


def test_the_agent_understands_its_settings(machine: Machine) -> None:
    settings = read_settings(AgentSettings, machine.environment("agent", member()))
    assert settings.node == member().node
    assert settings.xds == "192.0.2.1:15012"
    assert settings.pod_netns.format(namespace="shop", name="any", uid="u") == "/run/netns/ledger"
    assert settings.token is not None
    assert settings.token.read_text() == member().token("agent")
    assert settings.token.stat().st_mode & 0o777 == 0o600


def test_the_ztunnel_understands_its_settings(machine: Machine) -> None:
    config = read_config(machine.environment("ztunnel", member()))
    assert config.node == member().node
    assert config.trust_domain == "cluster.local"


def test_the_workload_is_the_one_pod_that_the_agent_enrols_closed(machine: Machine) -> None:
    records = ObjectFolder(machine.folder / "objects").records()
    assert not records.refused
    pod, namespace = records.of(Pod)[0], records.of(Namespace)[0]
    wanted = target(pod, namespace, Rules(node=member().node), policies_apply=True)
    assert isinstance(wanted, PodTarget)
    assert (wanted.namespace, wanted.name, wanted.service_account) == ("shop", "ledger-192-0-2-7", "ledger")
    assert [str(ip) for ip in wanted.addresses] == ["192.0.2.7"]
    assert wanted.capture == Capture(fail_open=False)


def test_it_is_captured_once_the_agent_says_so_and_released_when_it_goes(machine: Machine) -> None:
    folder = ObjectFolder(machine.folder / "objects")
    assert not machine.captured(member())
    pod = folder.records().of(Pod)[0]
    folder.status("agent").annotate(pod, {REDIRECTION: "enabled"})
    assert machine.captured(member())
    machine.release(member())
    assert not machine.captured(member())
    assert not folder.records().of(Pod)


def test_a_namespace_is_named_or_a_path() -> None:
    assert place("ledger") == Path("/run/netns/ledger")
    assert place("/proc/7/ns/net") == Path("/proc/7/ns/net")


@pytest.mark.parametrize("path", ["/run/netns/{x}", "/run/netns/}"])
def test_braces_in_a_path_are_braces(tmp_path: Path, path: str) -> None:
    machine = Machine("odd", Path(path), tmp_path, tmp_path)
    settings = read_settings(AgentSettings, machine.environment("agent", member()))
    assert settings.pod_netns.format(namespace="", name="", uid="") == path
