"""ztunnel's own pod, served as any other but for what is captured: its ports can be reached through a tunnel, too.

Istio's ztunnel does so when it knows its own name (interop 1.1); that way even its metrics can be had over mTLS.
"""

from __future__ import annotations

from typing import Final

from ztunnel.config import Config
from ztunnel.director.policies import PodInfo

UID: Final = "ztunnel-itself"
OWN_NETNS: Final = "/proc/self/ns/net"


def own_pod(config: Config) -> PodInfo | None:
    """Our own pod as the environment names it; None when it does not name it whole."""
    if not (config.pod_name and config.pod_namespace_given and config.service_account):
        return None
    return PodInfo(UID, config.pod_name, config.pod_namespace, config.service_account)
