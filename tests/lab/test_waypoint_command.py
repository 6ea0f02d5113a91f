"""`ambient waypoint` in a lab: made, enrolled, waited for, told of, deleted with its pod."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from ambient.kube.objects import Namespace, Pod
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, pod_yaml


@pytest.fixture
def lab() -> Iterator[LabUnderTest]:
    with lab_under_test("wpcmd") as lab:
        space = namespace_yaml("shop", **{"istio.io/dataplane-mode": "ambient"})
        lab.up(space + pod_yaml("shop/client", SLEEP, node="n1"), mesh=True)
        yield lab


def test_a_waypoint_comes_and_goes_by_command(lab: LabUnderTest) -> None:
    def run(*words: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "ambient", "waypoint", *words, "--lab", lab.lab.names.lab]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stdout + done.stderr

    assert run("status", "-A")[0] == 3
    code, said = run("apply", "-n", "shop", "--enroll-namespace", "--wait", "--timeout", "180")
    assert code == 0, said + lab.tails()
    code, said = run("status", "-n", "shop")
    assert (code, "True" in said) == (0, True), said
    space = lab.lab.records().find(Namespace, "", "shop")
    assert space is not None
    assert space.labels["istio.io/use-waypoint"] == "waypoint"
    assert run("delete", "absent", "-n", "shop")[0] == 1
    code, said = run("delete", "-n", "shop", "--timeout", "180")
    assert code == 0, said + lab.tails()
    assert lab.lab.records().find(Pod, "shop", "waypoint") is None
    assert run("status", "-n", "shop")[0] == 3
