"""What runs in a lab beside pods: for each component its command, environment, place and log. Pure but for cgroups."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ambient.kube.objects import Node, Records
from ambient.lab import cgroup, launch
from ambient.lab.names import BPFFS
from ambient.lab.settings import LabSettings
from ambient.model.address import CONTROL_HTTP_PORT, DISCOVERY_PORT

HANDOVER_WAIT: Final = "20s"
"""A ztunnel that is told to end goes on for so long until the next one, which is started at once, has taken over."""


@dataclass(frozen=True, slots=True)
class Component:
    """`node` is "" for the control plane. `group` is its cgroup below the mount; `mark` remembers its process."""

    node: str
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    netns: str
    group: str
    log: Path
    mark: Path
    notices: Path | None = None
    """Where it says that it is about to stop: then the next one starts beside it."""

    @property
    def title(self) -> str:
        return f"{self.node}/{self.name}" if self.node else self.name

    def command(self) -> list[str]:
        """The command line that puts it into its cgroup (made if needed) and network namespace."""
        return launch.in_cgroup(cgroup.path(self.group), launch.in_netns(self.netns, self.argv))


def components(settings: LabSettings, records: Records) -> Iterator[Component]:
    """Everything that is to run for these nodes."""
    if settings.mesh:
        yield control(settings)
    for node in records.of(Node):
        number = settings.plan.node_number(node.pod_cidrs)
        yield kubelet(settings, node.name, number)
        if settings.mesh:
            yield agent(settings, node.name, number)
            yield ztunnel(settings, node.name, number)


def base_environment() -> dict[str, str]:
    """What every process of ours gets, and nothing else of the caller's environment."""
    env = {"PATH": os.environ.get("PATH") or os.defpath, "HOME": "/root", "PYTHONUNBUFFERED": "1"}
    for name in ("LANG", "LD_LIBRARY_PATH", "BCC_KERNEL_SOURCE"):
        if value := os.environ.get(name):
            env[name] = value
    return env


def control(settings: LabSettings) -> Component:
    names, address = settings.names, settings.plan.control
    env = {
        **base_environment(),
        "AMBIENT_OBJECTS": str(names.objects),
        "AMBIENT_CA_DIR": str(names.credentials),
        "AMBIENT_TOKEN_KEY": str(names.credentials / "token-public.pem"),
        "AMBIENT_XDS_LISTEN": f"{address.v4}:{DISCOVERY_PORT}",
        "AMBIENT_HTTP_LISTEN": f"{address.v4}:{CONTROL_HTTP_PORT}",
        "CLUSTER_ID": "Kubernetes",
        "TRUST_DOMAIN": "cluster.local",
        "ROOT_NAMESPACE": "istio-system",
        "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY": "true",
        **settings.environment("control"),
    }
    argv = (sys.executable, "-m", "ambient.control")
    mark = names.folder / "control.pid.json"
    return Component("", "control", argv, env, names.control, names.cgroup("control"), names.control_log, mark)


def kubelet(settings: LabSettings, node: str, number: int) -> Component:
    argv = (
        *(sys.executable, "-m", "ambient.lab.kubelet"),
        *("--name", settings.lab, "--node", node, "--number", str(number)),
    )
    return _on_node(settings, node, number, "kubelet", argv, {})


def agent(settings: LabSettings, node: str, number: int) -> Component:
    names, folder = settings.names, settings.names.node_folder(number)
    mounted = cgroup.mount_point(make=True)
    env = {
        **_mesh_client(settings, node, number, "agent"),
        "AMBIENT_OBJECTS": str(names.objects),
        "AMBIENT_BPFFS": str(BPFFS / settings.lab / node),
        "AMBIENT_POD_NETNS": f"/run/netns/{names.prefix}-pod.{{namespace}}.{{name}}",
        "AMBIENT_POD_VETH": "auto",
        "AMBIENT_KUBELET_CGROUP": str((mounted or Path()) / names.component_cgroup(node, "kubelet")),
        "AMBIENT_NODE_CGROUP": str((mounted or Path()) / names.node_cgroup(node)),
        "AMBIENT_STATE_DIR": str(folder / "agent"),
    }
    return _on_node(settings, node, number, "agent", (sys.executable, "-m", "ambient.agent"), env)


def ztunnel(settings: LabSettings, node: str, number: int) -> Component:
    folder = settings.names.node_folder(number)
    notices = folder / "ztunnel.notify"
    env = {
        **_mesh_client(settings, node, number, "ztunnel"),
        "NOTIFY_SOCKET": str(notices),
        "AMBIENT_HANDOVER_WAIT": HANDOVER_WAIT,
        "INPOD_UDS": str(folder / "zds.sock"),
        "AMBIENT_RUN_DIR": str(folder / "run"),
        "AMBIENT_STATE_DIR": str(folder / "ztunnel"),
        "IPV6_ENABLED": "true",
        "AMBIENT_RESOLVERS": str(settings.plan.dns.v4),
        "DNS_CAPTURE": "true",
    }
    made = _on_node(settings, node, number, "ztunnel", (sys.executable, "-m", "ztunnel"), env)
    return replace(made, notices=notices)


def token_file(settings: LabSettings, number: int, account: str) -> Path:
    """Where the node's token for its agent or ztunnel lies."""
    return settings.names.node_folder(number) / f"{account}.token"


def _mesh_client(settings: LabSettings, node: str, number: int, account: str) -> dict[str, str]:
    """What the two clients of the control plane have in common."""
    address, folder = settings.plan.control, settings.names.node_folder(number)
    root, url = str(settings.names.credentials / "root-cert.pem"), f"https://{address.v4}:{DISCOVERY_PORT}"
    return {
        "XDS_ADDRESS": url,
        "CA_ADDRESS": url,
        "XDS_ROOT_CA": root,
        "CA_ROOT_CA": root,
        "ALT_XDS_HOSTNAME": "istiod.istio-system.svc",
        "AUTH_TOKEN": str(token_file(settings, number, account)),
        "CLUSTER_ID": "Kubernetes",
        "TRUST_DOMAIN": "cluster.local",
        "CLUSTER_DOMAIN": "cluster.local",
        "ZTUNNEL_UDS_ADDRESS": str(folder / "zds.sock"),
        "AMBIENT_CUSTODY_UDS": str(folder / "custody.sock"),
    }


def _on_node(
    settings: LabSettings, node: str, number: int, name: str, argv: tuple[str, ...], env: Mapping[str, str]
) -> Component:
    names = settings.names
    return Component(
        node,
        name,
        argv,
        {**base_environment(), "NODE_NAME": node, **env, **settings.environment(name)},
        names.node(node),
        names.component_cgroup(node, name),
        names.log(node, name),
        names.node_folder(number) / f"{name}.pid.json",
    )
