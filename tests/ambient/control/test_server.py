"""The whole control plane over real gRPC and HTTP on loopback: objects in a folder, clients that subscribe and sign."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from ambient.errors import InvalidInput, Unavailable
from ambient.model.workload import Service, TunnelProtocol, Workload
from ambient.xds.client import DeltaClient
from ambient.xds.messages import ztunnel_node
from tests.support.control import ControlBench, Subscriber, create_certificate, make_csr, until

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: {name}}}
  annotations: {{ambient.istio.io/redirection: enabled}}
spec:
  nodeName: {node}
  serviceAccountName: {name}
  containers: [{{name: c, image: none, command: [sleep]}}]
status: {{phase: Running, podIPs: [{{ip: {ip}}}]}}
---
"""
SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ports: [{port: 80, targetPort: 8080}]}
---
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-front, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/front]}}]}]
---
"""
WEB = POD.format(name="web", node="n1", ip="10.0.1.2")
FRONT = POD.format(name="front", node="n2", ip="10.0.2.2")
WEB_UID = "Kubernetes//Pod/shop/web"


async def sync(bench: ControlBench) -> dict[str, object]:
    status, body = await bench.get("/sync")
    assert status == 200
    page: dict[str, object] = json.loads(body)
    return page


async def acknowledged(bench: ControlBench, revision: int, *names: str) -> None:
    """Wait until /sync says that these clients have acknowledged a revision."""

    async def poll() -> None:
        while True:
            clients = (await sync(bench))["clients"]
            assert isinstance(clients, dict)
            if all(name in clients and clients[name]["acked"] >= revision for name in names):
                return

    await asyncio.wait_for(poll(), 30)


def test_objects_reach_subscribers_and_their_acknowledgement_reaches_sync(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            first = bench.apply(SHOP + WEB)
            async with Subscriber(bench.client()) as ztunnel, Subscriber(bench.client(account="agent")) as agent:
                await acknowledged(bench, first, "n1/ztunnel", "n1/agent")
                web = ztunnel.view[WEB_UID]
                assert isinstance(web, Workload)
                assert web.tunnel_protocol is TunnelProtocol.HBONE
                assert isinstance(ztunnel.view["shop/web.shop.svc.cluster.local"], Service)
                second = bench.apply(POLICY + FRONT)
                await acknowledged(bench, second, "n1/ztunnel", "n1/agent")
                web = ztunnel.view[WEB_UID]
                assert isinstance(web, Workload)
                assert "shop/only-front" in web.authorization_policies
                assert "shop/only-front" in agent.view
                third = bench.folder.delete(["AuthorizationPolicy/shop/only-front"])
                await acknowledged(bench, third, "n1/ztunnel", "n1/agent")
                assert "shop/only-front" not in ztunnel.view
            page = await sync(bench)
            assert page["observed"] == third

    asyncio.run(scenario())


def test_a_policy_is_with_its_client_before_the_workload_that_names_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(SHOP + WEB)
            async with Subscriber(bench.client()) as ztunnel:
                await until(lambda: WEB_UID in ztunnel.view)  # being synced may have been with nothing at all
                seen = len(ztunnel.batches)
                await acknowledged(bench, bench.apply(POLICY), "n1/ztunnel")
                kinds = [batch.type_url.rpartition(".")[2] for batch in ztunnel.batches[seen:]]
                assert kinds == ["Authorization", "Address"]

    asyncio.run(scenario())


def test_a_client_reconnects_after_the_control_plane_came_back_and_gets_only_what_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path)
        bench.apply(SHOP + WEB)
        async with bench:
            settings = bench.client()
            ztunnel = Subscriber(settings)
            await ztunnel.__aenter__()
            await ztunnel.synced()
            noise: list[dict[str, object]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, told: noise.append(told))
        await until(lambda: ztunnel.states[-1].state == "disconnected")
        assert WEB_UID in ztunnel.view
        before = len(ztunnel.batches)
        revision = bench.apply(FRONT)
        async with bench:
            await acknowledged(bench, revision, "n1/ztunnel")
            put = [record for batch in ztunnel.batches[before:] for record in batch.put]
            assert [record.name for record in put] == ["front"]
            await ztunnel.__aexit__(None, None, None)
        gc.collect()
        await asyncio.sleep(0)
        assert not noise, "nothing of the ended stream still waited when it was destroyed"

    asyncio.run(scenario())


def test_a_later_process_continues_where_an_earlier_one_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            first = DeltaClient(ztunnel_node("n1"))
            bench.apply(SHOP + WEB)
            async with Subscriber(bench.client(), core=first) as earlier:
                await until(lambda: WEB_UID in earlier.view)
            bench.folder.delete(["Pod/shop/web"])
            second = DeltaClient(ztunnel_node("n1"), versions=first.versions())
            async with Subscriber(bench.client(), core=second) as later:
                later.view.update(earlier.view)
                await until(lambda: WEB_UID not in later.view)
                assert not any(batch.put for batch in later.batches)

    asyncio.run(scenario())


def test_a_change_of_a_pods_status_alone_is_pushed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            revision = bench.apply(SHOP + WEB.replace("ambient.istio.io/redirection: enabled", ""))
            async with Subscriber(bench.client()) as ztunnel:
                await acknowledged(bench, revision, "n1/ztunnel")
                web = ztunnel.view[WEB_UID]
                assert isinstance(web, Workload)
                assert web.tunnel_protocol is TunnelProtocol.NONE
                writer = bench.folder.status("agent-n1")
                writer.annotate("Pod/shop/web", {"ambient.istio.io/redirection": "enabled"})
                await until(lambda: getattr(ztunnel.view[WEB_UID], "tunnel_protocol", None) is TunnelProtocol.HBONE)
                await acknowledged(bench, revision, "n1/ztunnel")
                writers = (await sync(bench))["writers"]
                assert isinstance(writers, dict)
                assert writers["agent-n1"] == 1

    asyncio.run(scenario())


def test_pods_get_certificates_on_their_node_and_nowhere_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(SHOP + WEB + FRONT)
            identity = "spiffe://cluster.local/ns/shop/sa/web"
            chain = await create_certificate(bench.client("n1"), make_csr(identity), identity, 3600)
            leaf = x509.load_pem_x509_certificate(chain[0].encode())
            root = x509.load_pem_x509_certificate((bench.ca / "root-cert.pem").read_bytes())
            leaf.verify_directly_issued_by(root)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert names.critical
            assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [identity]
            assert chain[-1] == (bench.ca / "root-cert.pem").read_text()

    asyncio.run(scenario())


def test_every_kind_of_page_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            assert (await bench.get("/ready"))[0] == 200
            bench.apply(SHOP + WEB)
            async with Subscriber(bench.client()) as ztunnel:
                await ztunnel.synced()
                await until(lambda: bench.plane.reconciler.observed >= 1)
                await acknowledged(bench, 1, "n1/ztunnel")
                _, metrics = await bench.get("/metrics")
                assert b"pilot_xds 1.0" in metrics
                assert b'ambient_control_resources{type="Address"} 2.0' in metrics
                assert b"pilot_proxy_convergence_time_count" in metrics
                _, body = await bench.get("/debug/syncz")
                (entry,) = json.loads(body)
                assert entry["proxy"] == "n1/ztunnel"
                for state in entry["resources"].values():
                    assert state["sent"] == state["acked"] != ""

    asyncio.run(scenario())


def test_a_second_control_plane_on_the_same_port_is_an_error_not_a_silent_half(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with ControlBench(tmp_path / "a") as bench:
            other = ControlBench(tmp_path / "b")
            other.port = bench.port
            with pytest.raises(Unavailable, match="cannot listen"):
                await other.__aenter__()

    asyncio.run(scenario())


def test_a_new_root_is_used_without_a_restart_and_both_roots_are_given_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(SHOP + WEB)
            old = (bench.ca / "root-cert.pem").read_text()
            bench.new_root()
            await bench.plane.trust.follow()
            identity = "spiffe://cluster.local/ns/shop/sa/web"
            chain = await create_certificate(bench.client("n1"), make_csr(identity), identity)
            roots = x509.load_pem_x509_certificates(chain[-1].encode())
            assert len(roots) == 2
            assert old in chain[-1]
            x509.load_pem_x509_certificate(chain[0].encode()).verify_directly_issued_by(roots[0])

    asyncio.run(scenario())


def test_a_broken_ca_folder_leaves_the_old_authority_at_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(SHOP + WEB)
            settings = bench.client("n1")
            good = (bench.ca / "root-cert.pem").read_text()
            (bench.ca / "root-cert.pem").write_text("rubbish")
            await bench.plane.trust.follow()
            (bench.ca / "root-cert.pem").write_text(good)
            identity = "spiffe://cluster.local/ns/shop/sa/web"
            assert len(await create_certificate(settings, make_csr(identity), identity)) == 2

    asyncio.run(scenario())


def test_the_process_starts_makes_a_root_of_its_own_and_ends_on_sigterm(tmp_path: Path) -> None:
    bench = ControlBench(tmp_path)
    for name in ("root-cert.pem", "root-key.pem"):
        (bench.ca / name).unlink()
    environment = {
        **os.environ, **bench.environment, "AMBIENT_XDS_LISTEN": "127.0.0.1:0", "AMBIENT_HTTP_LISTEN": "127.0.0.1:0",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "ambient.control"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "revision" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0, lines
    process.stderr.close()
    assert stat.S_IMODE((bench.ca / "root-key.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in "".join(lines)


def test_the_process_refuses_bad_settings_by_name(tmp_path: Path) -> None:
    bench = ControlBench(tmp_path)
    environment = {**os.environ, **bench.environment, "AMBIENT_XDS_LISTEN": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "ambient.control"], env=environment, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert "AMBIENT_XDS_LISTEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_usable_authority_there_is_no_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path)
        (bench.ca / "root-key.pem").write_text("rubbish")
        with pytest.raises(InvalidInput, match=r"root-key\.pem"):
            await bench.__aenter__()

    asyncio.run(scenario())
