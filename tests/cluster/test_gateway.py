"""An ingress gateway on a cluster, from its Gateway to its end: clients outside, its identity inside, certificates from
Secrets that change under load, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography import x509

from ambient.waypoint.deploy import GATEWAY_NAME
from tests.support.gateway_records import secret, site
from tests.support.kube import Kube, Object, account, eventually, pod, pod_spec, policy, service
from tests.support.kube_apps import Load, client
from tests.support.kube_gateways import (
    HTTP,
    backend_tls,
    front,
    host,
    https,
    listener,
    may_read_certificates,
    on_gateway,
    proves,
    resolved,
    tls_server,
)
from tests.support.kube_waypoints import ECHO, GATEWAY, answers, conditions, http_service, programmed, status
from tests.support.tunnel_certs import Authority

SPACE = "gateways"
OUTSIDE = "beyond"
NAME = host(SPACE)
URL = f"http://{NAME}/id"
SOME = 100
"""Requests that have to go well before and after something happens."""
MADE = ("serviceaccount/front-ambient", "service/front-ambient", "deployment.apps/front-ambient")


def only_the_gateway() -> Object:
    """At the pod's ztunnel: whoever comes otherwise is refused."""
    source = {"principals": [f"cluster.local/ns/{SPACE}/sa/front-ambient"]}
    return policy("AuthorizationPolicy", SPACE, "only", {"action": "ALLOW", "rules": [{"from": [{"source": source}]}]})


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[str]:
    """web in the mesh, its clients outside of it."""
    nodes = [node["metadata"]["name"] for node in kube.all("nodes")]
    probe = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    web = pod_spec(("python3", "-c", ECHO), kube.image, node=nodes[0], account="web", **probe)
    idle = pod_spec(("sleep", "infinity"), kube.image, node=nodes[-1])
    with kube.namespace(SPACE), kube.namespace(OUTSIDE, mesh=False):
        kube.apply(
            account(SPACE, "web"),
            http_service(SPACE, "web", "web"),
            pod(SPACE, "web", web),
            pod(OUTSIDE, "client", client(node=nodes[-1])),
            pod(OUTSIDE, "prober", idle),
            front(SPACE),
            on_gateway(SPACE, "web"),
        )
        kube.ready(SPACE)
        kube.ready(OUTSIDE)
        eventually(lambda: programmed(kube, SPACE, "front"), "for the Gateway to be programmed")
        yield SPACE


def test_clients_from_outside_get_in_and_the_gateway_is_who_asks(kube: Kube, shop: str) -> None:
    answers(kube, OUTSIDE, "client", URL, 200)
    assert status(kube, OUTSIDE, "client", f"http://web.{SPACE}/id") == 200
    kube.apply(only_the_gateway())
    answers(kube, OUTSIDE, "client", f"http://web.{SPACE}/id", 0)
    assert status(kube, OUTSIDE, "client", URL) == 200


def test_what_is_said_of_a_gateway_is_what_is_there(kube: Kube, shop: str) -> None:
    found = kube.get("gateway", "front", SPACE)
    service = kube.get("service", "front-ambient", SPACE)
    assert found["status"]["addresses"] == [{"type": "IPAddress", "value": service["spec"]["clusterIP"]}]
    said = found["status"]["conditions"]
    assert {one["type"] for one in said if one["status"] == "True"} >= {"Accepted", "Programmed"}
    assert {one["observedGeneration"] for one in said} == {found["metadata"]["generation"]}
    assert listener(kube, SPACE, "http")["attached"] == 1
    accepted = kube.get("gatewayclass", "ambient")["status"]["conditions"]
    assert [one["status"] for one in accepted if one["type"] == "Accepted"] == ["True"]
    assert f"gateway {SPACE}/front: 1 proxy, up to date" in kube.ambient("status").stdout


def test_a_certificate_is_used_once_its_namespace_permits_it_and_others_do_not_wait(kube: Kube, shop: str) -> None:
    leaf = site("front.example")
    kube.apply(secret("site", leaf, namespace=SPACE))
    kube.apply(front(SPACE, HTTP, https("good", 443, "site"), https("bad", 8443, "none")))
    eventually(lambda: "may not read" in listener(kube, SPACE, "good").get("ResolvedRefs", ("", "", ""))[2],
               "for the condition")  # fmt: skip
    assert status(kube, OUTSIDE, "client", URL) == 200
    may_read_certificates(kube, SPACE)
    eventually(lambda: resolved(kube, SPACE, "good"), "for the Secret to be read")
    proves(kube, OUTSIDE, "prober", NAME, 443, leaf.chain)
    eventually(lambda: "there is no Secret" in listener(kube, SPACE, "bad")["ResolvedRefs"][2], "for the condition")
    bad = listener(kube, SPACE, "bad")
    assert bad["ResolvedRefs"][:2] == ("False", "InvalidCertificateRef")
    assert bad["Programmed"][0] == "False"
    assert status(kube, OUTSIDE, "client", f"https://{NAME}:8443/id", "-k") == 0


def test_a_secret_that_changes_is_in_use_at_once_and_no_connection_ends(kube: Kube, shop: str) -> None:
    kept = Load(kube, OUTSIDE, "kept", NAME, port=443, tls=True, keep=True)
    fresh = Load(kube, OUTSIDE, "fresh", NAME, port=443, tls=True)
    after = site("front.example")
    kube.apply(secret("site", after, namespace=SPACE))
    proves(kube, OUTSIDE, "prober", NAME, 443, after.chain)
    for load in (kept, fresh):
        load.more(SOME)
        failures = load.failures()
        assert not failures, f"{len(failures)}: {failures[:5]}"


