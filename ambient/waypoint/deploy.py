"""The objects that a Gateway of ours stands for: service account, Service, and the template of its pods. Pure.

Names and labels are Istio's, so that its tools find them. A cluster makes a Deployment of the template, the lab a pod.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube.networking import Gateway
from ambient.kube.records import Condition
from ambient.kube.routing import GATEWAY_CONTROLLER
from ambient.model.address import HBONE_PORT
from ambient.model.forbidden import read_reach
from ambient.waypoint.bootstrap import METRICS_PATH, METRICS_PORT, OWN_PORTS, READY_PORT, STATS_PORT

CLASS: Final = "istio-waypoint"
INGRESS_CLASS: Final = "ambient"
INGRESS_CLASSES: Final = frozenset({INGRESS_CLASS, "istio"})
CLASSES: Final = frozenset({CLASS, *INGRESS_CLASSES})
"""GatewayClasses whose Gateways the lab makes proxies of: waypoints, and gateways for clients outside of the mesh. A
cluster knows the latter by the controller that their class names."""
GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"
MANAGED: Final = "gateway.istio.io/managed"
MANAGED_BY: Final = "istio.io-mesh-controller"
INGRESS_MANAGED_BY: Final = GATEWAY_CONTROLLER.replace("/", "-")
NAME: Final = "gateway.istio.io/name-override"
SERVICE_TYPE: Final = "networking.istio.io/service-type"
BALANCED: Final = "LoadBalancer"
ACCOUNT: Final = "gateway.istio.io/service-account"
XFCC: Final = "ambient.istio.io/xfcc-include-client-identity"
WILDCARD_NETWORKS: Final = "ambient.mesh/wildcard-networks"
"""Where names may lead that clients of a waypoint choose, beside the Internet (see `ambient.model.forbidden`)."""
HBONE_PROTOCOL: Final = "HBONE"


@dataclass(frozen=True, slots=True)
class Placement:
    """What differs between places. `environment` is what the agent needs beside what its pod tells it; `token` and
    `root` are the folders that token and root certificate are mounted at."""

    command: Sequence[str]
    environment: Mapping[str, str]
    token: str
    root: str
    image: str = ""


def is_ingress(gateway: Gateway) -> bool:
    """Of a Gateway of ours: it is for clients outside of the mesh, and no waypoint."""
    return gateway.class_name != CLASS


def name_of(gateway: Gateway) -> str:
    """Of everything that is made of the Gateway."""
    usual = f"{gateway.name}-{gateway.class_name}" if is_ingress(gateway) else gateway.name
    return gateway.annotations.get(NAME) or usual


def account_of(gateway: Gateway) -> str:
    """The service account of its pods."""
    return gateway.annotations.get(ACCOUNT) or name_of(gateway)


def service_type(gateway: Gateway) -> str:
    """Of the Service of an ingress."""
    marks = {**gateway.infrastructure.annotations, **gateway.annotations}
    return marks.get(SERVICE_TYPE) or BALANCED


def is_managed(gateway: Gateway) -> bool:
    """Whether its objects are to be made: not where its owner names the Service that stands for it."""
    wanted = gateway.wanted
    return not wanted or (len(wanted) == 1 and wanted[0].type == "IPAddress")


def trouble(gateway: Gateway) -> Condition | None:
    """Why a Gateway of ours cannot be served at all, None when it can. What is wrong with a single listener of an
    ingress is said of that."""
    wanted = gateway.infrastructure.parameters
    if wanted and not wanted.startswith("ConfigMap/"):
        why = f"infrastructure.parametersRef: {wanted} is nothing that parameters can be read from"
        return Condition("Accepted", "False", "InvalidParameters", why)
    if is_ingress(gateway):
        return None
    good = len(gateway.listeners) == 1 and gateway.listeners[0].protocol == HBONE_PROTOCOL
    if good and gateway.listeners[0].port == HBONE_PORT:
        return None
    why = f'Expected a single listener on port {HBONE_PORT} with protocol "{HBONE_PROTOCOL}"'
    return Condition("Accepted", "False", "UnsupportedProtocol", why)


def labels(gateway: Gateway) -> dict[str, str]:
    """Of everything that belongs to it."""
    return {
        **gateway.infrastructure.labels,
        MANAGED: INGRESS_MANAGED_BY if is_ingress(gateway) else MANAGED_BY,
        GATEWAY_NAME: gateway.name,
        "gateway.networking.k8s.io/gateway-class-name": gateway.class_name,
    }


def service_account(gateway: Gateway) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(gateway, account_of(gateway))}


def service(gateway: Gateway) -> dict[str, Any]:
    """What clients dial: ztunnels a waypoint, everybody an ingress."""
    made = metadata(gateway, name_of(gateway))
    ports = [{"name": "status-port", "port": READY_PORT, "protocol": "TCP", "appProtocol": "tcp"}]
    spec: dict[str, Any] = {"selector": {GATEWAY_NAME: gateway.name}, "ipFamilyPolicy": "PreferDualStack"}
    if is_ingress(gateway):
        spec["type"] = service_type(gateway)
        if gateway.wanted and spec["type"] == BALANCED:
            spec["loadBalancerIP"] = gateway.wanted[0].value
        for number, listener in sorted({one.port: one for one in reversed(gateway.listeners)}.items()):
            if number in OWN_PORTS:
                continue
            protocol = "http" if listener.protocol == "HTTP" else "tls"
            ports.append({"name": f"{protocol}-{number}", "port": number, "protocol": "TCP", "appProtocol": protocol})
    else:
        told = made.get("annotations", {})
        made["annotations"] = {"networking.istio.io/traffic-distribution": "PreferClose", **told}
        mesh = {"name": gateway.listeners[0].name, "port": HBONE_PORT, "protocol": "TCP", "appProtocol": "hbone"}
        ports.append(mesh)
    spec["ports"] = ports
    return {"apiVersion": "v1", "kind": "Service", "metadata": made, "spec": spec}


def pod_template(gateway: Gateway, placement: Placement) -> dict[str, Any]:
    """`metadata` and `spec` of one pod."""
    environment = [
        {"name": "GATEWAY_NAME", "value": gateway.name},
        *(_field(name, path) for name, path in _FIELDS),
        {"name": "XDS_ROOT_CA", "value": f"{placement.root}/root-cert.pem"},
        {"name": "AUTH_TOKEN", "value": f"{placement.token}/istio-token"},
        *({"name": "AMBIENT_WILDCARD_NETWORKS", "value": one} for one in _networks(gateway)),
        *({"name": name, "value": value} for name, value in sorted(placement.environment.items())),
    ]
    container: dict[str, Any] = {
        "name": "istio-proxy",
        "command": list(placement.command),
        "env": environment,
        "ports": [
            {"containerPort": METRICS_PORT, "name": "metrics", "protocol": "TCP"},
            {"containerPort": STATS_PORT, "name": "http-envoy-prom", "protocol": "TCP"},
            {"containerPort": READY_PORT, "name": "status-port", "protocol": "TCP"},
            *([] if is_ingress(gateway) else [{"containerPort": HBONE_PORT, "name": "mesh", "protocol": "TCP"}]),
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": READY_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 4,
        },
        "volumeMounts": [
            {"name": "istio-token", "mountPath": placement.token},
            {"name": "istiod-ca-cert", "mountPath": placement.root},
        ],
    }
    if placement.image:
        container["image"] = placement.image
    token = {"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}
    marks = {
        **labels(gateway),
        "sidecar.istio.io/inject": "false",
        "istio.io/dataplane-mode": "none",
        "service.istio.io/canonical-name": name_of(gateway),
        "service.istio.io/canonical-revision": "latest",
    }
    told = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_PORT),
        "prometheus.io/path": METRICS_PATH,
        **gateway.infrastructure.annotations,
    }
    return {
        "metadata": {"labels": marks, "annotations": told},
        "spec": {
            "serviceAccountName": account_of(gateway),
            "terminationGracePeriodSeconds": 30,
            "containers": [container],
            "volumes": [
                {"name": "istio-token", "projected": {"sources": [token]}},
                {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
            ],
        },
    }


def unread_networks(gateway: Gateway) -> dict[str, str]:
    """What is wrong with the networks of a Gateway, by its annotation; then there are none."""
    try:
        read_reach(gateway.annotations.get(WILDCARD_NETWORKS, ""))
    except InvalidInput as error:
        return {WILDCARD_NETWORKS: str(error)}
    return {}


def _networks(gateway: Gateway) -> list[str]:
    found = gateway.annotations.get(WILDCARD_NETWORKS, "")
    return [found] if found and not unread_networks(gateway) else []


_FIELDS: Final = (
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ("INSTANCE_IP", "status.podIP"),
)


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def metadata(gateway: Gateway, name: str) -> dict[str, Any]:
    """Of an object that is made for the Gateway, and goes with it."""
    made: dict[str, Any] = {"name": name, "namespace": gateway.namespace, "labels": labels(gateway)}
    if gateway.infrastructure.annotations:
        made["annotations"] = dict(gateway.infrastructure.annotations)
    if gateway.uid:
        made["ownerReferences"] = [
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": gateway.name,
                "uid": gateway.uid,
            }
        ]
    return made
