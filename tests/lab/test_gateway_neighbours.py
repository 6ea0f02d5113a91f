"""What stands before a gateway, or in its place: a load balancer that ends TLS, and an ingress controller of another
make that is kept. Both are stock Envoys with a configuration of their own, and know nothing of us.

Each thing that is believed has beside it the same from somebody who is not.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ambient.kube.objects import Service
from ambient.waypoint.typed import typed
from tests.support.gateway_lab import (
    HTTP,
    IDENTITY,
    POD,
    ask,
    at_gateway,
    gateway_lab,
    guarded_yaml,
    ingress_yaml,
    removed,
    route_yaml,
    settled,
    to,
)
from tests.support.lab import SLEEP, LabUnderTest, object_yaml, pod_yaml, until
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_lab import (
    GATEWAY_VERSION,
    POLICY_VERSION,
    account_yaml,
    apply,
    policy_yaml,
    ready,
    server_yaml,
    status,
)

HOST = "site.example.com"
SITES = Authority("sites").mint
BALANCER, CONTROLLER = "outside/balancer", "shop/controller"
CONTROLLERS_OWN = "cluster.local/ns/shop/sa/controller"
BY_HEADER, BY_PROXY = 8443, 8444
"""Ports of the balancer, by how it says who its client is."""
LISTENERS = [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]
FOR_ALL = object_yaml(
    GATEWAY_VERSION,
    "Gateway",
    "waypoint",
    "shop",
    labels={"istio.io/waypoint-for": "all"},
    spec={"gatewayClassName": "istio-waypoint", "listeners": LISTENERS},
)
"""The waypoint, for pods that are called by their own addresses as well."""
BEHIND = {"ambient.mesh/trusted-proxies": "1"}
BEHIND_BYTES = {"ambient.mesh/proxy-protocol": "true"}


def requests(cluster: str) -> dict[str, Any]:
    """Adds its client's address to x-forwarded-for, as a proxy at an edge does."""
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}
    router = typed("envoy.filters.http.router", "filters.http.router.v3.Router")
    return typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        use_remote_address=True,
        route_config={"virtual_hosts": [host]},
        http_filters=[router],
    )


def listener(port: int, end: dict[str, Any], tls: dict[str, Any] | None = None) -> dict[str, Any]:
    chain = {"filters": [end], **({"transport_socket": tls} if tls else {})}
    address = {"socket_address": {"address": "0.0.0.0", "port_value": port}}
    return {"name": f"l{port}", "address": address, "filter_chains": [chain]}


def cluster(name: str, address: str, port: int, socket: dict[str, Any] | None = None) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
    made = {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {**made, "transport_socket": socket} if socket else made


def envoy(*listeners: dict[str, Any], clusters: tuple[dict[str, Any], ...]) -> list[str]:
    config = {"static_resources": {"listeners": list(listeners), "clusters": list(clusters)}}
    words = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "error")
    return [str(Path(sys.executable).with_name("envoy")), *words, "--config-yaml", json.dumps(config)]


