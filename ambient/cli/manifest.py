"""What is installed: the manifest that is shipped, with the image, namespace and settings that were asked for. Pure but
for reading the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ambient.errors import InvalidInput, Unavailable
from ambient.kube import syntax
from ambient.kube.mesh_config import read_mesh_config
from ambient.kube.resource import Resource

NAME: Final = "install.yaml"
NAMESPACE: Final = "ambient-system"
SETTINGS: Final = "ambient"
"""The ConfigMap of settings that all parts read."""
MESH_CONFIG: Final = "ambient-mesh"
"""The ConfigMap with Istio's MeshConfig."""
PART_OF: Final = "app.kubernetes.io/part-of=ambient"
ROLLED: Final = frozenset({"Deployment", "DaemonSet"})
PROXY_IMAGES: Final = ("AMBIENT_WAYPOINT_IMAGE", "AMBIENT_GATEWAY_IMAGE")
"""What tells the control plane of which image it makes waypoints and gateways."""
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
RESOURCES: Final[Mapping[str, Resource]] = {
    "Namespace": Resource("v1", "namespaces", namespaced=False),
    "CustomResourceDefinition": Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "ConfigMap": Resource("v1", "configmaps"),
    "ClusterRole": Resource("rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", namespaced=False),
    "Role": Resource("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "Service": Resource("v1", "services"),
    "ValidatingWebhookConfiguration": Resource(_ADMISSION, "validatingwebhookconfigurations", namespaced=False),
    "ValidatingAdmissionPolicy": Resource(_ADMISSION, "validatingadmissionpolicies", namespaced=False),
    "ValidatingAdmissionPolicyBinding": Resource(_ADMISSION, "validatingadmissionpolicybindings", namespaced=False),
    "Deployment": Resource("apps/v1", "deployments"),
    "DaemonSet": Resource("apps/v1", "daemonsets"),
}
"""Every kind of the manifest, in the order in which objects are made; they go in the opposite one."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """One object to be applied."""

    content: Object

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @property
    def name(self) -> str:
        return str(self.content["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.content["metadata"].get("namespace", ""))

    @property
    def resource(self) -> Resource:
        return RESOURCES[self.kind]

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


def shipped() -> str:
    """The text of the manifest: beside this file in an installed package, in `daemonset/` in a checkout.

    Raises Unavailable.
    """
    here = Path(__file__).resolve()
    for place in (here.with_name(NAME), here.parents[2] / "daemonset" / NAME):
        if place.exists():
            return place.read_text()
    raise Unavailable("no manifest", str(here.with_name(NAME)), "this installation came without it: use the Helm chart")


def pieces(
    text: str, *, image: str, namespace: str = NAMESPACE, settings: Iterable[str] = (), mesh_config: str = ""
) -> list[Piece]:
    """The manifest's objects, in the order to apply them. `settings` are NAME=VALUE, `mesh_config` Istio's MeshConfig,
    "" to leave it as it is; raises InvalidInput."""
    if complaint := syntax.dns_label(namespace):
        raise InvalidInput("--namespace", why=complaint)
    if not image or image.strip() != image or " " in image:
        raise InvalidInput("--image", repr(image), "not the name of an image")
    changed = dict(_setting(given) for given in settings)
    found = []
    for content in yaml.safe_load_all(text.replace(NAMESPACE, namespace)):
        if not content:
            continue
        piece = Piece(content)
        if piece.kind not in RESOURCES:
            raise InvalidInput("manifest", str(piece), "a kind that this version does not install")
        if piece.kind in ROLLED:
            for container in content["spec"]["template"]["spec"]["containers"]:
                container["image"] = image
                for entry in container.get("env", ()):
                    if entry["name"] in PROXY_IMAGES:
                        entry["value"] = image
        if (piece.kind, piece.name) == ("ConfigMap", SETTINGS):
            content["data"].update(changed)
        found.append(piece)
    if changed:
        _note(found, changed)
    if mesh_config:
        found.append(_mesh_config(mesh_config, namespace))
    order = list(RESOURCES)
    return sorted(found, key=lambda piece: order.index(piece.kind))


def _setting(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name or not name.replace("_", "").isalnum() or name.upper() != name:
        raise InvalidInput("--set", repr(given), "expected NAME=VALUE, such as TRUST_DOMAIN=example.org")
    return name, value


def _mesh_config(text: str, namespace: str) -> Piece:
    """Nothing of it may be such that the control plane would have to leave it out."""
    if refused := read_mesh_config(text, "--mesh-config").refused:
        raise InvalidInput("mesh config", "--mesh-config", "; ".join(refused))
    metadata = {"name": MESH_CONFIG, "namespace": namespace, "labels": dict([PART_OF.split("=")])}
    return Piece({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": text}})


def _note(found: Iterable[Piece], changed: Mapping[str, str]) -> None:
    """Pods are made again when the settings that they read have changed."""
    told = ",".join(f"{name}={value}" for name, value in sorted(changed.items()))
    for piece in found:
        if piece.kind in ROLLED:
            annotations = piece.content["spec"]["template"]["metadata"].setdefault("annotations", {})
            annotations["ambient.mesh/set"] = told


def progress(content: Mapping[str, Any]) -> str:
    """What a Deployment or DaemonSet is still waiting for; "" when it is as it is wanted."""
    status, spec = content.get("status") or {}, content["spec"]
    if status.get("observedGeneration", 0) < content["metadata"]["generation"]:
        return "not looked at yet"
    if content["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted = spec.get("replicas", 1)
        updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
        if status.get("replicas", 0) > updated:
            return f"{status['replicas'] - updated} of the version before are left"
    if updated < wanted:
        return f"{updated} of {wanted} are of this version"
    return "" if available >= wanted else f"{available} of {wanted} are available"
