"""Where a pod's network namespace is: by the name that the lab gives it, or on a Kubernetes node by what the container
runtime said at the pod's start, and else by the pod's processes.
"""

from __future__ import annotations

import os
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


_MOST_LINKS: Final = 40


def below(root: Path, path: str) -> str:
    """`path` as a process means it whose root directory is `root`: symbolic links of it lead nowhere else.

    Without this `/proc/1/root/var/run/...` of a node whose /var/run is a link to /run is our own /run. What does not
    exist is kept as it is, and so are the links of /proc, which are none.
    """
    if path.startswith("/proc/"):
        return f"{root}{path}"
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
        if part in ("", ".", ".."):
            continue
        try:
            target = os.readlink(root.joinpath(*done, part))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            break
        if target.startswith("/"):
            done = []
        todo.extend(target.split("/")[::-1])
    return str(root.joinpath(*done))


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
                return podns.open_netns(below(self._root, sandbox.netns))
        return podns.adopt_netns(self._processes.open_netns(uid), f"{namespace}/{name}")
