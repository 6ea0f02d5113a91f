"""Objects for the agent's lab: a namespace, two pods in it, and the policies that tests put beside them."""

from __future__ import annotations

from typing import Any

from tests.support.agent_lab import namespace, pod

AMBIENT = namespace("shop", "ambient")
PLAIN = namespace("shop")
WILLING = namespace("shop", "ambient", {"ambient.mesh/same-node": "kernel"})
"""Its pods ask for the same-node kernel path."""
POD = pod("pod", ["10.213.1.2", "fd00:213:1::2"])
OTHER = pod("other", ["10.213.2.2", "fd00:213:2::2"])


def strict(mode: str = "STRICT") -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "mode", "namespace": "shop"},
        "spec": {"mtls": {"mode": mode}},
    }


def deny_port(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "no", "namespace": "shop"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"ports": [str(port)]}}]}]},
    }
