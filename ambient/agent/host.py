"""How an agent sees the node it is on: from the node itself (lab) or out of a container that shares its processes."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from ambient.agent.cni_conf import Entry
from ambient.agent.cni_install import Installation, Places
from ambient.agent.locate import NODE_ROOT, ByKubelet, ByName, Locator
from ambient.agent.owners import Owners, cgroup_of
from ambient.agent.processes import PodProcesses, find_kubelet, held, pids
from ambient.agent.sandboxes import Sandboxes
from ambient.agent.settings import AgentSettings
from ambient.errors import MeshError, Unavailable

FIND: Final = Path("auto")
"""The value of AMBIENT_KUBELET_CGROUP that means: look for the kubelet's process."""

log = logging.getLogger("ambient.agent.host")


def node_root(settings: AgentSettings) -> Path:
    """What paths that the container runtime tells are below."""
    return NODE_ROOT if settings.on_kubernetes else Path("/")


def locator(settings: AgentSettings, sandboxes: Sandboxes) -> Locator:
    if settings.on_kubernetes:
        return ByKubelet(sandboxes, PodProcesses())
    return ByName(settings.pod_netns)


def installation(settings: AgentSettings) -> Installation | None:
    """What keeps the CNI plugin on the node; None where the agent has not to."""
    if settings.cni_configuration is None:
        return None
    if settings.cni_socket is None:
        raise Unavailable("CNI plugin", "AMBIENT_CNI_UDS", "is needed where AMBIENT_CNI_CONF_DIR is set")
    return Installation(
        Places(
            configuration=settings.cni_configuration,
            programs=settings.cni_programs,
            plugin=settings.cni_plugin,
        ),
        Entry(
            socket=str(settings.cni_socket),
            pass_namespaces=tuple(sorted(settings.passing_namespaces)),
            timeout_s=settings.cni_timeout_s,
        ),
    )


class Kubelet:
    """Lets the kubelet's probes reach pods; where it cannot be found they are taken like any other traffic.

    A kubelet that restarts may come back in another control group, so `look` is called often.
    """

    def __init__(self, wanted: Path | None, owners: Owners, mount: Path | None, proc: Path = Path("/proc")) -> None:
        self._wanted = wanted
        self._owners = owners
        self._mount = mount
        self._proc = proc
        self._found: tuple[int, Path, int] | None = None
        self._said = ""

    def look(self) -> None:
        """Cheap while the process and its control group are those of the last time."""
        if self._wanted is None:
            return
        if self._wanted != FIND:
            if self._found is None:
                self._owners.admit_kubelet(self._wanted)
                self._found = (0, self._wanted, 0)
            return
        if self._mount is None:
            self._say("is not looked for: without cgroup v2 any socket of the node itself may probe")
            return
        if self._found is not None and self._still(*self._found):
            return
        try:
            self._found = self._find()
            self._owners.admit_kubelet(self._found[1])
            self._say(f"is pid {self._found[0]}, its probes are known by {self._found[1]}")
        except (MeshError, OSError) as error:
            self._found = None
            self._owners.dismiss_kubelet()
            self._say(f"{error}: probes of pods in STRICT mode fail")

    def _still(self, pid: int, directory: Path, number: int) -> bool:
        try:
            return self._mount is not None and (
                cgroup_of(pid, self._mount, self._proc) == directory and directory.stat().st_ino == number
            )
        except OSError:
            return False

    def _find(self) -> tuple[int, Path, int]:
        if self._mount is None:
            raise Unavailable(
                "kubelet", "", "there is no cgroup v2 on this node, any socket of the node itself may probe"
            )
        pid = find_kubelet(self._proc)
        directory = cgroup_of(pid, self._mount, self._proc)
        if directory is None:
            raise Unavailable("kubelet", f"pid {pid}", "its cgroup v2 cannot be seen from here")
        shared = pods_in(directory, self._mount, self._proc)
        if shared is not None:
            raise Unavailable(
                "kubelet",
                f"pid {pid}",
                f"it shares cgroup {directory} with pid {shared} of a pod, so that they cannot be told apart; "
                "give the kubelet a cgroup v2 of its own",
            )
        return pid, directory, directory.stat().st_ino

    def _say(self, words: str) -> None:
        if words != self._said:
            log.log(logging.INFO if self._found else logging.ERROR, "kubelet %s", words)
            self._said = words


def pods_in(directory: Path, mount: Path, proc: Path = Path("/proc")) -> int | None:
    """A process of a pod that is in this very cgroup v2 (pods may be told by cgroup v1 only); None when there is
    none."""
    for pid in pids(proc):
        with suppress(OSError), held(pid, proc) as process:
            if process.pod_uid() is not None and cgroup_of(pid, mount, proc) == directory:
                return pid
    return None
