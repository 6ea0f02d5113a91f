"""The whole control plane with its objects from an API server: what is applied reaches clients, trouble does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ambient.kube.api.source import ApiSource
from ambient.model.address import Endpoint
from ambient.model.workload import Workload
from tests.support.control import ControlBench, Subscriber, kubeconfig
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

POLICIES = "/apis/security.istio.io/v1/authorizationpolicies"
WEB = "Kubernetes//Pod/shop/web"


def pod(name: str = "web", ip: str = "10.0.0.1", node: str = "n1", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name, **labels}},
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
    }


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "deny", "namespace": "shop", "generation": 1},
        "spec": spec or {"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]},
    }


class Bench(ControlBench):
    def __init__(self, folder: Path, api: FakeApi, replica: str = "one") -> None:
        folder.mkdir(exist_ok=True)
        config = kubeconfig(folder, api.url)
        super().__init__(folder, AMBIENT_OBJECTS="kubernetes", KUBECONFIG=config, POD_NAME=replica)

    def knows(self, *others: Bench) -> None:
        """As if their pods were known (here they share an address)."""
        assert self.plane.enforcement is not None
        self.plane.enforcement.peers = tuple(Endpoint(ip_address("127.0.0.1"), o.plane.http_port) for o in others)

    @property
    def source(self) -> ApiSource:
        source = self.plane._source
        assert isinstance(source, ApiSource)
        return source


def serving(folder: Path, scenario: Callable[[FakeApi, Bench, Subscriber], Awaitable[None]]) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
            api.put(pod())
            async with Bench(folder / "one", api) as bench, Subscriber(bench.client()) as client:
                await client.synced()
                await scenario(api, bench, client)

    asyncio.run(run())


def conditions(api: FakeApi) -> list[dict[str, Any]]:
    content = api.stored("AuthorizationPolicy", "deny", "shop") or {}
    return list((content.get("status") or {}).get("conditions", []))


def test_what_is_applied_changed_and_deleted_reaches_a_client(tmp_path: Path) -> None:
    async def scenario(api: FakeApi, bench: Bench, client: Subscriber) -> None:
        assert WEB in client.view
        api.put(pod("other", "10.0.0.2", "n2"))
        api.put(policy())
        await eventually(lambda: "Kubernetes//Pod/shop/other" in client.view and "shop/deny" in client.view)
        api.put(pod(app="renamed"))
        await eventually(lambda: isinstance(w := client.view[WEB], Workload) and w.canonical_name == "renamed")
        api.delete("Pod", "web", "shop")
        await eventually(lambda: WEB not in client.view)

    serving(tmp_path, scenario)


def test_what_became_of_a_policy_is_written_to_it(tmp_path: Path) -> None:
    async def scenario(api: FakeApi, bench: Bench, client: Subscriber) -> None:
        api.put(policy())
        await eventually(lambda: conditions(api))
        accepted, enforced = conditions(api)
        assert (accepted["type"], accepted["reason"]) == ("ZtunnelAccepted", "Accepted")
        assert (enforced["type"], enforced["status"]) == ("ambient.mesh/Enforced", "True")
        assert enforced["message"] == "accepted by 1 of 1 nodes"
        before = bench.source._revision
        api.put(pod("next", "10.0.0.3"))
        await eventually(lambda: "Kubernetes//Pod/shop/next" in client.view)
        # Our own word came back to us and was no news.
        assert bench.source._revision == before + 1

    serving(tmp_path, scenario)


def test_any_object_that_is_refused_says_why_until_it_is_good(tmp_path: Path) -> None:
    def peers(generation: int, mode: str) -> dict[str, Any]:
        return {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "p", "namespace": "shop", "generation": generation},
            "spec": {"mtls": {"mode": mode}},
        }

    async def scenario(api: FakeApi, bench: Bench, client: Subscriber) -> None:
        def said() -> dict[str, Any]:
            content = api.stored("PeerAuthentication", "p", "shop") or {}
            listed = (content.get("status") or {}).get("conditions", [])
            return {one["type"]: one for one in listed}

        api.put(peers(1, "STRICT"))
        await eventually(lambda: said().get("ambient.mesh/Enforced", {}).get("status") == "True")
        api.put(peers(2, "SIDEWAYS"))
        await eventually(lambda: "ambient.mesh/Accepted" in said())
        refused = said()["ambient.mesh/Accepted"]
        assert (refused["status"], refused["reason"], refused["observedGeneration"]) == ("False", "Invalid", 2)
        assert "SIDEWAYS" in refused["message"]
        assert "last good version stays" in refused["message"]
        assert "ambient.mesh/Enforced" not in said()
        await eventually(lambda: api._objects.get(api.collection("Event")))
        (event,) = api._objects[api.collection("Event")].values()
        assert (event["regarding"]["name"], event["reason"], event["type"]) == ("p", "Refused", "Warning")
        assert "SIDEWAYS" in event["note"]
        api.put({**peers(3, "PERMISSIVE"), "status": {"conditions": list(said().values())}})
        await eventually(lambda: said().keys() == {"ambient.mesh/Enforced"})

    serving(tmp_path, scenario)


def test_without_its_api_server_it_goes_on_serving_what_it_knows(tmp_path: Path) -> None:
    async def scenario(api: FakeApi, bench: Bench, client: Subscriber) -> None:
        port = await api.go_away()
        await eventually(lambda: bench.source.followers["Pod"].core.trouble)
        async with Subscriber(bench.client("n2")) as late:
            await late.synced()
            assert WEB in late.view
        assert (await bench.get("/ready"))[0] == 200
        text = (await bench.get("/metrics"))[1].decode()
        assert 'ambient_control_kube_failing{kind="Pod"} 1.0' in text
        await api.listen(port)
        api.put(pod("back", "10.0.0.4"))
        await eventually(lambda: "Kubernetes//Pod/shop/back" in client.view)
        assert WEB in client.view

    serving(tmp_path, scenario)


def test_a_compaction_takes_nothing_from_anybody(tmp_path: Path) -> None:
    async def scenario(api: FakeApi, bench: Bench, client: Subscriber) -> None:
        api.compact()
        api.end_watches()
        await eventually(lambda: bench.source.followers["Pod"].core.relists)
        api.put(pod("next", "10.0.0.3"))
        await eventually(lambda: "Kubernetes//Pod/shop/next" in client.view)
        assert not any(batch.gone for batch in client.batches)

    serving(tmp_path, scenario)


def test_it_is_not_ready_and_says_why_while_a_kind_may_not_be_read(tmp_path: Path) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            api.say(POLICIES, *[Answer(403, status_body(403, "Forbidden", "policies are forbidden"))] * 1000)
            bench = Bench(tmp_path / "one", api)
            entering = asyncio.create_task(bench.__aenter__())
            try:
                await eventually(lambda: len(api.asked("GET", POLICIES)) > 1)
                status, body = await bench.get("/ready")
                assert status == 503
                assert b"AuthorizationPolicy" in body
                assert b"policies are forbidden" in body
                # Nothing is served either: a mesh without its policies would be open.
                assert not bench.plane.catalogue.revision
                api._answers.clear()
                await entering
                assert (await bench.get("/ready"))[0] == 200
            finally:
                await asyncio.gather(entering, return_exceptions=True)
                await bench.__aexit__(None, None, None)

    asyncio.run(run())


def test_of_two_replicas_both_serve_and_one_writes_until_it_ends(tmp_path: Path) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            api.put(pod())
            one, two = Bench(tmp_path / "one", api), Bench(tmp_path / "two", api, "two")
            async with one:
                await eventually(one.source.leading)
                async with two, Subscriber(two.client()) as client, Subscriber(one.client("n2")) as other:
                    await client.synced()
                    await other.synced()
                    one.knows(two)
                    two.knows(one)
                    api.put(policy())
                    await eventually(lambda: len(conditions(api)) == 2)
                    assert conditions(api)[1]["message"] == "accepted by 2 of 2 nodes"
                    assert "shop/deny" in client.view
                    assert not two.source.leading()
                    assert two.source.sink.written == 0
                    two.knows()
                    one.running.cancel()
                    await asyncio.gather(one.running, return_exceptions=True)
                    await eventually(two.source.leading)
                    api.put(policy(action="ALLOW", rules=[{"to": [{"operation": {"methods": ["GET"]}}]}]))
                    await eventually(lambda: "UnsupportedValue" in [c["reason"] for c in conditions(api)])

    asyncio.run(run())


def test_while_there_is_nothing_to_serve_with_readiness_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as api:
            bench = Bench(tmp_path / "one", api)
            bench.environment["AMBIENT_CA_DIR"] = "none"
            port = await api.go_away()
            starting = asyncio.create_task(bench.__aenter__())
            await eventually(lambda: hasattr(bench, "plane") and bench.plane.trust.trouble)
            status, body = await bench.get("/ready")
            assert status == 503
            assert b"nothing can be served yet" in body
            assert b"the Kubernetes API cannot be reached" in body
            await api.listen(port)
            await starting
            assert (await bench.get("/ready"))[0] == 200
            assert api.stored("Secret", "ambient-ca", "ambient-system") is not None
            await bench.__aexit__(None, None, None)

    asyncio.run(scenario())
