"""The GatewayClass of waypoints: made as soon as the cluster has the Gateway API, and again when somebody deletes it.

One that is there is left as it is, whoever has made it: its controller is named in it for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Conflict, NotThere
from ambient.kube.networking import GatewayClass
from ambient.kube.objects import Records, resources
from ambient.kube.resource import Resource
from ambient.kube.routing import CONTROLLER
from ambient.waypoint.deploy import CLASS

ROLES: Final = Resource("rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False)
ROLE: Final = "ambient-control"
"""The role that lets us make it: uninstalled, it takes the class along."""
_AGAIN_S: Final = 5.0

_log = logging.getLogger("ambient.control.gateways")


def gateway_class(owner: str) -> dict[str, Any]:
    """`owner`: uid of the role, "" when it is not known. Pure."""
    metadata: dict[str, Any] = {"name": CLASS, "labels": {"app.kubernetes.io/part-of": "ambient"}}
    if owner:
        reference = {"apiVersion": ROLES.group_version, "kind": "ClusterRole", "name": ROLE, "uid": owner}
        metadata["ownerReferences"] = [reference]
    return {
        "apiVersion": resources(GatewayClass.kind)[0].group_version,
        "kind": GatewayClass.kind,
        "metadata": metadata,
        "spec": {"controllerName": CONTROLLER, "description": "Waypoints: layer 7 for services of the mesh"},
    }


class OwnClass:
    """`hear` each snapshot; `run` beside the server."""

    def __init__(self, api: ApiClient, leading: Callable[[], bool], *, again_s: float = _AGAIN_S) -> None:
        self._api = api
        self._leading = leading
        self._again_s = again_s
        self._missing = False

    def hear(self, records: Records) -> None:
        """Objects changed."""
        self._missing = records.find(GatewayClass, "", CLASS) is None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._missing and self._leading():
                await self._make()
            await asyncio.sleep(self._again_s)

    async def _make(self) -> None:
        try:
            role = await self._api.get(ROLES, ROLE)
            owner = str(role["metadata"].get("uid", ""))
        except MeshError:
            owner = ""
        try:
            await self._api.create(resources(GatewayClass.kind)[0], gateway_class(owner))
        except (Conflict, NotThere):
            # It is there by now, or the cluster has no Gateway API yet.
            return
        except MeshError as error:
            _log.warning("GatewayClass %s is not made: %s", CLASS, error)
            return
        _log.info("GatewayClass %s is made", CLASS)
