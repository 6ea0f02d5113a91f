"""The classes of ours: made where there is none, owned by the installation, left alone where there is one."""

from __future__ import annotations

import asyncio

from ambient.control.gateway_class import OwnClasses, gateway_class
from ambient.kube.api.client import ApiClient
from ambient.kube.objects import Records, parse_object
from tests.support.kube_api import FakeApi
from tests.support.waiting import eventually

KIND, NAME, INGRESS = "GatewayClass", "istio-waypoint", "ambient"
ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "ambient-control"}}


def test_it_is_made_where_there_is_none_and_goes_with_the_installation() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            uid = server.put(ROLE)["metadata"]["uid"]
            leads = False
            one = OwnClasses(api, (NAME, INGRESS), lambda: leads, again_s=0.01)
            one.hear(Records())
            running = asyncio.create_task(one.run())
            await asyncio.sleep(0)
            assert server.stored(KIND, NAME) is None
            leads = True
            await eventually(lambda: server.stored(KIND, NAME))
            made = server.stored(KIND, NAME)
            assert made is not None
            assert made["metadata"]["ownerReferences"][0]["uid"] == uid
            parse_object(gateway_class(NAME, uid), "x")
            await eventually(lambda: server.stored(KIND, INGRESS))
            controllers = [(server.stored(KIND, name) or {})["spec"]["controllerName"] for name in (NAME, INGRESS)]
            assert controllers == ["istio.io/mesh-controller", "ambient.mesh/gateway-controller"]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_one_that_is_there_is_left_as_it_is() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            theirs = gateway_class(NAME, "") | {"spec": {"controllerName": "example.com/theirs"}}
            server.put(theirs)
            one = OwnClasses(api, (NAME,), lambda: True, again_s=0.01)
            running = asyncio.create_task(one.run())
            # Even when it has come since we last looked.
            one.hear(Records())
            await eventually(lambda: server.asked("POST", server.collection(KIND)))
            assert (server.stored(KIND, NAME) or {})["spec"] == {"controllerName": "example.com/theirs"}
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
