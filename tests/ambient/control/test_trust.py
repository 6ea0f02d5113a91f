"""What the settings put together: who signs, who is asked about tokens, and what does not go together."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.ca.csr import parse_csr
from ambient.ca.entitle import NotEntitled
from ambient.ca.roots import make_root
from ambient.ca.token import Caller
from ambient.control.issuers import NoIssuer, OwnIssuer, Serving
from ambient.control.kubernetes_signer import KubernetesSigner
from ambient.control.metrics import ControlMetrics
from ambient.control.settings import read_control_settings
from ambient.control.tls import ServerCertificate
from ambient.control.trust import RootsFile, Trust
from ambient.errors import InvalidInput, Refused, Unavailable
from ambient.lab.credentials import make_token_key
from ambient.model.identity import Identity
from tests.ambient.control import test_serving_files
from tests.support.control import make_csr
from tests.support.kube_api import FakeApi
from tests.support.waiting import eventually

KUBE = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: '%s'}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def trust(folder: Path, server: str = "", **environment: str) -> Trust:
    (folder / "config").write_text(KUBE % (server or "http://127.0.0.1:1"))
    objects = {"AMBIENT_OBJECTS": "kubernetes"} if server else {"AMBIENT_OBJECTS": str(folder)}
    settings = read_control_settings({**objects, "AMBIENT_XDS_LISTEN": "127.0.0.1:15012", **environment})
    return Trust(settings, {"KUBECONFIG": str(folder / "config")}, ControlMetrics())


def test_in_a_cluster_the_root_is_kept_in_a_secret_and_the_server_certificate_comes_from_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server:
            made = trust(tmp_path, server.url)
            assert isinstance(made.issuer, OwnIssuer)
            await made.start()
            assert server.stored("Secret", "ambient-ca", "ambient-system") is not None
            await made.follow()
            await made.stop()

    asyncio.run(scenario())


def test_whoever_calls_us_by_our_service_finds_its_name_in_our_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server:
            made = trust(tmp_path, server.url, POD_NAMESPACE="mesh")
            await made.start()
            listening = await asyncio.start_server(
                lambda _, writer: writer.close(), "127.0.0.1", ssl=made.tls.context()
            )
            client = ssl.create_default_context(cadata=made.issuer.roots)
            for name in ("ambient-control.mesh.svc", "ambient-control.mesh.svc.cluster.local"):
                port = listening.sockets[0].getsockname()[1]
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
                writer.close()
            listening.close()
            await made.stop()

    asyncio.run(scenario())


def test_every_namespace_is_told_the_roots_and_a_restart_forgets_no_old_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server:
            plugged = tmp_path / "cacerts"
            plugged.mkdir()
            first = plug(plugged)
            made = trust(tmp_path, server.url, AMBIENT_CA_DIR=str(plugged))
            made.leading = lambda: True
            await made.start()
            running = asyncio.create_task(made.run())
            assert made.bundles is not None
            made.bundles.namespaces({"ambient-system", "shop"})
            await eventually(lambda: _roots(server, "shop") == first)
            second = plug(plugged)
            await made.follow()
            await eventually(lambda: _roots(server, "shop").count("BEGIN CERTIFICATE") == 2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await made.stop()
            again = trust(tmp_path, server.url, AMBIENT_CA_DIR=str(plugged))
            await again.start()
            assert first in again.issuer.roots
            assert second in again.issuer.roots
            await again.stop()

    asyncio.run(scenario())


def plug(folder: Path) -> str:
    """Another authority of somebody's own; gives its root."""
    certificate, key = make_root(datetime.now(UTC))
    for name, text in (("root-cert.pem", certificate), ("ca-cert.pem", certificate), ("ca-key.pem", key)):
        (folder / name).write_text(text)
    return certificate


def _roots(server: FakeApi, namespace: str) -> str:
    found = server.stored("ConfigMap", "istio-ca-root-cert", namespace)
    return str(found["data"]["root-cert.pem"]) if found is not None else ""


def test_an_old_root_is_trusted_as_long_as_anything_it_signed_may_live(tmp_path: Path) -> None:
    for asked, longest, days in (("1h", "90d", 90), ("90d", "180d", 180), ("120d", "90d", 120)):
        made = trust(tmp_path, "http://127.0.0.1:1", AMBIENT_ROOT_RETIRE=asked, MAX_WORKLOAD_CERT_TTL=longest)
        assert made.authority is not None
        assert made.authority._pace.retire == timedelta(days=days)


