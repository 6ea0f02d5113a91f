"""The lab's own hand for waypoints and gateways: what a cluster's controllers make of a Gateway, of the same template.

Each is one pod, a process of Envoy and its agent, in the place that the lab gives it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ambient.kube.networking import Gateway
from ambient.kube.objects import Record, parse_object
from ambient.lab.settings import LabSettings
from ambient.model.address import DISCOVERY_PORT
from ambient.waypoint import deploy

NODE: Final = "ambient.mesh/node"
"""Annotation of a Gateway: the node that its pod runs on; without it the lab chooses."""
_TOKEN: Final = "/srv"
_ROOT: Final = "/mnt"
"""Folders that every machine has, for a pod's files to be laid over."""
_SCRATCH: Final = "/dev/shm"
"""Its own, and gone with it even when it is killed, as `down` does; /tmp is the machine's."""


def with_their_objects(records: Iterable[Record], settings: LabSettings) -> list[Record]:
    """`records`, and behind each Gateway of ours what it stands for."""
    found: list[Record] = []
    for record in records:
        found.append(record)
        if isinstance(record, Gateway) and record.class_name in deploy.CLASSES and not deploy.trouble(record):
            found += _objects(record, settings)
    return found


def _objects(gateway: Gateway, settings: LabSettings) -> Iterable[Record]:
    made: list[Mapping[str, Any]] = [deploy.service_account(gateway), deploy.service(gateway), _pod(gateway, settings)]
    return [parse_object(raw, f"waypoint {gateway.namespace}/{gateway.name}") for raw in made]


def _pod(gateway: Gateway, settings: LabSettings) -> dict[str, Any]:
    placement = deploy.Placement(
        command=(sys.executable, "-m", "ambient.waypoint.agent"),
        environment={
            "XDS_ADDRESS": f"https://{settings.plan.control.v4}:{DISCOVERY_PORT}",
            "ALT_XDS_HOSTNAME": "istiod.istio-system.svc",
            "CLUSTER_ID": "Kubernetes",
            "TRUST_DOMAIN": "cluster.local",
            "AMBIENT_ENVOY_CONCURRENCY": "1",
            "TMPDIR": _SCRATCH,
            **settings.environment("waypoint"),
        },
        token=_TOKEN,
        root=_ROOT,
    )
    template = deploy.pod_template(gateway, placement)
    metadata = {**template["metadata"], "name": deploy.name_of(gateway), "namespace": gateway.namespace}
    spec = dict(template["spec"])
    spec["terminationGracePeriodSeconds"] = 8
    if NODE in gateway.annotations:
        spec["nodeName"] = gateway.annotations[NODE]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
