"""What one cluster is called and where it lives: addresses, bridge, namespaces and folders, all from its name."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE: Final = Path(os.environ.get("AMBIENT_CLUSTER_STATE", "/var/tmp/mesh-cluster"))
"""Everything that is built or run. Not below /run or /var/log, which nodes replace by their own."""
LABS: Final = STATE / "labs"
MOST_LABS: Final = 40
API_PORT: Final = 6443


@dataclass(frozen=True, slots=True)
class Plan:
    """Node n (from 1) is `n<n>`. `number` (0..39) tells the address ranges of the clusters on one machine apart."""

    name: str
    number: int

    @property
    def folder(self) -> Path:
        return LABS / self.name

    @property
    def bridge(self) -> str:
        return f"ac{self.number}"

    @property
    def prefix(self) -> str:
        """Of network namespaces, links and control groups."""
        return f"ac{self.number}"

    @property
    def machine_address(self) -> str:
        """The machine's own on the bridge."""
        return f"172.31.{self.number}.254"

    @property
    def api_address(self) -> str:
        return f"172.31.{self.number}.1"

    @property
    def server(self) -> str:
        return f"https://{self.api_address}:{API_PORT}"

    def node_address(self, node: int) -> str:
        return f"172.31.{self.number}.{10 + node}"

    @property
    def pods(self) -> str:
        return f"10.{180 + self.number}.0.0/16"

    def node_pods(self, node: int) -> str:
        return f"10.{180 + self.number}.{node}.0/24"

    @property
    def services(self) -> str:
        return f"10.{140 + self.number}.0.0/16"

    @property
    def first_service(self) -> str:
        return f"10.{140 + self.number}.0.1"

    @property
    def dns(self) -> str:
        return f"10.{140 + self.number}.0.10"

    def netns(self, part: str) -> str:
        return f"{self.prefix}-{part}"

    def node_folder(self, node: int) -> Path:
        return self.folder / f"n{node}"

    @property
    def credentials(self) -> Path:
        return self.folder / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    def nodes(self) -> list[int]:
        """The nodes that were made, running or not."""
        return sorted(int(path.name[1:]) for path in self.folder.glob("n[0-9]*") if path.is_dir())


def find(name: str) -> Plan | None:
    """The cluster of this name, if there is one."""
    try:
        return Plan(name, json.loads((LABS / name / "plan.json").read_text())["number"])
    except FileNotFoundError:
        return None


def claim(name: str) -> Plan:
    """The cluster of this name; a new one gets the first address range that nobody uses."""
    if not name.isalnum() or not name.islower():
        raise SystemExit(f"cluster: {name!r} is no name: small letters and digits")
    LABS.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := find(name):
            return found
        taken = {json.loads(path.read_text())["number"] for path in LABS.glob("*/plan.json")}
        routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
        for number in range(MOST_LABS):
            plan = Plan(name, number)
            if number not in taken and f"172.31.{number}." not in routes:
                plan.folder.mkdir(parents=True, exist_ok=True)
                (plan.folder / "plan.json").write_text(json.dumps({"number": number}))
                return plan
    raise SystemExit("cluster: no address range is free")
