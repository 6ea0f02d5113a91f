"""The Deployment of a waypoint or gateway on a cluster: the template of its pods, shut in as far as Envoy allows. Pure.

How many replicas there are is for the owner, or an autoscaler, to say: that field is never set here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ambient.kube.networking import Gateway
from ambient.settings import size
from ambient.waypoint.bootstrap import READY_PORT
from ambient.waypoint.deploy import GATEWAY_NAME, Placement, is_ingress, metadata, name_of, pod_template

USER: Final = 1337
LINGER_S: Final = 5
"""How long a pod that is to end goes on as before: until every ztunnel has heard that others are to be asked."""
DRAIN_S: Final = 10
"""For so long afterwards what is under way may end."""
_SPARE_S: Final = 10
_ANY_PORT: Final = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
_ENVOYS_SHARE: Final = 0.75
"""Of the memory of its pod: the agent has the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dressing:
    """What an installation says of the pods beside their place. `resources` as in a container's."""

    pull_policy: str = "IfNotPresent"
    pull_secrets: Sequence[str] = ()
    resources: Mapping[str, Any]


def deployment(gateway: Gateway, placement: Placement, dressing: Dressing) -> dict[str, Any]:
    """A rollout has the next pod ready before one of the last goes."""
    selector = {GATEWAY_NAME: gateway.name}
    template = _dressed(pod_template(gateway, placement), selector, dressing)
    if is_ingress(gateway):
        # Its listeners are on ports that only root has otherwise.
        template["spec"]["securityContext"]["sysctls"] = [dict(_ANY_PORT)]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(gateway, name_of(gateway)),
        "spec": {
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def _limits(dressing: Dressing) -> dict[str, str]:
    """What the agent is told of its pod: when it is ended, and how much of its memory Envoy may use."""
    told = {"TERMINATION_DRAIN": f"{DRAIN_S}s"}
    with suppress(ValueError):
        memory = size(str((dressing.resources.get("limits") or {}).get("memory", "")))
        told["AMBIENT_ENVOY_HEAP_MIB"] = str(int(memory * _ENVOYS_SHARE) >> 20)
    return told


def _dressed(template: dict[str, Any], selector: Mapping[str, str], dressing: Dressing) -> dict[str, Any]:
    (container,) = template["spec"]["containers"]
    container |= {
        "imagePullPolicy": dressing.pull_policy,
        "env": [*container["env"], *({"name": name, "value": value} for name, value in _limits(dressing).items())],
        "resources": dict(dressing.resources),
        # Envoy tells both, so it has to run; whether it is ready depends on its configuration as well.
        "livenessProbe": {
            "tcpSocket": {"port": READY_PORT},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": LINGER_S}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *({**mount, "readOnly": True} for mount in container["volumeMounts"]),
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(selector)},
        "matchLabelKeys": ["pod-template-hash"],
    }
    spec = {
        **template["spec"],
        "terminationGracePeriodSeconds": LINGER_S + DRAIN_S + _SPARE_S,
        "enableServiceLinks": False,
        # Its one token is the one that is mounted; it never asks the API server.
        "automountServiceAccountToken": False,
        "topologySpreadConstraints": [spread],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            *template["spec"]["volumes"],
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }
    if dressing.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in dressing.pull_secrets]
    return {**template, "spec": spec}
