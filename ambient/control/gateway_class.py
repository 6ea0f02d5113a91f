"""The GatewayClasses of waypoints and of gateways: made as soon as the cluster has the Gateway API, and again when
somebody deletes one.

One that is there is left as it is, whoever has made it: its controller is named in it for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Conflict, NotThere
from ambient.kube.networking import GatewayClass
from ambient.kube.objects import Records, resources
from ambient.kube.resource import Resource
from ambient.kube.routing import CONTROLLER, GATEWAY_CONTROLLER
from ambient.waypoint.deploy import CLASS

ROLES: Final = Resource("rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False)
ROLE: Final = "ambient-control"
"""The role that lets us make it: uninstalled, it takes the class along."""
_AGAIN_S: Final = 5.0
_WAYPOINTS: Final = "Waypoints: layer 7 for services of the mesh"
_INGRESS: Final = "Gateways for clients outside of the mesh"

_log = logging.getLogger("ambient.control.gateways")


def gateway_class(name: str, owner: str) -> dict[str, Any]:
    """`owner`: uid of the role, "" when it is not known. Pure."""
    metadata: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/part-of": "ambient"}}
    if owner:
        reference = {"apiVersion": ROLES.group_version, "kind": "ClusterRole", "name": ROLE, "uid": owner}
        metadata["ownerReferences"] = [reference]
    controller, told = (CONTROLLER, _WAYPOINTS) if name == CLASS else (GATEWAY_CONTROLLER, _INGRESS)
    return {
        "apiVersion": resources(GatewayClass.kind)[0].group_version,
        "kind": GatewayClass.kind,
        "metadata": metadata,
        "spec": {"controllerName": controller, "description": told},
    }


class OwnClasses:
    """`hear` each snapshot; `run` beside the server. `names`: of the classes."""

    def __init__(
        self, api: ApiClient, names: Collection[str], leading: Callable[[], bool], *, again_s: float = _AGAIN_S
    ) -> None:
        self._api = api
        self._names = sorted(names)
        self._leading = leading
        self._again_s = again_s
        self._missing: list[str] = []

    def hear(self, records: Records) -> None:
        """Objects changed."""
        self._missing = [name for name in self._names if records.find(GatewayClass, "", name) is None]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for name in self._missing if self._leading() else ():
                await self._make(name)
            await asyncio.sleep(self._again_s)

    async def _make(self, name: str) -> None:
        try:
            role = await self._api.get(ROLES, ROLE)
            owner = str(role["metadata"].get("uid", ""))
        except MeshError:
            owner = ""
        try:
            await self._api.create(resources(GatewayClass.kind)[0], gateway_class(name, owner))
        except (Conflict, NotThere):
            # It is there by now, or the cluster has no Gateway API yet.
            return
        except MeshError as error:
            _log.warning("GatewayClass %s is not made: %s", name, error)
            return
        _log.info("GatewayClass %s is made", name)
