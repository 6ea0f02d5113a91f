"""How everything that belongs to a lab is named, so that `down` can find it with nothing but the lab's name.

Pure text. Network namespaces are `amb-<lab>-net`, `-control`, `-node.<node>`, `-pod.<namespace>.<pod>`: a lab's
name holds no dot, so no lab's namespaces can be taken for another's (`a` and `a-node` can both exist).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import InvalidInput

LABS: Final = Path("/run/ambient/labs")
"""One folder per lab. Gone when the last lab is."""
NETNS_DIR: Final = Path("/run/netns")
BPFFS: Final = Path("/sys/fs/bpf/ambient")
"""The agents' pins, one folder per lab below."""
DEFAULT_LAB: Final = "lab"
"""What a lab is called that nobody named; AMBIENT_LAB overrides it."""
SYSTEM_NAMESPACES: Final = ("default", "kube-system", "istio-system", "ambient-system")
COMPONENTS: Final = ("kubelet", "agent", "ztunnel")
"""What runs on each node; `control` runs once."""
MAX_NAME: Final = 255
"""Bytes in a file name, hence in the name of a network namespace."""

_LAB = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def default_lab(environ: Mapping[str, str]) -> str:
    """The lab that is meant where none is named."""
    return environ.get("AMBIENT_LAB") or DEFAULT_LAB


def lab_name(text: str) -> str:
    """A lab's name as given; raises InvalidInput unless it is a DNS label of at most 32 characters."""
    if not _LAB.fullmatch(text):
        raise InvalidInput(
            "not a lab name", repr(text), "expected at most 32 lower case letters, digits and '-', none at the ends"
        )
    return text


@dataclass(frozen=True, slots=True)
class Names:
    """All names of one lab. Build it with `Names(lab_name(text))`."""

    lab: str

    @property
    def prefix(self) -> str:
        return f"amb-{self.lab}"

    @property
    def net(self) -> str:
        """The namespace that holds the bridge between nodes."""
        return f"{self.prefix}-net"

    @property
    def control(self) -> str:
        return f"{self.prefix}-control"

    def node(self, node: str) -> str:
        """Raises InvalidInput when the name would not fit a file name."""
        return self._fitting(f"{self.prefix}-node.{node}", f"node {node}")

    def pod(self, namespace: str, pod: str) -> str:
        """As for nodes."""
        return self._fitting(f"{self.prefix}-pod.{namespace}.{pod}", f"pod {namespace}/{pod}")

    def _fitting(self, name: str, what: str) -> str:
        if len(name) > MAX_NAME:
            raise InvalidInput(what, "metadata.name", "too long for a network namespace's name")
        return name

    def owns(self, netns: str) -> bool:
        """Whether the network namespace of this name is the lab's."""
        return netns in (self.net, self.control) or netns.startswith((f"{self.prefix}-node.", f"{self.prefix}-pod."))

    @property
    def folder(self) -> Path:
        return LABS / self.lab

    @property
    def objects(self) -> Path:
        """The object folder (AMBIENT_OBJECTS)."""
        return self.folder / "state"

    @property
    def settings(self) -> Path:
        return self.folder / "lab.json"

    @property
    def lock(self) -> Path:
        """Held while objects are changed."""
        return self.folder / "lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.folder / "supervisor.lock"

    @property
    def credentials(self) -> Path:
        return self.folder / "ca"

    @property
    def bpffs(self) -> Path:
        return BPFFS / self.lab

    def node_folder(self, number: int) -> Path:
        """By number, not by name: Unix socket paths end at 107 bytes."""
        return self.folder / f"n{number}"

    def pod_folder(self, uid: str) -> Path:
        return self.folder / "pods" / uid

    def log(self, node: str, component: str) -> Path:
        return self.folder / "logs" / "nodes" / node / f"{component}.log"

    @property
    def control_log(self) -> Path:
        return self.folder / "logs" / "control.log"

    @property
    def supervisor_log(self) -> Path:
        return self.folder / "logs" / "supervisor.log"

    def pod_log(self, namespace: str, pod: str, container: str) -> Path:
        return self.folder / "logs" / "pods" / f"{namespace}.{pod}" / f"{container}.log"

    def cgroup(self, *parts: str) -> str:
        """Path below the cgroup v2 mount."""
        return "/".join((self.prefix, *parts))

    def node_cgroup(self, node: str) -> str:
        """Everything of the node."""
        return self.cgroup("nodes", node)

    def component_cgroup(self, node: str, component: str) -> str:
        return self.cgroup("nodes", node, component)

    def pod_cgroup(self, node: str, uid: str) -> str:
        return self.cgroup("nodes", node, "pods", uid)
