"""The two parts that a machine runs, an agent and a ztunnel, and what they are told: the workload is their one pod.

They work as on a node, with a folder of two objects instead of a control plane's many: the namespace and a pod that
stands for the workload's network namespace. Pure but for writing those.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.join.client import SERVER_NAME
from ambient.join.member import Member
from ambient.kube.folder import ObjectFolder
from ambient.kube.joined import REDIRECTION
from ambient.kube.objects import Pod, parse_object
from ambient.lab import cgroup
from ambient.lab.components import base_environment
from ambient.lab.settings import write_atomically

BPFFS: Final = Path("/sys/fs/bpf/ambient")
_UID: Final = "joined-workload"


@dataclass(frozen=True, slots=True)
class Machine:
    """`name` tells it from others on this machine; `netns` is the path of the workload's network namespace; `folder`
    holds what lasts from start to end, `state` what lasts longer."""

    name: str
    netns: Path
    folder: Path
    state: Path

    @property
    def pins(self) -> Path:
        """The agent's folder on bpffs, where names have no dots."""
        return BPFFS / f"join-{self.name.replace('.', '_')}"

    def group(self, part: str) -> str:
        """The control group of a part, below the cgroup v2 mount."""
        return f"ambient-join-{self.name}/{part}"

    def prepare(self, member: Member) -> None:
        """The files both parts read."""
        for folder in (self.folder, self.state):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.folder / "root-cert.pem", member.root)
        for part in ("agent", "ztunnel"):
            write_atomically(self.folder / f"{part}.token", member.token(part), 0o600)
        labels = {"istio.io/dataplane-mode": "ambient"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": member.namespace, "labels": labels}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": member.entry, "namespace": member.namespace, "uid": _UID},
            "spec": {
                "containers": [{"name": "workload"}],
                "nodeName": member.node,
                "serviceAccountName": member.service_account,
            },
            "status": {"phase": "Running", "podIPs": [{"ip": member.address}]},
        }
        record = parse_object(pod, "join", observed=True)
        self._objects.put([parse_object(namespace, "join"), record])

    def release(self, member: Member) -> None:
        """Take the workload out of the mesh: the agent lets it go."""
        self._objects.delete([f"Pod/{member.namespace}/{member.entry}"])

    def captured(self, member: Member) -> bool:
        """The agent has said that the workload's traffic goes through the ztunnel."""
        pod = self._objects.records().find(Pod, member.namespace, member.entry)
        return pod is not None and pod.annotations.get(REDIRECTION) == "enabled"

    def released(self) -> bool:
        """Nothing of the agent is left on the workload."""
        pins = self.pins / "pods"
        return not pins.is_dir() or not any(pins.iterdir())

    @property
    def _objects(self) -> ObjectFolder:
        return ObjectFolder(self.folder / "objects")

    def commands(self) -> Mapping[str, tuple[str, ...]]:
        return {part: (sys.executable, "-m", module) for part, module in _MODULES.items()}

    def environment(self, part: str, member: Member) -> dict[str, str]:
        """Of "agent" or "ztunnel". Raises KernelError without cgroup v2."""
        folder = self.folder
        env = {
            **base_environment(),
            "NODE_NAME": member.node,
            "XDS_ADDRESS": f"https://{member.control}",
            "XDS_ROOT_CA": str(folder / "root-cert.pem"),
            "ALT_XDS_HOSTNAME": SERVER_NAME,
            "AUTH_TOKEN": str(folder / f"{part}.token"),
            "CLUSTER_ID": member.cluster,
            "NETWORK": member.network,
            "AMBIENT_CUSTODY_UDS": str(folder / "custody.sock"),
        }
        if part == "agent":
            return env | {
                "ZTUNNEL_UDS_ADDRESS": str(folder / "zds.sock"),
                "AMBIENT_OBJECTS": str(folder / "objects"),
                "AMBIENT_BPFFS": str(self.pins),
                "AMBIENT_POD_NETNS": str(self.netns).replace("{", "{{").replace("}", "}}"),
                "AMBIENT_KUBELET_CGROUP": str(cgroup.place(self.group("join"))),
                "AMBIENT_STATE_DIR": str(self.state / "agent"),
                "AMBIENT_RELEASE_DRAIN": "10s",
            }
        return env | {
            "CA_ADDRESS": f"https://{member.control}",
            "CA_ROOT_CA": str(folder / "root-cert.pem"),
            "ALT_CA_HOSTNAME": SERVER_NAME,
            "TRUST_DOMAIN": member.trust_domain,
            "CLUSTER_DOMAIN": member.cluster_domain,
            "INPOD_UDS": str(folder / "zds.sock"),
            "AMBIENT_RUN_DIR": str(folder / "run"),
            "AMBIENT_STATE_DIR": str(self.state / "ztunnel"),
            "DNS_CAPTURE": "true",
        }


_MODULES: Final = {"agent": "ambient.agent", "ztunnel": "ztunnel"}


def place(netns: str) -> Path:
    """The path of a network namespace given by name, as `ip netns` knows it, or by path."""
    return Path(netns) if os.sep in netns else Path("/run/netns") / netns
