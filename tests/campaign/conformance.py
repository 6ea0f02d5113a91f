"""`./dev campaign conformance [--profile NAME] [--run TEST]`: the Gateway API's official suite on the cluster lab.

Recorded per profile in docs/reports/: `conformance-NAME.yaml` is the suite's own report, `conformance.json` says what
came of every test. Needs Go, for the suite and the images of its pods are built from their modules.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ambient import __version__
from ambient.control.derive_routes import CONSUMERS
from ambient.waypoint.deploy import INGRESS_CLASS
from daemonset.image.__main__ import CACHE, build
from tests.cluster.conftest import install
from tests.cluster.lab import cluster, programs
from tests.cluster.lab.plan import Plan
from tests.cluster.lab.processes import inside
from tests.support.campaign_record import ROOT, commit
from tests.support.conformance import PROFILES, Outcome, Profile, read_outcome, read_tests, recorded
from tests.support.conformance_images import archives
from tests.support.kube import LABEL, Kube, Object, eventually, pod, pod_spec
from tests.support.kube_apps import TOOLS
from tests.support.kube_waypoints import USE, gateway, programmed

REPORTS: Final = ROOT / "docs" / "reports"
RECORD: Final = REPORTS / "conformance.json"
API: Final = "sigs.k8s.io/gateway-api"
MESH: Final = "gateway-conformance-mesh"
IDLE: Final = ("gateway-conformance-app-backend", "gateway-conformance-web-backend")
"""Namespaces in which the suite waits for pods, though tests of meshes alone put none there."""
URL: Final = "https://example.com/ambient"


def main(arguments: Sequence[str]) -> int:
    """0 when no test failed."""
    parser = argparse.ArgumentParser(prog="./dev campaign conformance", description=__doc__)
    parser.add_argument("--profile", action="append", choices=list(PROFILES), help="default: all")
    parser.add_argument("--run", default="", metavar="TEST", help="this test alone; nothing is recorded")
    parser.add_argument("--cluster", default="conformance", help="name of the cluster that is made")
    parser.add_argument("--keep", action="store_true", help="leave it running, and use it as it is the next time")
    given = parser.parse_args(arguments)
    if not given.keep:
        cluster.down(given.cluster)
    try:
        plan = cluster.up(given.cluster)
        kube = _installed(plan)
        failed = [name for name in given.profile or PROFILES if not _run(plan, kube, name, given.run)]
    finally:
        if not given.keep:
            cluster.down(given.cluster)
    return 1 if failed else 0


def _installed(plan: Plan) -> Kube:
    """The cluster with the official CRDs, the mesh, and the images of the suite's pods."""
    archive = CACHE / f"conformance-{plan.name}.tar"
    image = build(archive)
    cluster.load(plan, [archive, *archives()])
    kube = Kube(programs.BIN / "kubectl", plan.kubeconfig, image)
    folder = programs.sources("conformance", API) / "config" / "crd" / "standard"
    definitions = [str(path) for path in sorted(folder.glob("gateway.networking.k8s.io_*s.yaml"))]
    kube.run("apply", "--server-side", *(word for path in definitions for word in ("-f", path)))
    install(kube, "gateway.certificatesFrom={*}")
    return kube


def _run(plan: Plan, kube: Kube, name: str, only: str) -> bool:
    """Whether no test of the profile failed."""
    profile = PROFILES[name]
    listed = _printed("-tests")
    tests = [test for test, features in read_tests(listed).items() if profile.concerns(features)]
    if only:
        tests = [one for one in tests if one == only]
        if not tests:
            return True
    if not profile.gateways:
        _prepared(kube)
    log = plan.logs / f"conformance-{name}.log"
    argv = _argv(profile, only, log.with_suffix(".yaml"))
    with log.open("w") as output:
        subprocess.run(
            [*map(str, inside(plan.netns("n1"), *argv))],
            env={**os.environ, "KUBECONFIG": str(plan.kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    with log.open(errors="replace") as lines:
        outcome = read_outcome(lines, tests)
    _tell(name, outcome, log)
    if not only:
        _keep(name, profile, outcome, log.with_suffix(".yaml"))
    return not outcome.failed


def _printed(*argv: str) -> str:
    return subprocess.run([programs.CONFORMANCE.path, *argv], capture_output=True, text=True, check=True).stdout


def _argv(profile: Profile, only: str, report: Path) -> list[str | Path]:
    return [
        programs.CONFORMANCE.path,
        *("-test.v", "-test.timeout=0", "-test.parallel=8", f"-conformance-profiles={profile.title}"),
        *(f"-supported-features={','.join(profile.extended)}", f"-gateway-class={INGRESS_CLASS}"),
        f"-namespace-labels={LABEL}=ambient{'' if profile.gateways else f',{USE}=waypoint'}",
        *("-cleanup-base-resources=false", f"-skip-tests={','.join(profile.refused)}"),
        *("-organization=ambient", "-project=ambient", f"-url={URL}", f"-contact={URL}"),
        *(f"-version={__version__}", f"-report-output={report}"),
        *([f"-run-test={only}"] if only else []),
    ]


def _prepared(kube: Kube) -> None:
    """Namespaces as the suite would make them, the waypoint, and a pod where the suite waits for any."""
    spaces = {MESH: "mesh", IDLE[0]: "backend", IDLE[1]: "backend"}
    kube.apply(*(_namespace(name, kind) for name, kind in spaces.items()))
    waypoint = gateway(MESH)
    waypoint["metadata"]["annotations"] = {CONSUMERS: "true"}
    kube.apply(
        waypoint,
        *(pod(space, "idle", pod_spec(("sleep", "infinity"), TOOLS)) for space in IDLE),
    )
    eventually(lambda: programmed(kube, MESH), "for the waypoint")
    for space in IDLE:
        kube.ready(space)


def _namespace(name: str, kind: str) -> Object:
    labels = {"gateway-conformance": kind, LABEL: "ambient"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _tell(name: str, outcome: Outcome, log: Path) -> None:
    lines = [f"{name}: {len(outcome.passed)} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped"]
    lines += [f"  failed {test}: {', '.join(parts) or 'as a whole'}" for test, parts in outcome.failed.items()]
    lines += [f"  skipped {test}: {why}" for test, why in outcome.skipped.items()]
    sys.stdout.write("\n".join([*lines, f"  {log}"]) + "\n")
    sys.stdout.flush()


def _keep(name: str, profile: Profile, outcome: Outcome, report: Path) -> None:
    if report.exists():
        (REPORTS / f"conformance-{name}.yaml").write_text(report.read_text())
    before: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    about = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "suite": programs.CONFORMANCE.version,
    }
    before[name] = {**about, **recorded(outcome, profile)}
    RECORD.write_text(json.dumps(dict(sorted(before.items())), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
