"""One cluster with the mesh installed for the whole kind of tests: our own lab, or that of AMBIENT_TEST_KUBECONFIG.

With a cluster of somebody else's AMBIENT_TEST_IMAGE names the mesh's image as its nodes know it, tests that need the
nodes themselves (fixture `lab`) are left out, and the mesh stays when the tests are over. AMBIENT_TEST_KEEP=1 leaves
our own running as well; AMBIENT_TEST_CLUSTER is its name where several runs share a machine. What may tell why a test
failed is saved (tests.support.kube_evidence) and told in its report.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from daemonset.image.__main__ import CACHE, build
from tests.cluster.lab import cluster, programs
from tests.cluster.lab.plan import STATE, Plan
from tests.support.kube import ROLLED, SYSTEM, Kube
from tests.support.kube_evidence import Logs, gather

NAME = os.environ.get("AMBIENT_TEST_CLUSTER", "test")
CHART = Path(__file__).parents[2] / "daemonset" / "chart"
FOREIGN = os.environ.get("AMBIENT_TEST_KUBECONFIG", "")
FIRST = ("test_api.py", "test_derivation.py")
"""They write what a control plane writes: there must not be one yet."""
LAST = "test_uninstall.py"
FAILURES: Final = STATE / "failures" / NAME
KUBE: Final = pytest.StashKey[Kube]()
LOGS: Final = pytest.StashKey[Logs]()
LONGEST_S = 600 + float(os.environ.get("AMBIENT_TEST_OUTAGE", "40"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(LONGEST_S))
    items.sort(key=lambda item: (item.path.name == LAST, item.path.name not in FIRST))
    if FOREIGN:
        left = [item for item in items if "lab" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    kube = item.session.stash.get(KUBE, None)
    if report.failed and kube is not None and item.path.is_relative_to(Path(__file__).parent):
        name = f"{time.strftime('%H%M%S')}-{item.name.partition('[')[0]}"
        report.sections.append(("the mesh", gather(kube, FAILURES / name, item.session.stash.get(LOGS, None))))
    return report


def render(image: str, *settings: str) -> str:
    """The chart as manifests, by Helm."""
    programs.ready(programs.HELM)
    given = [word for setting in settings for word in ("--set", setting)]
    argv = [programs.HELM.path, "template", "ambient", CHART, "-n", SYSTEM, "--set", "namespace.create=true", *given]
    made = subprocess.run(
        [*argv, "--set", f"image.reference={image}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def install(kube: Kube, *settings: str) -> None:
    """Helm's manifests, applied, and every part as it is wanted."""
    kube.run("apply", "--server-side", "--force-conflicts", "-f", "-", given=render(kube.image, *settings))
    kube.rolled_out(*ROLLED)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Plan]:
    """Our own cluster, whose nodes can be entered, crashed and listened to."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f"{NAME}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.exit(f"another run has the cluster {NAME!r}: AMBIENT_TEST_CLUSTER names one for this run", 2)
        try:
            cluster.down(NAME)  # a run that was killed has left it, with its objects
            plan = cluster.up(NAME)
            shutil.rmtree(FAILURES, ignore_errors=True)
            logs = request.session.stash[LOGS] = Logs(plan.folder, plan.folder / "kept")
            with logs.followed():
                yield plan
        finally:
            if not os.environ.get("AMBIENT_TEST_KEEP"):
                cluster.down(NAME)


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest) -> Kube:
    """The cluster with the mesh installed."""
    if FOREIGN:
        found = shutil.which("kubectl")
        image = os.environ.get("AMBIENT_TEST_IMAGE", "")
        assert found is not None, "kubectl is not installed"
        assert image, "AMBIENT_TEST_IMAGE has to name the mesh's image"
        kube = Kube(Path(found), Path(FOREIGN), image)
    else:
        archive = CACHE / "test.tar"
        image = build(archive)
        plan: Plan = request.getfixturevalue("lab")
        cluster.load(plan, [archive])
        kube = Kube(programs.BIN / "kubectl", plan.kubeconfig, image)
    request.session.stash[KUBE] = kube
    install(kube, "crds.gatewayApi=true")
    return kube
