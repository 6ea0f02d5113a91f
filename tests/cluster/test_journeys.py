"""The journeys of the one-machine demo, on a real cluster with real kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab.plan import Plan
from tests.support import kube as objects
from tests.support.bridge import Bridge
from tests.support.kube import Kube, account, address, eventually, is_ready, pod, policy, redirection, service
from tests.support.kube_apps import PORTS, client, server

SHOP, OUTSIDE = "journeys", "journeys-outside"


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[str]:
    """db on one node; web and guest on another; visitor is in no mesh."""
    nodes = [node["metadata"]["name"] for node in kube.all("nodes")]
    with kube.namespace(SHOP), kube.namespace(OUTSIDE, mesh=False):
        kube.apply(
            *(account(SHOP, name) for name in ("db", "web", "guest")),
            service(SHOP, "db", **PORTS),
            pod(SHOP, "db", server(kube, node=nodes[0], account="db")),
            pod(SHOP, "web", client(node=nodes[-1], account="web")),
            pod(SHOP, "guest", client(node=nodes[-1], account="guest")),
            pod(OUTSIDE, "visitor", client(node=nodes[-1])),
        )
        kube.ready(SHOP)
        kube.ready(OUTSIDE)
        yield SHOP


URL = f"http://db.{SHOP}/id"


def test_pods_of_a_labelled_namespace_are_in_the_mesh_and_say_so(kube: Kube, shop: str) -> None:
    eventually(lambda: {redirection(one) for one in kube.all("pods", shop)} == {"enabled"}, "for the annotations")
    assert redirection(kube.get("pod", "visitor", OUTSIDE)) == ""


def test_between_nodes_there_are_only_tunnels(kube: Kube, shop: str, lab: Plan) -> None:
    mesh = [address(kube.get("pod", name, shop)) for name in ("web", "db")]
    plain = [address(kube.get("pod", "visitor", OUTSIDE)), mesh[1]]
    with Bridge(lab.bridge, lab.pods, lab.api_address) as wire:
        assert kube.fetch(shop, "web", f"http://db.{shop}:80/id?word=swordfish")
        assert kube.fetch(OUTSIDE, "visitor", f"http://db.{shop}:80/id?word=herring")
    assert wire.tunnelled(mesh)
    assert wire.plain(mesh) == []
    assert b"swordfish" not in wire.raw
    # The same capture sees what is not in the mesh.
    assert wire.plain(plain)
    assert b"herring" in wire.raw


def test_the_server_sees_its_clients_own_address(kube: Kube, shop: str) -> None:
    said = kube.fetch(shop, "web", URL)
    assert said is not None
    assert json.loads(said)["peer"] == address(kube.get("pod", "web", shop))


@pytest.mark.parametrize("name", ["db", f"db.{SHOP}", f"db.{SHOP}.svc", f"db.{SHOP}.svc.cluster.local"])
def test_names_of_services_lead_to_them(kube: Kube, shop: str, name: str) -> None:
    assert kube.fetch(shop, "web", f"http://{name}/id")


def test_a_name_that_nobody_has_is_not_found(kube: Kube, shop: str) -> None:
    done = kube.exec(shop, "web", "curl", "-sS", "-m", "8", "http://nobody.nowhere.svc.cluster.local/")
    assert done.returncode == 6, done.stderr


def test_a_policy_refuses_one_client_and_lets_the_other_through(kube: Kube, shop: str) -> None:
    assert kube.fetch(shop, "guest", URL)
    source = {"source": {"principals": [f"cluster.local/ns/{shop}/sa/guest"]}}
    deny = policy("AuthorizationPolicy", shop, "no-guests", {"action": "DENY", "rules": [{"from": [source]}]})
    kube.apply(deny)
    eventually(lambda: kube.fetch(shop, "guest", URL) is None, "for the guest to be refused")
    assert kube.fetch(shop, "web", URL)
    eventually(lambda: _accepted(kube, shop, "no-guests"), "for the policy's status")
    kube.delete("authorizationpolicy", "no-guests", shop)
    eventually(lambda: kube.fetch(shop, "guest", URL), "for the guest to be let in again")


def test_a_policy_lets_only_one_client_through(kube: Kube, shop: str) -> None:
    source = {"source": {"principals": [f"cluster.local/ns/{shop}/sa/web"]}}
    spec = {"selector": {"matchLabels": {"app": "db"}}, "action": "ALLOW", "rules": [{"from": [source]}]}
    kube.apply(policy("AuthorizationPolicy", shop, "only-web", spec))
    eventually(lambda: kube.fetch(shop, "guest", URL) is None, "for the guest to be refused")
    assert kube.fetch(OUTSIDE, "visitor", URL) is None
    assert kube.fetch(shop, "web", URL)
    kube.delete("authorizationpolicy", "only-web", shop)
    eventually(lambda: kube.fetch(shop, "guest", URL), "for the guest to be let in again")


def test_strict_refuses_who_has_no_identity_and_lets_the_kubelet_probe(kube: Kube, shop: str) -> None:
    assert kube.fetch(OUTSIDE, "visitor", URL)
    kube.apply(policy("PeerAuthentication", shop, "strict", {"mtls": {"mode": "STRICT"}}))
    eventually(lambda: kube.fetch(OUTSIDE, "visitor", URL) is None, "for the visitor to be refused")
    said = kube.fetch(shop, "web", URL)
    assert said is not None
    probes = json.loads(said)["probes"]

    def probed() -> bool:
        answer = kube.fetch(shop, "web", URL)
        return answer is not None and json.loads(answer)["probes"] > probes + 2

    eventually(probed, "for probes under STRICT")
    assert is_ready(kube.get("pod", "db", shop))
    kube.delete("peerauthentication", "strict", shop)
    eventually(lambda: kube.fetch(OUTSIDE, "visitor", URL), "for the visitor to be let in again")


def test_a_policy_that_cannot_be_understood_is_refused_by_name(kube: Kube, shop: str) -> None:
    broken = {"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/99"]}}]}]}
    kube.run("apply", "--validate=false", "-f", "-", given=json.dumps(_unchecked(shop, broken)), check=False)
    found = kube.all("authorizationpolicies", shop)
    if found:
        eventually(lambda: "10.0.0.0/99" in json.dumps(kube.all("authorizationpolicies", shop)), "for its status")
    kube.delete("authorizationpolicy", "broken", shop)


def _unchecked(namespace: str, spec: objects.Object) -> objects.Object:
    return policy("AuthorizationPolicy", namespace, "broken", spec)


def test_what_happened_can_be_read_in_metrics_logs_and_flows(kube: Kube, shop: str, tmp_path: Path) -> None:
    assert kube.fetch(shop, "web", URL)
    node = kube.get("pod", "db", shop)["spec"]["nodeName"]
    ztunnel = kube.all("pods", "ambient-system", labels="app=ztunnel", fields=f"spec.nodeName={node}")[0]
    name = ztunnel["metadata"]["name"]
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:15020/metrics').read().decode())"

    def counted() -> bool:
        said = kube.exec("ambient-system", name, "python3", "-c", script).stdout
        wanted = ("istio_tcp_connections_opened_total", f'source_principal="spiffe://cluster.local/ns/{shop}/sa/web"')
        return any(all(word in line for word in wanted) for line in said.splitlines())

    eventually(counted, "for the metric")
    log = kube.run("-n", "ambient-system", "logs", name, "--tail=-1")
    assert f'src.identity="spiffe://cluster.local/ns/{shop}/sa/web"' in log
    flows = kube.ambient("flows", "-o", "json", f"to={shop}/db")
    assert flows.returncode == 0, flows.stderr
    assert f"ns/{shop}/sa/web" in flows.stdout


def test_the_command_line_finds_the_mesh_healthy(kube: Kube, shop: str) -> None:
    checked = kube.ambient("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    explained = kube.ambient("explain", f"{shop}/web", f"{shop}/db:8080")
    assert explained.returncode == 0, explained.stdout + explained.stderr


def _accepted(kube: Kube, namespace: str, name: str) -> bool:
    status = kube.get("authorizationpolicy", name, namespace).get("status", {})
    return any(one["status"] == "True" for one in status.get("conditions", ()))
