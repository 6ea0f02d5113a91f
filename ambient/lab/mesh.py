"""Whether a pod is to be in the mesh, as far as the kubelet must know it: it starts only when it is enrolled."""

from __future__ import annotations

from typing import Final

from ambient.kube.objects import Namespace, Pod, Records

MODE: Final = "istio.io/dataplane-mode"
REDIRECTION: Final = "ambient.istio.io/redirection"
_EXCLUDED: Final = frozenset({"kube-system"})


def wants_mesh(pod: Pod, records: Records) -> bool:
    """Istio's enablement rule: label of the pod, else of its namespace; never for pods on the node's network."""
    if pod.host_network or pod.namespace in _EXCLUDED or "sidecar.istio.io/status" in pod.annotations:
        return False
    own = pod.labels.get(MODE)
    if own is not None:
        return own == "ambient"
    namespace = records.find(Namespace, "", pod.namespace)
    return namespace is not None and namespace.labels.get(MODE) == "ambient"


def is_enrolled(pod: Pod) -> bool:
    """Whether the agent says that the pod's traffic is captured."""
    return pod.annotations.get(REDIRECTION) == "enabled"
