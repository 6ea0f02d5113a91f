"""What is looked at before anything is installed, and whose it is."""

from __future__ import annotations

import asyncio

import pytest

from ambient.cli.install import examined
from ambient.cli.manifest import RESOURCES
from ambient.errors import Refused
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import Answer, FakeApi

MAY = Answer(201, b'{"status": {"allowed": true}}')
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def _examined(mesh: str, namespace: str) -> None:
    """Look at a cluster with a ztunnel in `mesh`, to install into `namespace`."""
    async with FakeApi() as server, ApiClient(server.access()) as client:
        server.say("/version", Answer(200, b'{"gitVersion": "v1.36.0"}'))
        server.say(REVIEWS, *[MAY] * len(RESOURCES))
        server.put({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "ztunnel", "namespace": mesh}})
        await examined(client, namespace)


def test_a_mesh_of_any_namespace_can_be_installed_again_and_upgraded() -> None:
    asyncio.run(_examined("mesh", "mesh"))


def test_beside_another_mesh_nothing_is_installed() -> None:
    with pytest.raises(Refused, match="daemonset mesh/ztunnel: another mesh"):
        asyncio.run(_examined("mesh", "ambient-system"))
