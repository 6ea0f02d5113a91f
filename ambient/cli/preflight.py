"""`ambient check --pre`: what of a cluster would keep the mesh from working, before it is installed.

Read through the API only. What only a node can tell (bpffs, control groups, its CNI configuration) its agent says in
its readiness as soon as it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ambient.cli.health import Finding
from ambient.cli.manifest import RESOURCES, Object
from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.resource import Resource

OLDEST_SERVER: Final = (1, 30)
OLDEST_KERNEL: Final = (5, 10)
GOOD_KERNEL: Final = (6, 6)
MACHINES: Final = frozenset({"amd64", "arm64"})
NODES: Final = Resource("v1", "nodes", namespaced=False)
REVIEWS: Final = Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews", namespaced=False)
_RIVALS: Final[Mapping[str, str]] = {
    "istio-cni-node": "Istio's node agent enrols the same pods; remove it first, or change over node by node",
    "linkerd-cni": "Linkerd's plugin redirects the same traffic",
    "kuma-cni-node": "Kuma's plugin redirects the same traffic",
}
_NUMBERS: Final = re.compile(r"(\d+)\.(\d+)")


def version_of(text: str) -> tuple[int, int]:
    """The first two numbers of a version; (0, 0) for what is none."""
    found = _NUMBERS.search(text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def server(found: Mapping[str, Any]) -> Finding:
    """The API server's own version."""
    text = str(found.get("gitVersion", "unknown"))
    if version_of(text) < OLDEST_SERVER:
        return Finding("kubernetes", False, f"{text} is older than {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]}")
    return Finding("kubernetes", True, text)


def node(content: Object) -> Finding:
    """A node's machine and kernel."""
    name, told = f"node {content['metadata']['name']}", (content.get("status") or {}).get("nodeInfo") or {}
    kernel, machine = str(told.get("kernelVersion", "")), str(told.get("architecture", ""))
    if told.get("operatingSystem", "linux") != "linux":
        return Finding(name, None, f"{told['operatingSystem']}: it will not be part of the mesh")
    if machine not in MACHINES:
        return Finding(name, False, f"{machine}: there is no image for it")
    if version_of(kernel) < OLDEST_KERNEL:
        return Finding(name, False, f"kernel {kernel} is older than {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]}")
    if version_of(kernel) < GOOD_KERNEL:
        return Finding(name, True, f"kernel {kernel}: works; from 6.6 on without the older ways of attaching")
    return Finding(name, True, f"kernel {kernel}, {told.get('containerRuntimeVersion', 'unknown runtime')}")


def rivals(daemonsets: list[Object], namespace: str) -> list[Finding]:
    """DaemonSets of others that do what we do."""
    found = []
    for one in daemonsets:
        name, where = one["metadata"]["name"], one["metadata"]["namespace"]
        if name in _RIVALS:
            found.append(Finding(f"daemonset {where}/{name}", False, _RIVALS[name]))
        if name == "ztunnel" and where != namespace:
            found.append(Finding(f"daemonset {where}/{name}", False, "another mesh's ztunnel takes the same sockets"))
    return found


def cilium(configuration: Object | None) -> list[Finding]:
    """Settings of Cilium that have to be other than they are by default."""
    data = (configuration or {}).get("data") or {}
    found = []
    if data.get("cni-exclusive", "true" if configuration else "false") == "true":
        found.append(Finding("cilium", False, "cni.exclusive is on: it removes every plugin behind its own"))
    if data.get("bpf-lb-sock") == "true" and data.get("bpf-lb-sock-hostns-only") != "true":
        told = "socketLB.hostNamespaceOnly is off: services are resolved before the mesh sees them"
        found.append(Finding("cilium", False, told))
    return found


async def examine(client: ApiClient, namespace: str = "ambient-system") -> list[Finding]:
    """All of it; what may not be read is a finding, too. Raises Unavailable when the server does not answer."""
    findings = [server(await client.call("GET", "/version"))]
    findings += await _permissions(client)
    try:
        findings += [node(one) for one in (await client.list(NODES)).get("items") or []]
        listed = (await client.list(RESOURCES["DaemonSet"])).get("items") or []
        findings += rivals(listed, namespace)
        findings += cilium(await _cilium(client))
    except MeshError as error:
        findings.append(Finding("cluster", None, str(error)))
    return findings


async def _cilium(client: ApiClient) -> Object | None:
    try:
        return await client.get(RESOURCES["ConfigMap"], "cilium-config", "kube-system")
    except NotThere:
        return None


async def _permissions(client: ApiClient) -> list[Finding]:
    """Whether the caller may make what is installed."""
    missing = []
    for kind, resource in RESOURCES.items():
        attributes = {"verb": "create", "group": resource.group, "resource": resource.plural}
        body = {
            "apiVersion": REVIEWS.group_version,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await client.create(REVIEWS, body)
        if not (answer.get("status") or {}).get("allowed"):
            missing.append(kind)
    if missing:
        return [Finding("permissions", False, f"you may not create {', '.join(missing)}")]
    return [Finding("permissions", True, "you may create all that is installed")]
