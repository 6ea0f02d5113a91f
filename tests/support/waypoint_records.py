"""Objects of a mesh with a waypoint, as the control plane reads them."""

from __future__ import annotations

from typing import Any

from ambient.control.derive import Derived, derive
from ambient.control.derive_world import DeriveSettings
from ambient.kube.objects import Records, RefusedObject
from ambient.waypoint.shared_limits import LIMITER
from tests.support.builders import raw, records
from tests.support.waypoint_views import KEYS

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
LISTENER = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
POOLS = ("inbound-vip|", LIMITER)
"""What names of clusters begin with whose endpoints are told."""
TARGET = {"kind": "Service", "name": "web"}


def gateway(name: str = "waypoint", *, ready: bool = True, port: int = 15008) -> dict[str, Any]:
    spec = {"gatewayClassName": "istio-waypoint", "listeners": [{**LISTENER, "port": port}]}
    made = {**raw("Gateway", name, spec, namespace="shop"), "apiVersion": "gateway.networking.k8s.io/v1"}
    if ready:
        made["status"] = {"addresses": [{"type": "Hostname", "value": f"{name}.shop.svc.cluster.local"}]}
    return made


def service(name: str, *ports: dict[str, Any], ip: str = "10.96.0.1", **labels: str) -> dict[str, Any]:
    spec = {"clusterIP": ip, "selector": {"app": name}, "ports": list(ports)}
    return raw("Service", name, spec, namespace="shop", labels={"istio.io/use-waypoint": "waypoint", **labels})


def pod(name: str, ip: str, *, ready: bool = True, app: str = "web", mesh: bool = True) -> dict[str, Any]:
    spec = {
        "nodeName": "n1",
        "serviceAccountName": "web",
        "containers": [{"name": "c", "image": "x", "command": ["a"]}],
    }
    made = raw("Pod", name, spec, namespace="shop", labels={"app": app})
    if mesh:
        made["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    made["status"] = {"phase": "Running", "podIPs": [{"ip": ip}], "podIP": ip, "conditions": conditions}
    return made


def policy(name: str, action: str, *targets: dict[str, Any], namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    refs = [{"group": "", **one} for one in targets]
    made = raw("AuthorizationPolicy", name, {"targetRefs": refs, "action": action, **spec}, namespace=namespace)
    return {**made, "apiVersion": "security.istio.io/v1"}


def tokens(name: str, *targets: dict[str, Any], namespace: str = "shop", **rule: Any) -> dict[str, Any]:
    """A RequestAuthentication for the tokens of one issuer."""
    every = {"issuer": f"https://{name}.example.com", "jwks": KEYS, **rule}
    rules = [{key: value for key, value in every.items() if value is not None}]
    spec = {"targetRefs": [{"group": "", **one} for one in targets], "jwtRules": rules}
    made = raw("RequestAuthentication", name, spec, namespace=namespace)
    return {**made, "apiVersion": "security.istio.io/v1"}


SCENE: tuple[dict[str, Any], ...] = (
    NAMESPACE,
    gateway(),
    service("web", {"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp-raw", "port": 9000}),
    pod("web-1", "10.1.0.1"),
    pod("web-2", "10.1.0.2", mesh=False),
    pod("web-3", "10.1.0.3", ready=False),
)


def scene(*more: dict[str, Any], without: tuple[str, ...] = (), refused: tuple[RefusedObject, ...] = ()) -> Records:
    kept = [one for one in SCENE if one["metadata"]["name"] not in without]
    return records(*kept, *more, refused=refused)


def derived(found: Records) -> Derived:
    return derive(found, DeriveSettings())
