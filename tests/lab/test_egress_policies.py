"""Who may ask a server outside, and how much; and that nobody gets there past the waypoint, not even by its address,
where only what is in the registry may be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.egress_lab import HOST, SITES, Egress, egress_lab, entry_yaml, tls_yaml
from tests.support.gateway_lab import GATEWAY, POD, ingress_yaml, route_yaml, to
from tests.support.lab import object_yaml, until
from tests.support.tokens import Issuer
from tests.support.waypoint_lab import GATEWAY_VERSION, POLICY_VERSION, ready

ENTRY = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "api"}
CA = object_yaml("v1", "ConfigMap", "sites", "shop", data={"ca.crt": SITES.roots})


def policy_yaml(ca: str = "sites") -> str:
    """A BackendTLSPolicy for the port whose server asks for no certificate."""
    check = {"hostname": HOST, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": ca}]}
    spec = {"targetRefs": [{**ENTRY, "sectionName": "http-simple"}], "validation": check}
    return object_yaml(GATEWAY_VERSION, "BackendTLSPolicy", "api", "shop", spec=spec)


def rules_yaml(kind: str, **spec: Any) -> str:
    return object_yaml(POLICY_VERSION, kind, "api", "shop", spec={"targetRefs": [ENTRY], **spec})


@pytest.fixture(scope="module")
def out() -> Iterator[Egress]:
    with egress_lab(CA, env={"ztunnel:AMBIENT_OUTBOUND": "REGISTRY_ONLY"}) as made:
        made.apply(entry_yaml(HOST, made.address), policy_yaml())
        made.known()
        until("the first request gets out", lambda: isinstance(made.ask(kind="simple"), dict), 60)
        yield made


def conditions(out: Egress) -> dict[str, tuple[str, str]]:
    """What is said of the BackendTLSPolicy for the waypoint."""
    raw = out.lab.lab.records().by_key["BackendTLSPolicy/shop/api"].raw
    listed = raw.get("status", {}).get("ancestors", [])
    if not listed:
        return {}
    (said,) = listed
    assert (said["ancestorRef"]["name"], said["controllerName"]) == ("waypoint", "istio.io/mesh-controller")
    return {one["type"]: (one["status"], one["reason"]) for one in said["conditions"]}


def test_a_backend_tls_policy_begins_tls_and_without_its_authority_nothing_leaves(out: Egress) -> None:
    assert out.ask(kind="simple")["sni"] == HOST
    assert out.ask(kind="plain")["tls"] == "", "another port is another matter"
    until("it is said", lambda: {one[0] for one in conditions(out).values()} == {"True"})
    out.apply(policy_yaml("nothing"))
    assert out.ask(kind="simple") == 503
    until("why is said", lambda: conditions(out).get("Accepted") == ("False", "NoValidCACertificate"))
    assert conditions(out)["ResolvedRefs"] == ("False", "InvalidCACertificateRef")
    out.apply(policy_yaml())
    until("it gets out again", lambda: isinstance(out.ask(kind="simple"), dict))


def test_by_its_own_address_nobody_reaches_what_is_behind_the_waypoint_nor_what_is_nowhere(out: Egress) -> None:
    words = ("curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}")
    direct, elsewhere = f"http://{out.address}:8080/", f"http://{out.address[:-1]}7:8080/"
    assert out.lab.exec("outside/client", *words, direct).stdout == "200", "whoever is not in the mesh gets there"
    assert out.lab.exec("shop/client", *words, direct).stdout == "000"
    assert out.lab.exec("shop/client", *words, elsewhere).stdout == "000"

    def said(reason: str) -> bool:
        logs = (out.lab.names.folder / "logs").rglob("ztunnel.log")
        return any(f'error="{reason}' in log.read_text(errors="replace") for log in logs)

    until("it is logged why", lambda: said("past-a-waypoint") and said("not-in-registry"))


def test_with_the_waypoint_stopped_there_is_no_way_out(out: Egress) -> None:
    pids = out.lab.status_of("shop/waypoint")["pids"]
    for pid in pids:
        out.lab.signal(pid, "STOP")
    try:
        assert out.ask("-m", "2", kind="plain") == 0
        done = out.lab.exec("shop/client", "curl", "-s", "-m", "2", f"http://{out.address}:8080/")
        assert (done.returncode != 0, done.stdout) == (True, "")
    finally:
        for pid in pids:
            out.lab.signal(pid, "CONT")
    until("requests get out again", lambda: isinstance(out.ask(kind="plain"), dict), 60)


def test_only_who_has_the_scope_and_is_the_right_client_gets_out(out: Egress) -> None:
    issuer = Issuer()
    scope = {"key": "request.auth.claims[scope]", "values": ["api.read"]}
    source = {"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}
    rules = [{"from": [source], "when": [scope]}]
    tokens = rules_yaml("RequestAuthentication", jwtRules=[{"issuer": issuer.name, "jwks": issuer.keys}])
    allowed = rules_yaml("AuthorizationPolicy", action="ALLOW", rules=rules)
    out.apply(tokens, allowed)

    def asked(scope: str, pod: str = "shop/client") -> object:
        token = issuer.token(aud=None, scope=scope)
        return out.ask("-H", f"authorization: Bearer {token}", kind="plain", pod=pod)

    seen = asked("other api.read")
    assert isinstance(seen, dict)
    assert "authorization" not in seen["headers"], "the mesh's token stays inside"
    assert (asked("api.write"), asked("api.read", "shop/other")) == (403, 403)
    assert out.ask(kind="plain") == 403
    assert out.ask("-H", "authorization: Bearer forged", kind="plain") == 401
    out.delete(tokens, allowed)
    until("without them all get out", lambda: isinstance(out.ask(kind="plain", pod="shop/other"), dict))


def test_a_server_outside_that_breaks_is_not_asked_again_and_again(out: Egress) -> None:
    outliers = {"consecutive5xxErrors": 1, "baseEjectionTime": "600s", "maxEjectionPercent": 100}
    rule = tls_yaml({"mode": "DISABLE"}, outlierDetection=outliers)
    out.apply(rule)
    assert out.ask(kind="plain", path="up")["path"] == "/up"
    out.ask(kind="plain", path="down")
    until("the broken server is left alone", lambda: out.ask(kind="plain", path="up") == 503)
    out.delete(rule)
    until("without the rule it is asked again", lambda: isinstance(out.ask(kind="plain"), dict))


def test_a_server_outside_is_asked_by_no_more_at_a_time_than_its_owner_says(out: Egress) -> None:
    rule = tls_yaml({"mode": "DISABLE"}, connectionPool={"http": {"http2MaxRequests": 1}})
    out.apply(rule)
    assert [isinstance(out.ask(kind="plain"), dict) for _ in range(3)] == [True] * 3
    out.held_alone(f"http://{HOST}:83/")
    out.delete(rule)


def site_yaml(out: Egress, hostname: str = HOST, *, port: int = 8444, ca: str = "sites") -> str:
    """A Service of a server outside, that a gateway leads to and begins TLS with."""
    service = object_yaml("v1", "Service", "site", "shop", spec={"ports": [{"name": "http", "port": 80}]})
    labels = {"kubernetes.io/service-name": "site"}
    endpoints = object_yaml(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "site-1",
        "shop",
        labels=labels,
        addressType="IPv4",
        endpoints=[{"addresses": [out.address]}],
        ports=[{"name": "http", "port": port}],
    )
    check = {"hostname": hostname, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": ca}]}
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "site"}], "validation": check}
    policy = object_yaml(GATEWAY_VERSION, "BackendTLSPolicy", "site", "shop", spec=spec)
    return service + endpoints + policy


def test_a_gateway_begins_tls_and_sends_nothing_to_who_does_not_prove_the_name(out: Egress) -> None:
    gateway = ingress_yaml() + route_yaml("site", to("site"))
    out.apply(gateway, site_yaml(out))
    ready(out.lab, GATEWAY)

    def asked() -> Any:
        where = ("--resolve", f"{HOST}:80:{out.lab.ip(POD)}")
        return out.ask_at(f"http://{HOST}/", *where, pod="outside/client")

    until("the first request gets through", lambda: isinstance(asked(), dict), 60)
    seen = asked()
    assert (seen["port"], seen["sni"], seen["headers"]["host"], seen["tls"][:3]) == (8444, HOST, HOST, "TLS")
    for wrong in (site_yaml(out, "nobody.example.com"), site_yaml(out, port=8445), site_yaml(out, ca="nothing")):
        out.apply(wrong)
        ready(out.lab, GATEWAY)
        until("nothing is sent there", lambda: asked() in (500, 503))
        out.apply(site_yaml(out))
        ready(out.lab, GATEWAY)
        until("it gets through again", lambda: isinstance(asked(), dict))
    out.delete(gateway, site_yaml(out))