def test_an_identity_that_is_refused_is_an_event_of_the_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server:
            made = trust(tmp_path, server.url)
            await made.start()
            running = asyncio.create_task(made.run())
            wanted = Identity("cluster.local", "shop", "db")
            for _ in range(3):
                made.identity_refused(Caller("n1", "ambient-system", "ztunnel"), NotEntitled(wanted, "node", "why"))
            await eventually(lambda: server._objects.get(server.collection("Event")))
            (event,) = server._objects[server.collection("Event")].values()
            assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1"}
            assert event["reason"] == "IdentityRefused"
            assert "spiffe://cluster.local/ns/shop/sa/db" in event["note"]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await made.stop()

    asyncio.run(scenario())


def test_without_an_api_server_nothing_is_served_until_it_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as server:
            made = trust(tmp_path, server.url)
            port = await server.go_away()
            starting = asyncio.create_task(made.start())
            await asyncio.wait({starting}, timeout=0.1)
            assert not starting.done()
            assert "the Kubernetes API cannot be reached" in made.trouble
            await server.listen(port)
            await starting
            await made.stop()

    asyncio.run(scenario())


def test_a_server_certificate_that_cannot_be_renewed_is_not_asked_for_all_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with FakeApi() as server:
            made = trust(tmp_path, server.url)
            await made.start()
            made.tls = ServerCertificate(NoIssuer(lambda: "", _broken), {"x"}, ip_address("127.0.0.1"))
            for _ in range(5):
                await made.follow()
            assert caplog.text.count("server certificate not renewed: broken") == 1
            await made.stop()

    asyncio.run(scenario())


def _broken() -> Serving:
    raise Unavailable("broken")


def test_certificates_that_are_issued_elsewhere_are_refused_here_with_the_place_to_look(tmp_path: Path) -> None:
    async def scenario() -> None:
        test_serving_files.write(tmp_path)
        roots = tmp_path / "roots.pem"
        roots.write_text(make_root(datetime.now(UTC))[0])
        make_token_key(tmp_path)
        made = trust(
            tmp_path,
            AMBIENT_ISSUER="none",
            AMBIENT_ROOTS=str(roots),
            AMBIENT_SERVING_DIR=str(tmp_path),
            AMBIENT_TOKEN_KEY=str(tmp_path / "token-public.pem"),
        )
        assert isinstance(made.issuer, NoIssuer)
        await made.start()
        csr = make_csr("spiffe://cluster.local/ns/a/sa/b")
        with pytest.raises(Refused, match="CA_ADDRESS"):
            await made.issuer.issue(parse_csr(csr), csr, None)
        before = made.tls.not_after
        test_serving_files.write(tmp_path)
        await made.follow()
        assert made.tls.not_after is not None
        assert before is not None

    asyncio.run(scenario())


def test_a_signer_of_the_cluster_is_taken_where_one_is_named(tmp_path: Path) -> None:
    roots = str(tmp_path / "roots.pem")
    made = trust(
        tmp_path, "http://127.0.0.1:1", AMBIENT_ISSUER="kubernetes", AMBIENT_SIGNER="a.b/c", AMBIENT_ROOTS=roots
    )
    assert isinstance(made.issuer, KubernetesSigner)


@pytest.mark.parametrize(
    ("server", "environment", "variable"),
    [
        ("", {}, "AMBIENT_TOKEN_KEY"),
        ("", {"AMBIENT_TOKEN_KEY": "{keys}"}, "AMBIENT_CA_DIR"),
        ("http://127.0.0.1:1", {"AMBIENT_ISSUER": "kubernetes"}, "AMBIENT_ROOTS"),
        ("http://127.0.0.1:1", {"AMBIENT_ISSUER": "kubernetes", "AMBIENT_ROOTS": "/r"}, "AMBIENT_SIGNER"),
        ("http://127.0.0.1:1", {"AMBIENT_ISSUER": "none", "AMBIENT_ROOTS": "/r"}, "AMBIENT_SERVING_DIR"),
        ("http://127.0.0.1:1", {"AMBIENT_ISSUER": "none"}, "AMBIENT_ROOTS"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(
    tmp_path: Path, server: str, environment: dict[str, str], variable: str
) -> None:
    make_token_key(tmp_path)
    given = {name: value.format(keys=tmp_path / "token-public.pem") for name, value in environment.items()}
    with pytest.raises(InvalidInput, match=variable):
        trust(tmp_path, server, **given)


def test_roots_in_a_file_outlive_its_damage(tmp_path: Path) -> None:
    file = RootsFile(tmp_path / "roots.pem")
    with pytest.raises(Unavailable, match="roots"):
        file.read()
    good = make_root(datetime.now(UTC))[0]
    (tmp_path / "roots.pem").write_text(good)
    assert file.read() == good
    (tmp_path / "roots.pem").write_text("rubbish")
    assert file.read() == good
