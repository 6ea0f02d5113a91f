"""The client against a server on loopback: objects, errors, deadlines, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from ambient.errors import Unavailable
from ambient.kube.api.access import ApiAccess, FixedCredentials, Identity, TokenFile, tls_context
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import ApiUnavailable, Conflict, Forbidden, NotThere
from ambient.kube.resource import Resource
from tests.support.authority import Authority
from tests.support.kube_api import Answer, FakeApi
from tests.support.mint import Leaf, Mint

PODS = Resource("v1", "pods")
CONFIG_MAPS = Resource("v1", "configmaps")


def _mint() -> Mint:
    authority = Authority()
    return Mint(authority.root, authority.key)


def config_map(name: str = "a", **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def against(scenario: Callable[[FakeApi, ApiClient], Awaitable[None]], *, timeout_s: float = 15) -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=timeout_s) as client:
            await scenario(api, client)

    asyncio.run(run())


def test_an_object_is_made_read_changed_listed_and_deleted() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        made = await client.create(CONFIG_MAPS, config_map(key="1"), "shop")
        assert made["metadata"]["resourceVersion"]
        assert (await client.get(CONFIG_MAPS, "a", "shop"))["data"] == {"key": "1"}
        changed = await client.patch(CONFIG_MAPS, "a", {"data": {"key": None, "more": "2"}}, "shop")
        assert changed["data"] == {"more": "2"}
        replaced = await client.replace(CONFIG_MAPS, "a", {**changed, "data": {}}, "shop")
        assert replaced["data"] == {}
        assert [item["metadata"]["name"] for item in (await client.list(CONFIG_MAPS))["items"]] == ["a"]
        await client.delete(CONFIG_MAPS, "a", "shop", uid=made["metadata"]["uid"])
        with pytest.raises(NotThere):
            await client.get(CONFIG_MAPS, "a", "shop")

    against(scenario)


def test_a_list_comes_in_pages() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        for name in "abc":
            await client.create(CONFIG_MAPS, config_map(name), "shop")
        first = await client.list(CONFIG_MAPS, limit=2)
        rest = await client.list(CONFIG_MAPS, limit=2, page=first["metadata"]["continue"])
        assert [len(first["items"]), len(rest["items"])] == [2, 1]
        assert "continue" not in rest["metadata"]

    against(scenario)


def test_server_side_apply_makes_what_is_not_there_and_names_its_manager() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        await client.patch(CONFIG_MAPS, "a", config_map(), "shop", form="apply", manager="ambient-test", force=True)
        assert api.stored("ConfigMap", "a", "shop")
        query = api.asked("PATCH", "/api/v1/namespaces/shop/configmaps/a")[0]
        assert query == {"fieldManager": "ambient-test", "force": "true"}

    against(scenario)


def test_the_status_subresource_changes_status_and_nothing_else() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        api.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"x": 1}})
        await client.patch(PODS, "p", {"spec": {"x": 2}, "status": {"y": 3}}, "shop", subresource="status")
        stored = api.stored("Pod", "p", "shop")
        assert stored is not None
        assert (stored["spec"], stored["status"]) == ({"x": 1}, {"y": 3})

    against(scenario)


def test_who_changes_what_somebody_else_changed_meanwhile_is_told() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        made = await client.create(CONFIG_MAPS, config_map(), "shop")
        await client.patch(CONFIG_MAPS, "a", {"data": {"k": "other"}}, "shop")
        with pytest.raises(Conflict):
            await client.replace(CONFIG_MAPS, "a", made, "shop")
        with pytest.raises(Conflict):
            await client.create(CONFIG_MAPS, config_map(), "shop")
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAPS, "a", "shop", uid="another")

    against(scenario)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"kind": ', b"\xff"])
def test_an_answer_that_is_no_object_is_no_answer(body: bytes) -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        api.say("/api/v1/namespaces/shop/pods/p", Answer(body=body))
        with pytest.raises(ApiUnavailable):
            await client.get(PODS, "p", "shop")

    against(scenario)


def test_a_server_that_does_not_answer_is_left_after_the_deadline() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        api.say("/api/v1/namespaces/shop/pods/p", Answer(hang=True))
        with pytest.raises(ApiUnavailable, match="no answer in time") as caught:
            await client.get(PODS, "p", "shop")
        assert caught.value.uncertain

    against(scenario, timeout_s=0.05)


def test_a_server_that_is_not_there_has_certainly_done_nothing() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        await api.go_away()
        with pytest.raises(ApiUnavailable, match="Connection refused") as caught:
            await client.get(PODS, "p", "shop")
        assert not caught.value.uncertain
        assert caught.value.status == 0

    against(scenario)


def test_a_redirect_is_not_followed_with_our_token() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        api.say("/api/v1/pods", Answer(302, headers={"Location": f"{api.url}/api/v1/secrets"}))
        with pytest.raises(Exception, match="refuses"):
            await client.list(PODS)
        assert len(api.requests) == 1

    against(scenario)


def test_a_token_that_is_refused_is_read_again(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "token"
        file.write_text("old\n")
        async with FakeApi() as api:
            api.tokens = {"new"}
            async with ApiClient(ApiAccess(api.url, TokenFile(file, None))) as client:
                with pytest.raises(Forbidden):
                    await client.list(PODS)
                file.write_text("new")
                await client.list(PODS)
            assert api.seen_tokens == ["Bearer old", "Bearer new"]

    asyncio.run(run())


def _server(leaf: Leaf, root: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain, key = leaf.save(root, "server")
    context.load_cert_chain(chain, key)
    return context


def test_the_server_proves_itself_and_we_prove_ourselves_by_certificate(tmp_path: Path) -> None:
    async def run() -> None:
        mint = _mint()
        server = _server(mint.leaf(names=[x509.DNSName("kubernetes")]), tmp_path)
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(cadata=mint.roots)
        own = mint.leaf("spiffe://x/ns/a/sa/b", title="somebody")
        ours = tls_context(mint.roots.encode(), where="x", certificate=own.chain.encode(), key=own.key.encode())
        async with FakeApi(tls=server) as api:
            access = ApiAccess(api.url, FixedCredentials(Identity(context=ours)), server_name="kubernetes")
            async with ApiClient(access) as client:
                await client.list(PODS)
            assert api.client_names == ["somebody"]

    asyncio.run(run())


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_server_that_cannot_prove_itself_gets_nothing(tmp_path: Path, wrong: str) -> None:
    async def run() -> None:
        mint = _mint()
        trusted = mint.stranger().roots if wrong == "authority" else mint.roots
        server = _server(mint.leaf(names=[x509.DNSName("kubernetes")]), tmp_path)
        async with FakeApi(tls=server) as api:
            ours = FixedCredentials(Identity({"Authorization": "Bearer t"}, tls_context(trusted.encode(), where="x")))
            name = "kubernetes" if wrong == "authority" else "other"
            async with ApiClient(ApiAccess(api.url, ours, server_name=name)) as client:
                with pytest.raises(Unavailable, match="certificate"):
                    await client.list(PODS)
            assert api.requests == []

    asyncio.run(run())


def test_a_request_that_was_given_up_is_no_longer_connected_when_the_client_is_closed(tmp_path: Path) -> None:
    mint = _mint()
    context = _server(mint.leaf(names=[x509.DNSName("kubernetes")]), tmp_path)
    asked, over = threading.Event(), threading.Event()
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        """Take a request, and neither answer nor take part in TLS' farewell while the client is there."""
        with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
            sock.recv(65536)
            asked.set()
            over.wait(20)
            with suppress(OSError):
                heard.append(sock.recv(65536))

    async def run(port: int) -> None:
        identity = Identity(context=tls_context(mint.roots.encode(), where="x"))
        client = ApiClient(ApiAccess(f"https://127.0.0.1:{port}", FixedCredentials(identity), server_name="kubernetes"))
        request = asyncio.create_task(client.list(PODS))
        await asyncio.to_thread(asked.wait, 20)
        before = _sockets()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await client.close()
        assert _sockets() < before

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            asyncio.run(run(listener.getsockname()[1]))
        finally:
            over.set()
            server.join()
    assert heard in ([b""], [])


def _sockets() -> int:
    """How many this process has open."""
    return sum(name.is_socket() for name in Path("/proc/self/fd").iterdir())
