"""The verbs: a whole cluster up and down, images into its nodes, nodes that crash and come back, kubelets restarted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.lab import control_plane, node, programs, system_images
from tests.cluster.lab.plan import LABS, Plan, claim, find
from tests.cluster.lab.processes import alive, run, wait


def up(name: str, nodes: int = 2) -> Plan:
    """Returns when every node is Ready and names can be looked up."""
    programs.ready(programs.KUBE, programs.ETCD, programs.COREDNS)
    images = system_images.ready()
    plan = claim(name)
    control_plane.up(plan)
    for number in range(1, nodes + 1):
        node.up(plan, number, images)
    for number in range(1, nodes + 1):
        wait_for_node(plan, number)
    manifest = Path(__file__).with_name("dns.yaml").read_text().replace("ADDRESS", plan.dns)
    kubectl(plan, "apply", "-f", "-", given=manifest)
    kubectl(plan, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
    return plan


def down(name: str) -> None:
    """End and remove everything of it; fine when there is nothing."""
    plan = find(name)
    if plan is None:
        return
    for number in plan.nodes():
        node.crash(plan, number)
    node.remove_groups(plan)
    control_plane.down(plan)
    shutil.rmtree(plan.folder)


def existing(name: str) -> Plan:
    plan = find(name)
    if plan is None:
        names = ", ".join(sorted(path.parent.name for path in LABS.glob("*/plan.json"))) or "none"
        raise SystemExit(f"cluster: there is no cluster {name!r} (there is: {names}); `./dev cluster up` makes it")
    return plan


def kubectl(plan: Plan, *argv: str, given: str = "", check: bool = True) -> str:
    """What it printed. Raises SystemExit with what it said when it failed."""
    result = subprocess.run(
        [programs.BIN / "kubectl", "--kubeconfig", plan.kubeconfig, *argv],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and result.returncode != 0:
        raise SystemExit(f"cluster: kubectl {' '.join(argv)}: {result.stderr.strip()}")
    return result.stdout


def ready(plan: Plan, number: int) -> bool:
    text = kubectl(plan, "get", "node", f"n{number}", "-o", "json", check=False)
    conditions = json.loads(text)["status"].get("conditions", []) if text else []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def wait_for_node(plan: Plan, number: int, patience_s: float = 120) -> None:
    try:
        wait(lambda: ready(plan, number), f"ready node n{number}", patience_s)
    except TimeoutError as error:
        log = plan.node_folder(number) / "log" / "node.log"
        raise SystemExit(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from None


def load(plan: Plan, archives: Sequence[Path]) -> None:
    """Import image archives into every running node, all nodes at once."""

    def into(number: int) -> None:
        for archive in archives:
            run(*node.enter(plan, number, ["ctr", "-n", "k8s.io", "images", "import", str(archive.resolve())]))

    running = [number for number in plan.nodes() if node.first_process(plan, number) is not None]
    with ThreadPoolExecutor(len(running) or 1) as pool:
        list(pool.map(into, running))


def crash(plan: Plan, number: int) -> None:
    """Pull the node's plug."""
    node.crash(plan, number)


def back(plan: Plan, number: int) -> None:
    """Switch it on again; returns at once, it comes when it is Ready."""
    node.up(plan, number, system_images.ready())


def restart(plan: Plan, number: int, program: str = "kubelet") -> None:
    """Kill kubelet, containerd or kube-proxy of a node; the node starts it again. Returns when another one runs."""

    def pid() -> str:
        return run(*node.enter(plan, number, ["cat", f"/run/{program}.pid"]), check=False).stdout.strip()

    before = pid()
    run(*node.enter(plan, number, ["kill", "-9", before]))
    wait(lambda: pid() not in ("", before), f"new {program} on n{number}", 30)


def status(plan: Plan) -> str:
    lines = []
    for mark in sorted((plan.folder / "run").iterdir()):
        pid = alive(mark)
        lines.append(f"{mark.name:<26}{'dead' if pid is None else f'pid {pid}'}")
    lines.append(kubectl(plan, "get", "nodes,pods", "-A", "-o", "wide", check=False))
    lines.append(f"export KUBECONFIG={plan.kubeconfig} PATH={programs.BIN}:$PATH")
    return "\n".join(lines)


def timed_up(name: str, nodes: int) -> str:
    began = time.monotonic()
    plan = up(name, nodes)
    return f"up in {time.monotonic() - began:.0f} s\nexport KUBECONFIG={plan.kubeconfig} PATH={programs.BIN}:$PATH"


def run_inside(plan: Plan, number: int, argv: Sequence[str]) -> None:
    """Become `argv`, inside the node."""
    entered = node.enter(plan, number, argv)
    os.execvp(entered[0], entered)


def run_kubectl(plan: Plan, argv: Sequence[str]) -> None:
    """Become kubectl."""
    os.execve(programs.BIN / "kubectl", ["kubectl", *argv], {**os.environ, "KUBECONFIG": str(plan.kubeconfig)})
