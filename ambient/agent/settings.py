"""The agent's settings, read once from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ambient.agent.locate import KUBERNETES
from ambient.datapath.layout import Option
from ambient.errors import Unavailable
from ambient.model.address import Endpoint
from ambient.settings import boolean, choice, duration, endpoint, integer, optional_path, path, setting, target, text
from ambient.xds.channel import ServerSettings


def _names(given: str) -> frozenset[str]:
    return frozenset(name for name in text(given).split(",") if name)


def _template(given: str) -> str:
    """A path with {namespace}, {name} or {uid} of the pod, or a word that means something else."""
    try:
        given.format(namespace="", name="", uid="")
    except (KeyError, IndexError, ValueError):
        raise ValueError(f"{given!r} has other fields than {{namespace}}, {{name}} and {{uid}}") from None
    return text(given)


def _taint(given: str) -> str:
    """The key of a taint; "" for `none`."""
    if given == "none":
        return ""
    if not re.fullmatch(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", given):
        raise ValueError(f"{given!r} is not the key of a taint")
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Times in seconds. `pod_netns` is "kubernetes" (by CNI and processes) or a template, `pod_veth` "auto" or a
    template; `xds` "": run without policies (every pod fails closed and no older connection is judged);
    `kubelet_cgroup` None: nobody's probes are told apart, "auto": found by the kubelet's process. `node_cgroup`: of
    whatever runs on the node; None: the whole machine. `cni_socket` None: no CNI plugin asks; `cni_configuration` None:
    the plugin is not installed by the agent. `taint` "": none is removed. `daemonset`: an agent that is stopped after
    this one of its namespace was deleted takes everything off; "": never. `kernel_policy` False: ztunnel judges
    everything; `refuse_inbound`: what plain text that policy refuses hears; `clear_text`: what becomes of data that
    passes a captured pod in the clear without leave. `flows` False: the kernel neither counts nor tells of flows.
    `same_node`: how pods of this node reach each other where neither they nor their namespaces say.
    `capture`: how programs come onto interfaces, or that rules capture instead; "auto": as this kernel can.
    `waypoints`: as the node's ztunnel has it.
    """

    node: str = setting("NODE_NAME", text)
    zds_socket: Path = setting("ZTUNNEL_UDS_ADDRESS", path, "/var/run/ztunnel/ztunnel.sock")
    custody_socket: Path | None = setting("AMBIENT_CUSTODY_UDS", optional_path, "none")
    objects: Path = setting("AMBIENT_OBJECTS", path)
    bpffs: Path = setting("AMBIENT_BPFFS", path, "/sys/fs/bpf/ambient/node")
    loader: str = setting("AMBIENT_LOADER", choice("auto", "bcc", "object"), "auto")
    capture: str = setting("AMBIENT_CAPTURE", choice("auto", "tcx", "clsact", "nftables"), "auto")
    state: Path = setting("AMBIENT_STATE_DIR", path, "/run/ambient-agent")
    pod_netns: str = setting("AMBIENT_POD_NETNS", _template)
    pod_veth: str = setting("AMBIENT_POD_VETH", _template, "auto")
    kubelet_cgroup: Path | None = setting("AMBIENT_KUBELET_CGROUP", optional_path, "none")
    node_cgroup: Path | None = setting("AMBIENT_NODE_CGROUP", optional_path, "none")
    cni_socket: Path | None = setting("AMBIENT_CNI_UDS", optional_path, "none")
    cni_configuration: Path | None = setting("AMBIENT_CNI_CONF_DIR", optional_path, "none")
    cni_programs: Path = setting("AMBIENT_CNI_BIN_DIR", path, "/opt/cni/bin")
    cni_plugin: Path = setting("AMBIENT_CNI_PLUGIN", path, "/usr/local/lib/ambient/ambient-cni")
    cni_timeout_s: int = setting("AMBIENT_CNI_TIMEOUT", integer(2, 600), "30")
    taint: str = setting("AMBIENT_TAINT", _taint, "none")
    daemonset: str = setting("AMBIENT_DAEMONSET", text, "")
    listen: Endpoint = setting("AMBIENT_AGENT_LISTEN", endpoint, "127.0.0.1:15099")
    xds: str = setting("XDS_ADDRESS", lambda given: "" if given == "none" else target(given), "none")
    xds_root: Path | None = setting("XDS_ROOT_CA", optional_path, "none")
    xds_hostname: str = setting("ALT_XDS_HOSTNAME", text, "")
    token: Path | None = setting("AUTH_TOKEN", optional_path, "none")
    cluster: str = setting("CLUSTER_ID", text, "Kubernetes")
    network: str = setting("NETWORK", text, "")
    mesh_namespace: str = setting("AMBIENT_NAMESPACE", text, "ambient-system")
    excluded_namespaces: frozenset[str] = setting("EXCLUDE_NAMESPACES", _names, "kube-system")
    dns_capture: bool = setting("DNS_CAPTURE", boolean, "true")
    kernel_policy: bool = setting("AMBIENT_KERNEL_POLICY", boolean, "true")
    refuse_inbound: str = setting("AMBIENT_REFUSE_INBOUND", choice("reset", "silence"), "reset")
    flows: bool = setting("AMBIENT_FLOWS", boolean, "true")
    waypoints: str = setting("AMBIENT_WAYPOINTS", choice("enforced", "istio"), "enforced")
    clear_text: str = setting("AMBIENT_CLEAR_TEXT", choice("count", "drop"), "count")
    same_node: str = setting("AMBIENT_SAME_NODE", choice("tunnel", "kernel"), "tunnel")
    drain_s: float = setting("AMBIENT_RELEASE_DRAIN", duration, "300s")
    linger_s: float = setting("AMBIENT_RELEASE_LINGER", duration, "1s")
    sweep_s: float = setting("AMBIENT_SWEEP", duration, "4s")
    log_level: str = setting("LOG_LEVEL", choice("debug", "info", "warn", "error"), "info")

    @property
    def passing_namespaces(self) -> frozenset[str]:
        """Those whose pods start whatever state the mesh is in: what it needs itself to come up."""
        return self.excluded_namespaces | {self.mesh_namespace}

    @property
    def on_kubernetes(self) -> bool:
        """The node has a kubelet and a container runtime."""
        return self.pod_netns == KUBERNETES

    def options(self, found: Option) -> Option:
        """The node's options as they are to be, from those that were found."""
        silent = Option.SILENT_IN if self.refuse_inbound == "silence" else Option(0)
        drop = Option.DROP_CLEAR if self.clear_text == "drop" else Option(0)
        flows = Option(0) if self.flows else Option.NO_FLOWS
        return found & ~(Option.SILENT_IN | Option.DROP_CLEAR | Option.NO_FLOWS) | silent | drop | flows

    def discovery(self) -> ServerSettings:
        """Where policies come from. Raises Unavailable."""
        if self.xds_root is None:
            raise Unavailable("discovery", self.xds, "XDS_ROOT_CA names no root certificate")
        return ServerSettings(
            target=self.xds,
            root=self.xds_root,
            token=self.token,
            hostname=self.xds_hostname,
            cluster=self.cluster,
        )
