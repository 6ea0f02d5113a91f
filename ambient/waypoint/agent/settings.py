"""The settings of a waypoint's agent, read once from the environment."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ambient.model.forbidden import Reach, read_reach
from ambient.model.identity import Identity
from ambient.settings import address, choice, duration, integer, path, setting, target, text
from ambient.waypoint.agent.names import DNS_PORT, Address
from ambient.waypoint.bootstrap import GATEWAY_HEADER, Identification
from ambient.waypoint.overload import Bearable
from ambient.xds.channel import ServerSettings


def _envoy(given: str) -> Path:
    """A path, or `auto`: beside this Python, else on the PATH."""
    if given != "auto":
        return path(given)
    beside = Path(sys.executable).with_name("envoy")
    return beside if beside.exists() else Path(shutil.which("envoy") or "envoy")


def _nameservers(given: str) -> tuple[Address, ...]:
    """Addresses with commas between them; without any the pod's own are asked."""
    return tuple((str(address(one.strip())), DNS_PORT) for one in given.split(",") if one.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class WaypointSettings:
    """Times in seconds. `token` and `root` are files that are replaced while we run."""

    gateway: str = setting("GATEWAY_NAME", text)
    pod: str = setting("POD_NAME", text)
    namespace: str = setting("POD_NAMESPACE", text)
    account: str = setting("SERVICE_ACCOUNT", text)
    ip: str = setting("INSTANCE_IP", lambda given: str(address(given)))
    server: str = setting("XDS_ADDRESS", target)
    hostname: str = setting("ALT_XDS_HOSTNAME", text, "")
    root: Path = setting("XDS_ROOT_CA", path)
    token: Path = setting("AUTH_TOKEN", path)
    cluster: str = setting("CLUSTER_ID", text, "Kubernetes")
    trust_domain: str = setting("TRUST_DOMAIN", text, "cluster.local")
    certificate_s: float = setting("SECRET_TTL", duration, "24h")
    drain_s: float = setting("TERMINATION_DRAIN", duration, "5s")
    envoy: Path = setting("AMBIENT_ENVOY", _envoy, "auto")
    threads: int = setting("AMBIENT_ENVOY_CONCURRENCY", integer(1, 256), "2")
    connections: int = setting("AMBIENT_ENVOY_CONNECTIONS", integer(1, 10_000_000), "200000")
    heap_mib: int = setting("AMBIENT_ENVOY_HEAP_MIB", integer(0, 1 << 20), "0")
    nameservers: tuple[Address, ...] = setting("AMBIENT_NAMESERVERS", _nameservers, "")
    reach: Reach = setting("AMBIENT_WILDCARD_NETWORKS", read_reach, "")
    log_level: str = setting("LOG_LEVEL", choice("debug", "info", "warn", "error"), "info")

    @property
    def identity(self) -> str:
        return str(Identity(self.trust_domain, self.namespace, self.account))

    @property
    def identification(self) -> Identification:
        return Identification(self.namespace, self.gateway, self.pod, self.ip, self.cluster)

    @property
    def bearable(self) -> Bearable:
        return Bearable(self.connections, self.heap_mib)

    @property
    def control(self) -> ServerSettings:
        """The control plane, as the Gateway's waypoint."""
        return ServerSettings(
            target=self.server,
            root=self.root,
            token=self.token,
            hostname=self.hostname,
            cluster=self.cluster,
            headers=((GATEWAY_HEADER, self.gateway),),
        )