def test_an_application_is_spoken_to_in_tls_as_its_policy_says_and_not_without_who_vouches_for_it(
    kube: Kube, shop: str
) -> None:
    def authority(roots: str) -> Object:
        metadata = {"name": "partners", "namespace": SPACE}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": roots}}

    def said() -> dict[str, str]:
        ancestors = kube.get("backendtlspolicy", "safe", SPACE).get("status", {}).get("ancestors", ())
        return {one["type"]: one["reason"] for each in ancestors for one in each["conditions"]}

    may_read_certificates(kube, SPACE)
    mint = Authority("partners").mint
    leaf = mint.leaf(names=[x509.DNSName("safe.example")], usages=("server",))
    kube.apply(
        authority(mint.roots),
        backend_tls(SPACE, "safe", "safe.example", "partners"),
        service(SPACE, "safe", https=(443, 8443)),
        pod(SPACE, "safe", tls_server(kube, leaf)),
        on_gateway(SPACE, "safe", path="/safe", port=443),
    )
    kube.ready(SPACE, "app=safe")
    safe = f"http://{NAME}/safe"
    answers(kube, OUTSIDE, "client", safe, 200)
    eventually(lambda: said() == {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}, "for the conditions")
    kube.apply(authority(Authority("strangers").roots))
    answers(kube, OUTSIDE, "client", safe, 503)
    kube.apply(authority(mint.roots))
    answers(kube, OUTSIDE, "client", safe, 200)
    kube.delete("configmap", "partners", SPACE)
    answers(kube, OUTSIDE, "client", safe, 503)
    eventually(lambda: said().get("Accepted") == "NoValidCACertificate", "for the condition")
    assert status(kube, OUTSIDE, "client", URL) == 200
    kube.delete("httproute", "front-safe", SPACE)


def test_a_rollout_of_the_gateway_loses_no_request(kube: Kube, shop: str) -> None:
    load = Load(kube, OUTSIDE, "load", NAME)
    load.more(SOME)
    kube.run("-n", SPACE, "rollout", "restart", "deployment/front-ambient")
    kube.rolled_out("deployment/front-ambient", namespace=SPACE)
    eventually(
        lambda: len(kube.all("pods", SPACE, labels=f"{GATEWAY_NAME}=front")) == 1, "for the one before to be gone"
    )
    load.more(SOME)
    failures = load.failures()
    assert not failures, f"{len(failures)}: {failures[:5]}"
    for name in ("load", "fresh"):
        kube.delete("pod", name, OUTSIDE, wait=False)
    # Their pod was replaced: who would have told of an ended connection does.
    assert Load.failures_of(kube, OUTSIDE, "kept")
    kube.delete("pod", "kept", OUTSIDE, wait=False)


def test_a_policy_for_a_gateway_is_in_force_and_one_for_somebody_elses_says_that_it_is_not(
    kube: Kube, shop: str
) -> None:
    theirs = {"apiVersion": GATEWAY, "kind": "GatewayClass", "metadata": {"name": "theirs"}}
    kube.apply({**theirs, "spec": {"controllerName": "istio.io/gateway-controller"}})
    kube.apply(front(SPACE, name="other", of_class="theirs"))
    for name in ("front", "other"):
        refs = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}]
        rules = [{"to": [{"operation": {"paths": ["/secret"]}}]}]
        kube.apply(policy("AuthorizationPolicy", SPACE, name, {"targetRefs": refs, "action": "DENY", "rules": rules}))
    answers(kube, OUTSIDE, "client", f"http://{NAME}/secret", 403)
    assert status(kube, OUTSIDE, "client", URL) == 200

    def said(name: str) -> dict[str, str]:
        listed = kube.get("authorizationpolicy", name, SPACE).get("status", {}).get("conditions", ())
        return {one["type"]: one["reason"] for one in listed}

    eventually(lambda: said("front").get("WaypointAccepted") == "Accepted", "for the condition")
    eventually(lambda: said("other").get("WaypointAccepted") == "AncestorNotBound", "for the condition")
    ours = [one for one in conditions(kube, SPACE, "other").values() if one[1] != "Waiting for controller"]
    assert ours == []
    assert "other" not in kube.run("-n", SPACE, "get", "deployments", "-o", "name")
    kube.delete("gateway", "other", SPACE, wait=False)
    kube.delete("gatewayclass", "theirs", wait=False)


def test_without_its_proxy_nobody_gets_in_and_it_comes_back(kube: Kube, shop: str) -> None:
    kube.run("-n", SPACE, "scale", "deployment/front-ambient", "--replicas=0")
    kube.run("-n", SPACE, "delete", "pods", "-l", f"{GATEWAY_NAME}=front", "--force", "--grace-period=0")
    answers(kube, OUTSIDE, "client", URL, 0)
    eventually(lambda: not programmed(kube, SPACE, "front"), "for the Gateway to say so")
    kube.run("-n", SPACE, "scale", "deployment/front-ambient", "--replicas=1")
    answers(kube, OUTSIDE, "client", URL, 200)


def test_with_its_gateway_everything_goes(kube: Kube, shop: str) -> None:
    kube.delete("gateway", "front", SPACE)

    def left() -> set[str]:
        listed = kube.run("-n", SPACE, "get", "serviceaccounts,services,deployments", "-o", "name").split()
        return set(listed) & set(MADE)

    eventually(lambda: not left(), "for everything of it to be gone")
    answers(kube, OUTSIDE, "client", URL, 0)
