"""Who is who on a real cluster: tokens of real pods, certificates by node, roots everywhere, objects looked at."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from cryptography import x509

from ambient.ca.csr import parse_csr
from ambient.ca.roots import make_root
from ambient.control.kubernetes_signer import REQUESTS, KubernetesSigner
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import ApiInvalid, ApiRefused
from ambient.kube.objects import resources
from ambient.xds.channel import ServerSettings
from tests.ambient.ca.test_roots import signed
from tests.support.control import create_certificate, make_csr
from tests.support.kube import SYSTEM, Kube, account, eventually, pod
from tests.support.kube_apps import client
from tests.support.signer import Signer, sign_approved

SHOP = "trust"
ROOT = "istio-ca-root-cert"


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[list[str]]:
    """One pod per node, each with an account of its own: `web-<node>`. Gives the nodes."""
    nodes = sorted({one["spec"]["nodeName"] for one in kube.ready(SYSTEM, "app=ztunnel")})
    with kube.namespace(SHOP):
        kube.apply(*(account(SHOP, f"web-{node}") for node in nodes))
        kube.apply(*(pod(SHOP, f"web-{node}", client(node=node, account=f"web-{node}")) for node in nodes))
        kube.ready(SHOP)
        yield nodes


def token(kube: Kube, namespace: str, owner: str, of_pod: str, audience: str = "istio-ca") -> str:
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", of_pod) if of_pod else ()
    for_whom = ("--audience", audience) if audience else ()
    return kube.run("-n", namespace, "create", "token", owner, *for_whom, *bound).strip()


def ztunnel_on(kube: Kube, node: str, app: str = "ztunnel") -> str:
    found = kube.all("pods", SYSTEM, labels=f"app={app}", fields=f"spec.nodeName={node}")
    name: str = found[0]["metadata"]["name"]
    return name


def patched(kube: Kube, bearer: str, folder: Path, pod: str, change: dict[str, Any]) -> str:
    """Why the API server does not let this bearer change the status of a pod of the shop; "" when it does."""
    config = yaml.safe_load(Path(kube.kubeconfig).read_text())
    config["users"] = [{**user, "user": {"token": bearer}} for user in config["users"]]
    (folder / "config").write_text(yaml.safe_dump(config))

    async def write() -> str:
        async with ApiClient.open({"KUBECONFIG": str(folder / "config")}) as api:
            try:
                await api.patch(resources("Pod")[0], pod, change, SHOP, subresource="status")
            except (ApiInvalid, ApiRefused) as error:
                return error.why
        return ""

    return asyncio.run(write())


def test_an_agent_writes_annotations_of_its_own_nodes_pods_and_nothing_else(
    kube: Kube, shop: list[str], tmp_path: Path
) -> None:
    here, there = shop[0], shop[-1]
    agent = ztunnel_on(kube, here, "ambient-agent")
    bearer = token(kube, SYSTEM, "ambient-agent", agent, audience="")
    said = {"metadata": {"annotations": {"ambient.mesh/tried": "yes"}}}
    assert patched(kube, bearer, tmp_path, f"web-{here}", said) == ""
    assert "its own node" in patched(kube, bearer, tmp_path, f"web-{there}", said)
    for change in ({"status": {"phase": "Failed"}}, {"metadata": {"labels": {"app": "another"}}}):
        assert "nothing of pods but annotations" in patched(kube, bearer, tmp_path, f"web-{here}", change)
    of_no_pod = token(kube, SYSTEM, "ambient-agent", "", audience="")
    assert "denied request" in patched(kube, of_no_pod, tmp_path, f"web-{here}", said)


def roots(kube: Kube, namespace: str) -> str:
    try:
        return str(kube.get("configmap", ROOT, namespace)["data"]["root-cert.pem"])
    except AssertionError:
        return ""


@contextmanager
def forwarded(kube: Kube, to: str) -> Iterator[int]:
    """A port of this machine that leads to a control plane."""
    argv = [kube.kubectl, "--kubeconfig", kube.kubeconfig, "-n", SYSTEM]
    process = subprocess.Popen([*argv, "port-forward", to, ":15012"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert said is not None
        yield int(said[1])
    finally:
        process.terminate()
        process.communicate()


def certificate(
    kube: Kube,
    folder: Path,
    bearer: str,
    account: str,
    *,
    namespace: str = SHOP,
    to: str = "deployment/ambient-control",
) -> list[str] | grpc.StatusCode:
    """What the authority gives for an account: a chain, or why not."""
    (folder / "token").write_text(bearer)
    (folder / "root.pem").write_text(roots(kube, SYSTEM))
    identity = f"spiffe://cluster.local/ns/{namespace}/sa/{account}"
    with forwarded(kube, to) as port:
        settings = ServerSettings(
            target=f"127.0.0.1:{port}",
            root=folder / "root.pem",
            token=folder / "token",
            hostname="istiod.istio-system.svc",
        )
        try:
            return list(asyncio.run(create_certificate(settings, make_csr(identity), identity)))
        except grpc.aio.AioRpcError as error:
            return error.code()


def test_a_ztunnel_gets_certificates_of_its_own_nodes_pods_and_no_others(
    kube: Kube, shop: list[str], tmp_path: Path
) -> None:
    here, there = shop[0], shop[-1]
    assert here != there
    bearer = token(kube, SYSTEM, "ztunnel", ztunnel_on(kube, here))
    own = certificate(kube, tmp_path, bearer, f"web-{here}")
    assert isinstance(own, list)
    assert own[-1] == roots(kube, SHOP)
    assert certificate(kube, tmp_path, bearer, f"web-{there}") is grpc.StatusCode.PERMISSION_DENIED

    def said() -> bool:
        events = kube.all("events", "default", fields=f"involvedObject.name={here}")
        return any(one["reason"] == "IdentityRefused" and f"web-{there}" in one["message"] for one in events)

    eventually(said, "for the event of the node")


def test_a_pod_gets_its_own_certificate_with_its_own_token(kube: Kube, shop: list[str], tmp_path: Path) -> None:
    name = f"web-{shop[0]}"
    bearer = token(kube, SHOP, name, name)
    assert isinstance(certificate(kube, tmp_path, bearer, name), list)
    assert certificate(kube, tmp_path, bearer, f"web-{shop[-1]}") is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("kind", ["another audience", "bound to no pod", "forged"])
def test_other_tokens_prove_nothing(kube: Kube, shop: list[str], tmp_path: Path, kind: str) -> None:
    ztunnel = ztunnel_on(kube, shop[0])
    bearer = {
        "another audience": lambda: token(kube, SYSTEM, "ztunnel", ztunnel, "https://kubernetes.default.svc"),
        "bound to no pod": lambda: token(kube, SYSTEM, "ztunnel", ""),
        "forged": lambda: token(kube, SYSTEM, "ztunnel", ztunnel)[:-8] + "AAAAAAAA",
    }[kind]()
    assert certificate(kube, tmp_path, bearer, f"web-{shop[0]}") is grpc.StatusCode.UNAUTHENTICATED


def test_every_namespace_has_the_roots_at_once_and_keeps_them(kube: Kube) -> None:
    with kube.namespace("trust-new", mesh=False) as new:
        eventually(lambda: roots(kube, new) == roots(kube, SYSTEM) != "", "for the roots")
        kube.run("-n", new, "patch", "configmap", ROOT, "-p", json.dumps({"data": {"root-cert.pem": "mallory"}}))
        eventually(lambda: roots(kube, new) == roots(kube, SYSTEM), "for the repair")
        kube.delete("configmap", ROOT, new)
        eventually(lambda: roots(kube, new) == roots(kube, SYSTEM), "for another one")
    assert roots(kube, "kube-system") == ""


def test_somebody_elses_roots_are_left_alone(kube: Kube) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"root-cert.pem": "theirs"}}
    with kube.namespace("trust-theirs", mesh=False) as namespace:
        eventually(lambda: roots(kube, namespace), "for the roots")
        label = {"istio.io/config": "true", "app.kubernetes.io/managed-by": None}
        patch = {"metadata": {"labels": label}, "data": theirs["data"]}
        kube.run("-n", namespace, "patch", "configmap", ROOT, "-p", json.dumps(patch))
        with kube.namespace("trust-later", mesh=False) as later:
            eventually(lambda: roots(kube, later) == roots(kube, SYSTEM), "for a later namespace")
            assert roots(kube, namespace) == "theirs"


def policy(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": SHOP}
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


def test_a_mistake_is_refused_when_it_is_written_with_an_example_of_right(kube: Kube, shop: list[str]) -> None:
    def refused() -> str:
        try:
            source = {"principals": ["spiffe://cluster.local/ns/a/sa/b"]}
            return kube.refusal(policy({"rules": [{"from": [{"source": source}]}]}))
        except AssertionError:
            kube.delete("authorizationpolicy", "p", SHOP)
            return ""

    eventually(refused, "for the webhook to be believed")
    assert "spec.rules[0].from[0].source.principals[0]" in refused()
    assert 'For example: ["cluster.local/ns/shop/sa/web"]' in refused()


def test_certificates_come_from_a_signer_of_the_cluster(kube: Kube) -> None:
    async def scenario() -> None:
        now = datetime.now(UTC)
        certificate_pem, key = make_root(now)
        signer = Signer(signed("intermediate", (certificate_pem.encode(), key.encode()), now=now))
        async with ApiClient.open({"KUBECONFIG": str(kube.kubeconfig)}) as api:
            controller = asyncio.create_task(sign_approved(api, signer, "example.com/trust"))
            day = timedelta(days=1)
            issuer = KubernetesSigner(api, "example.com/trust", lambda: certificate_pem, default=day, longest=day)
            csr = make_csr("spiffe://cluster.local/ns/a/sa/b")
            made = await issuer.issue(parse_csr(csr), csr, timedelta(hours=6))
            leaf = x509.load_pem_x509_certificate(made.chain[0].encode())
            assert timedelta(hours=5.9) < leaf.not_valid_after_utc - now <= timedelta(hours=6.1)
            left = (await api.list(REQUESTS))["items"]
            assert not [one for one in left if one["spec"]["signerName"] == "example.com/trust"]
            controller.cancel()
            await asyncio.gather(controller, return_exceptions=True)

    asyncio.run(scenario())
