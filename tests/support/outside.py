"""A machine outside the lab's Kubernetes, and a workload on it in a network namespace of its own.

Cables and addresses are those of a node that no object names, so nothing of the lab runs there; `down` of the lab
removes the namespaces with the lab's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ambient.join.machine import Machine
from ambient.kube.networking import WorkloadEntry
from ambient.lab import cgroup, network
from ambient.lab.names import NETNS_DIR
from ambient.lab.run import ip_batch
from tests.support.lab import Done, LabUnderTest, until

NAME: Final = "outside"
NUMBER: Final = 9
SHOP: Final = Path(__file__).parents[2] / "daemonset" / "sample" / "shop.py"
_ENDS_S: Final = 100


class Outside:
    """`join` and `serve` start processes that end with the context at the latest."""

    def __init__(self, lab: LabUnderTest, folder: Path) -> None:
        names, plan = lab.names, lab.lab.settings.plan
        self.lab = lab
        self.folder = folder
        self.netns = names.pod(NAME, "app")
        self.address = str(plan.pods(NUMBER).v4[2])
        self._machine = names.node(NAME)
        self._processes: list[subprocess.Popen[str]] = []
        self._server: subprocess.Popen[str] | None = None
        network.make_node(names, plan, NAME, NUMBER)
        network.make_pod_netns(self.netns)
        network.wire_pod(names, plan, NAME, NUMBER, self.netns, "outside-app", [plan.pods(NUMBER).v4[2]])
        ip_batch(self._machine, [*network.peer_routes(plan, [1, 2], []), f"route replace {plan.services.v4} dev eth0"])
        for node in ("n1", "n2"):
            ip_batch(names.node(node), network.peer_routes(plan, [NUMBER], []))

    @property
    def entries(self) -> dict[str, WorkloadEntry]:
        return {entry.name: entry for entry in self.lab.lab.records().of(WorkloadEntry)}

    @property
    def entry(self) -> WorkloadEntry:
        return next(iter(self.entries.values()))

    def ticket(self, group: str = "shop/ledger", *options: str) -> Path:
        """A file with a new ticket."""
        argv = [sys.executable, "-m", "ambient", "ticket", "create", "--name", self.lab.name, "--group", group]
        done = subprocess.run([*argv, *options], capture_output=True, text=True, check=True)
        path = self.folder / f"ticket-{len(list(self.folder.iterdir()))}"
        path.write_text(done.stdout)
        return path

    def joining(self, ticket: Path | None, state: str = "state") -> list[str]:
        argv = [sys.executable, "-m", "ambient", "join", "--netns", self.netns, "--state", str(self.folder / state)]
        return [*self._in(self._machine), *argv, *(["--ticket", str(ticket)] if ticket else [])]

    def join(self, ticket: Path | None) -> subprocess.Popen[str]:
        """Join and wait until the workload is in the mesh."""
        with (self.folder / "join.log").open("a") as log:
            process = subprocess.Popen(self.joining(ticket), text=True, stderr=log)
        self._processes.append(process)
        try:
            until("the workload is captured", lambda: process.poll() is not None or self.captured)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        assert process.poll() is None, self.log()
        return process

    def refused(self, ticket: Path | None, state: str = "state") -> Done:
        """A join that is to fail."""
        return subprocess.run(self.joining(ticket, state), capture_output=True, text=True, timeout=_ENDS_S, check=False)

    @property
    def captured(self) -> bool:
        return any(one.annotations.get("ambient.istio.io/redirection") == "enabled" for one in self.entries.values())

    def serve(self, role: str = "payment") -> subprocess.Popen[str]:
        """The sample shop's program as the workload, instead of what served before."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        env = {**os.environ, "SHOP_ROLE": role, "SHOP_POD": "outside-v1", "SHOP_NODE": NAME}
        self._server = subprocess.Popen([*self._in(self.netns), "python3", str(SHOP)], text=True, env=env)
        self._processes.append(self._server)
        return self._server

    def exec(self, *command: str) -> Done:
        """A command in the workload's namespace."""
        argv = [*self._in(self.netns), *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=_ENDS_S, check=False)

    def log(self) -> str:
        return (self.folder / "join.log").read_text()[-6000:] + self.lab.tails()

    @property
    def machine(self) -> Machine:
        return Machine(self.netns, NETNS_DIR / self.netns, Path("/run/ambient/join") / self.netns, self.folder)

    def traces(self) -> list[str]:
        """What a member leaves on its machine."""
        rules = self.exec("ip", "rule").stdout
        group = cgroup.place(self.machine.group("join")).parent
        folders = [path for path in (self.machine.pins, self.machine.folder, group) if path.exists()]
        return [*map(str, folders), *(["rule"] if "32764" in rules else [])]

    def _in(self, netns: str) -> list[str]:
        return ["nsenter", f"--net={NETNS_DIR / netns}", "--"]

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        group = cgroup.place(self.machine.group("join")).parent
        cgroup.remove(group)
        subprocess.run(["rm", "-rf", str(self.machine.folder), str(self.machine.pins)], check=True)


@contextmanager
def outside(lab: LabUnderTest) -> Iterator[Outside]:
    """Beside a lab that is up with nodes n1 and n2."""
    with tempfile.TemporaryDirectory() as folder:
        made = Outside(lab, Path(folder))
        try:
            yield made
        finally:
            made.end()