def balancer_yaml(gateway: str) -> str:
    """Ends TLS before the gateway at this address."""
    leaf = SITES.leaf(names=[x509.DNSName(HOST)], usages=("server",))
    own = {"certificate_chain": {"inline_string": leaf.chain}, "private_key": {"inline_string": leaf.key}}
    common = {"tls_certificates": [own]}
    tls = typed("tls", "transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=common)
    plain = typed("raw", "transport_sockets.raw_buffer.v3.RawBuffer")
    told = typed(
        "proxy",
        "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        config={"version": "V2"},
        transport_socket=plain,
    )
    carried = typed("tcp", "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="in", cluster="bytes")
    command = envoy(
        listener(BY_HEADER, requests("gateway"), tls),
        listener(BY_PROXY, carried, tls),
        clusters=(cluster("gateway", gateway, 80), cluster("bytes", gateway, 80, told)),
    )
    return pod_yaml(BALANCER, command, node="n1", readiness={"tcpSocket": {"port": BY_PROXY}, "periodSeconds": 1})


def controller_yaml(service: str) -> str:
    """Sends everything to a service at this address: a client of it like any other."""
    command = envoy(listener(8080, requests("service")), clusters=(cluster("service", service, 80),))
    ready_when = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    return pod_yaml(CONTROLLER, command, node="n1", account="controller", readiness=ready_when)


def roots(lab: LabUnderTest) -> Path:
    """A file that pods see as well."""
    return Path(tempfile.gettempdir()) / f"{lab.name}-roots.pem"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    more = account_yaml("controller") + pod_yaml("outside/other", SLEEP, node="n2")
    inside = pod_yaml("shop/client", SLEEP, node="n1", account="client")
    scene = guarded_yaml() + route_yaml("all", to("web")) + more + inside
    with gateway_lab(scene) as lab:
        ready(lab, "shop/waypoint")
        guarded = lab.lab.records().find(Service, "shop", "guarded")
        assert guarded is not None
        try:
            roots(lab).write_text(SITES.roots)
            lab.apply(balancer_yaml(lab.ip(POD)) + controller_yaml(str(guarded.cluster_ips[0])))
            lab.wait_ready(timeout_s=60)
            yield lab
        finally:
            roots(lab).unlink(missing_ok=True)


def balanced(
    lab: LabUnderTest, *words: str, port: int = BY_HEADER, pod: str = "outside/client"
) -> tuple[int, dict[str, Any]]:
    """By HTTPS to the load balancer: status, and what the application heard."""
    where = ["--resolve", f"{HOST}:{port}:{lab.ip(BALANCER)}", "--cacert", str(roots(lab))]
    url = f"https://{HOST}:{port}/"
    done = lab.exec(pod, "curl", "-s", "-m", "20", "-w", "\n%{http_code}", *where, *words, url)
    body, _, code = done.stdout.rpartition("\n")
    return int(code or 0), json.loads(body) if code == "200" else {}


def codes(lab: LabUnderTest, *words: str, port: int = BY_HEADER) -> list[int]:
    """Of two clients, by way of the load balancer."""
    return [balanced(lab, *words, port=port, pod=f"outside/{name}")[0] for name in ("client", "other")]


def denied(lab: LabUnderTest, **source: list[str]) -> str:
    """A policy for the gateway."""
    text = at_gateway("one", "DENY", {"from": [{"source": source}]})
    settled(lab, text)
    return text


def test_behind_a_load_balancer_that_ends_tls_the_client_is_who_that_says_and_nobody_else(lab: LabUnderTest) -> None:
    spoofed = ("-H", "x-forwarded-for: 192.0.2.1")
    client, balancer = lab.ip("outside/client"), lab.ip(BALANCER)
    # Nobody has said that what comes from there is to be believed: the client is who is connected.
    denied(lab, remoteIpBlocks=[client])
    assert codes(lab) == [200, 200]
    denied(lab, remoteIpBlocks=[balancer])
    assert codes(lab) == [403, 403]
    settled(lab, ingress_yaml(annotations=BEHIND))
    denied(lab, remoteIpBlocks=[client])
    # Connections that the load balancer has had open are of the listener before, until that has drained.
    until("what it says is believed", lambda: codes(lab) == [403, 200])
    # The address that a client gives himself is not the one that counts, neither to help nor to harm.
    assert codes(lab, *spoofed) == [403, 200]
    denied(lab, remoteIpBlocks=["192.0.2.1"])
    assert codes(lab, *spoofed) == [200, 200]
    _, heard = balanced(lab, *spoofed)
    assert heard["headers"]["x-forwarded-for"].replace(" ", "").split(",")[:2] == ["192.0.2.1", client]
    assert heard["headers"]["x-forwarded-proto"] == "https"
    # Who goes past the load balancer could say anything, so he is kept out.
    policy = denied(lab, notIpBlocks=[balancer])
    assert (ask(lab, HOST)[0], ask(lab, HOST, *spoofed)[0], codes(lab)) == (403, 403, [200, 200])
    removed(lab, policy)
    settled(lab, ingress_yaml())


def test_behind_a_load_balancer_that_sends_a_proxy_header_the_client_is_who_that_says(lab: LabUnderTest) -> None:
    client = lab.ip("outside/client")
    # Where nobody has said that there is one, what begins with such a header is no request.
    assert [code == 200 for code in codes(lab, port=BY_PROXY)] == [False, False]
    settled(lab, ingress_yaml(annotations=BEHIND_BYTES))
    denied(lab, remoteIpBlocks=[client])
    until("what it says is believed", lambda: codes(lab, port=BY_PROXY) == [403, 200])
    # A header of HTTP says nothing here, and who sends none of the balancer's is not let in at all.
    assert codes(lab, "-H", "x-forwarded-for: 192.0.2.1", port=BY_PROXY) == [403, 200]
    assert ask(lab, HOST, pod="outside/other")[0] == 0
    # Who goes past the load balancer could write such a header himself, so he is kept out.
    assert ask(lab, HOST, "--haproxy-protocol", pod="outside/other")[0] == 200
    policy = denied(lab, notIpBlocks=[lab.ip(BALANCER)])
    assert ask(lab, HOST, "--haproxy-protocol", pod="outside/other")[0] == 403
    assert codes(lab, port=BY_PROXY) == [200, 200]
    _, heard = balanced(lab, port=BY_PROXY)
    assert heard["headers"]["x-forwarded-for"].endswith(client)
    removed(lab, policy)
    settled(lab, ingress_yaml())
    until("it takes requests without such a header", lambda: ask(lab, HOST)[0] == 200)


def test_pods_of_a_service_without_an_address_are_reached_through_the_waypoint_that_they_have(
    lab: LabUnderTest,
) -> None:
    spec = {"clusterIP": "None", "selector": {"tier": "bare"}, "ports": [HTTP]}
    bare = object_yaml("v1", "Service", "bare", "shop", spec=spec)
    lab.apply(bare + server_yaml("bare-1", tier="bare") + route_yaml("bare", to("bare"), hosts=("bare.example.com",)))
    until("it is reached", lambda: ask(lab, "bare.example.com")[0] == 200)
    assert ask(lab, "bare.example.com")[1]["peer"] == lab.ip(POD)
    lab.apply(FOR_ALL + server_yaml("bare-1", tier="bare", **{"istio.io/use-waypoint": "waypoint"}))
    own = lab.ip("shop/waypoint")
    until("it is reached through its waypoint", lambda: ask(lab, "bare.example.com")[1].get("peer") == own)
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
    rules = [{"from": [{"source": {"principals": [IDENTITY]}}], "to": [{"operation": {"paths": ["/admin"]}}]}]
    denying = {"targetRefs": [ref], "action": "DENY", "rules": rules}
    policy = object_yaml(POLICY_VERSION, "AuthorizationPolicy", "bare", "shop", spec=denying)
    apply(lab, policy)
    assert [ask(lab, "bare.example.com", path=path)[0] for path in ("admin", "free")] == [403, 200]
    lab.delete(policy)
    ready(lab)


def by_controller(lab: LabUnderTest) -> int:
    return status(lab, "outside/client", url=f"http://{lab.ip(CONTROLLER)}:8080/")


def test_an_ingress_controller_that_is_kept_is_a_client_with_an_identity_of_its_own(lab: LabUnderTest) -> None:
    done = lab.exec("outside/client", "curl", "-s", "-m", "20", f"http://{lab.ip(CONTROLLER)}:8080/a")
    heard = json.loads(done.stdout)
    # What it sends goes through the waypoint, though it knows of none.
    assert (heard["pod"], heard["peer"], heard["path"]) == ("guarded-1", lab.ip("shop/waypoint"), "/a")
    assert lab.ip("outside/client") in heard["headers"]["x-forwarded-for"]
    inside = "http://guarded.shop/"
    only = {"from": [{"source": {"principals": [CONTROLLERS_OWN]}}]}
    apply(lab, policy_yaml("only", "ALLOW", only, service="guarded"))
    assert (by_controller(lab), status(lab, "shop/client", url=inside)) == (200, 403)
    apply(lab, policy_yaml("only", "DENY", only, service="guarded"))
    assert (by_controller(lab), status(lab, "shop/client", url=inside)) == (403, 200)
    # By method and path, too, for it is a request like any other.
    reading = {**only, "to": [{"operation": {"paths": ["/admin*"]}}]}
    apply(lab, policy_yaml("only", "DENY", reading, service="guarded"))
    url = f"http://{lab.ip(CONTROLLER)}:8080"
    assert [status(lab, "outside/client", url=f"{url}/{path}") for path in ("admin", "free")] == [403, 200]
    lab.delete(policy_yaml("only", "DENY", service="guarded"))
    ready(lab)


def test_with_the_waypoint_killed_a_controller_gets_nothing_from_the_service_behind_it(lab: LabUnderTest) -> None:
    assert by_controller(lab) == 200
    before = lab.status_of("shop/waypoint")
    for name in ("STOP", "KILL"):
        for pid in before["pids"]:
            lab.signal(pid, name)
        if name == "STOP":
            assert by_controller(lab) != 200
    until("it was started anew", lambda: lab.status_of("shop/waypoint")["restarts"] > before["restarts"], 60)
    ready(lab, "shop/waypoint")
    until("requests pass again", lambda: by_controller(lab) == 200, 60)
