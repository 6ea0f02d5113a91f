"""How an agent sees the node it is on: from the node itself (lab) or out of a container that shares its processes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from ambient.agent.cni_conf import Entry
from ambient.agent.cni_install import Installation, Places
from ambient.agent.locate import NODE_ROOT, ByKubelet, ByName, Locator
from ambient.agent.owners import Owners, cgroup_of
from ambient.agent.processes import PodProcesses, find_kubelet
from ambient.agent.sandboxes import Sandboxes
from ambient.agent.settings import AgentSettings
from ambient.datapath import cgroups
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


def admit_kubelet(settings: AgentSettings, owners: Owners) -> None:
    """Let the kubelet's probes reach pods; where it cannot be found they are taken like any other traffic."""
    directory = settings.kubelet_cgroup
    if directory == FIND:
        directory = _kubelet_cgroup()
    if directory is not None:
        owners.admit_kubelet(directory)


def _kubelet_cgroup() -> Path | None:
    mount = cgroups.mount_point()
    try:
        pid = find_kubelet()
    except MeshError as error:
        log.error("%s: its probes are not told from other traffic", error)
        return None
    directory = None if mount is None else cgroup_of(pid, mount)
    if directory is None:
        log.warning("kubelet pid %d has no cgroup v2 that we can see: any socket of the node itself may probe", pid)
    else:
        log.info("kubelet is pid %d, its probes are known by %s", pid, directory)
    return directory
