"""Where a pod's network namespace is: by the name that the lab gives it, or on a Kubernetes node by what the container
runtime said at the pod's start, and else by the pod's processes.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from ambient.agent import podns
from ambient.agent.podns import PodNetns
from ambient.agent.processes import PodProcesses
from ambient.agent.sandboxes import Sandboxes
from ambient.errors import MeshError

KUBERNETES: Final = "kubernetes"
"""The value of AMBIENT_POD_NETNS for a node with a kubelet."""
NODE_ROOT: Final = Path("/proc/1/root")
"""The node's own files, seen by an agent that shares its process namespace."""


class Locator(Protocol):
    def open(self, uid: str, namespace: str, name: str) -> PodNetns:
        """Raises Unavailable when it is not there (yet, or any more). The caller closes it."""


class ByName:
    """`template` is a path with {namespace}, {name} and {uid}."""

    def __init__(self, template: str) -> None:
        self._template = template

    def open(self, uid: str, namespace: str, name: str) -> PodNetns:
        return podns.open_netns(self._template.format(namespace=namespace, name=name, uid=uid))


class ByKubelet:
    """The path of the CNI call that started the pod, below the node's root; else its oldest process.

    A path of a process (/proc/<pid>/ns/net, as some runtimes tell it) is not kept to: the number is used again.
    """

    def __init__(self, sandboxes: Sandboxes, processes: PodProcesses, root: Path = NODE_ROOT) -> None:
        self._sandboxes = sandboxes
        self._processes = processes
        self._root = root

    def open(self, uid: str, namespace: str, name: str) -> PodNetns:
        sandbox = self._sandboxes.get(uid)
        if sandbox is not None and not sandbox.netns.startswith("/proc/"):
            with suppress(MeshError):
                return podns.open_netns(str(self._root) + sandbox.netns)
        return podns.adopt_netns(self._processes.open_netns(uid), f"{namespace}/{name}")
