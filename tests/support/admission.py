"""A small cluster, objects that people write into it, and what the API server asks about them."""

from __future__ import annotations

from typing import Any

import yaml

from ambient.control.admission_checks import View
from ambient.kube.objects import Records, parse_object

CLUSTER = """
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
"""


def view(**options: Any) -> View:
    found = [parse_object(one, "test") for one in yaml.safe_load_all(CLUSTER)]
    return View(Records(1, {one.key: one for one in found}), **{"known": True, **options})


VIEW = view()
RULE = "{from: [{source: {namespaces: [shop]}}]}"


def policy(spec: str, *, kind: str = "AuthorizationPolicy", namespace: str = "shop", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": "p", "namespace": namespace, **metadata},
        "spec": yaml.safe_load(spec),
    }


def asked(content: dict[str, Any], operation: str = "CREATE", **request: Any) -> dict[str, Any]:
    metadata = content["metadata"]
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": operation,
            "object": content,
            "name": metadata.get("name", ""),
            "namespace": metadata.get("namespace", ""),
            **request,
        },
    }


BAD = policy("{action: ALOW}")
