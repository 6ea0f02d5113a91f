"""Pods ask a server outside in plain HTTP; their waypoint begins TLS with it, with a certificate of its own and only
where the server proves who it is. Real Envoy, a real TLS server on a machine that is none of the mesh's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.support.egress_lab import (
    HOST,
    NAMED,
    Egress,
    client_leaf,
    credential_yaml,
    egress_lab,
    entry_yaml,
    server_pod_yaml,
    tls_yaml,
)
from tests.support.lab import until
from tests.support.mint import Leaf

FIRST = client_leaf("first")
MUTUAL = {"mode": "MUTUAL", "credentialName": "partner"}
SIMPLE = {"mode": "SIMPLE", "credentialName": "partner"}
ORIGINATED = "ambient.mesh/TLSOriginated"


def serial(leaf: Leaf) -> str:
    return f"{x509.load_pem_x509_certificate(leaf.chain.encode()).serial_number:040X}".lstrip("0")


def originated(out: Egress) -> tuple[str, str, str]:
    """What is said of the rule: status, reason, message."""
    return out.said("DestinationRule", "api").get(ORIGINATED, ("", "", ""))


@pytest.fixture(scope="module")
def out() -> Iterator[Egress]:
    with egress_lab(server_pod_yaml() + credential_yaml("partner", FIRST)) as made:
        made.apply(entry_yaml(HOST, made.address), tls_yaml(MUTUAL))
        made.known()
        until("the first request gets out", lambda: isinstance(made.ask(), dict), 60)
        yield made


@pytest.fixture(autouse=True)
def as_before(out: Egress) -> None:
    out.apply(tls_yaml(MUTUAL), credential_yaml("partner", FIRST))


def test_plain_http_of_a_pod_leaves_as_tls_with_the_waypoints_certificate_and_the_right_name(out: Egress) -> None:
    seen = out.ask(path="x?y=z")
    assert (seen["port"], seen["sni"], seen["client"], seen["path"]) == (8443, HOST, "first", "/x?y=z")
    assert (seen["serial"].lstrip("0"), seen["headers"]["host"]) == (serial(FIRST), HOST)
    until("it is said", lambda: originated(out)[:2] == ("True", "Originated"))


def test_a_server_that_does_not_prove_its_name_is_sent_nothing(out: Egress) -> None:
    assert out.ask(kind="impostor") == 503
    assert out.ask(kind="simple")["client"] == ""
    out.apply(tls_yaml({**MUTUAL, "subjectAltNames": ["nobody.example.com"]}))
    assert (out.ask(), out.ask(kind="simple")) == (503, 503)
    out.apply(tls_yaml({**MUTUAL, "insecureSkipVerify": True}))
    assert out.ask(kind="impostor")["port"] == 8445
    until("it is said", lambda: originated(out)[:2] == ("True", "NotVerified"))
    assert HOST in originated(out)[2]


def test_a_port_has_its_own_tls_and_a_name_of_its_own_to_ask_for(out: Egress) -> None:
    own = [
        {"port": {"number": 81}, "tls": {**SIMPLE, "sni": "other.example.com"}},
        {"port": {"number": 83}, "tls": {"mode": "DISABLE"}},
    ]
    out.apply(tls_yaml(MUTUAL, portLevelSettings=own))
    assert out.ask(kind="simple")["sni"] == "other.example.com"
    assert out.ask(kind="plain")["tls"] == ""
    assert out.ask()["client"] == "first"


@pytest.mark.parametrize(
    ("tls", "reason", "field"),
    [
        ({"mode": "MUTUAL", "credentialName": "nothing"}, "InvalidCertificateRef", "tls.credentialName"),
        ({"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k"}, "NotSupported", "tls.clientCertificate"),
        ({"mode": "SIMPLE", "caCertificates": "/ca.pem"}, "NotSupported", "tls.caCertificates"),
        ({"mode": "ISTIO_MUTUAL"}, "NotSupported", "tls.mode"),
    ],
    ids=["no Secret", "files", "a file of authorities", "the mesh's own TLS"],
)
def test_what_cannot_be_had_is_said_and_nothing_leaves(
    out: Egress, tls: dict[str, str], reason: str, field: str
) -> None:
    out.apply(tls_yaml(tls))
    assert (out.ask(), out.ask(kind="plain")) == (503, 503)
    until("it is said", lambda: originated(out)[:2] == ("False", reason) and field in originated(out)[2])


def test_a_rule_that_cannot_be_read_lets_nothing_leave_in_plain_text(out: Egress) -> None:
    out.delete(tls_yaml(MUTUAL))
    assert out.ask(kind="plain")["tls"] == ""
    odd = tls_yaml({"mode": "MUTUAL", "credentialNames": ["partner"]})
    done = out.lab.run("apply", "-f", "-", text=odd)
    assert done.returncode
    assert "credentialNames" in done.stderr


def test_another_certificate_is_in_use_for_the_next_connection_and_no_request_is_lost(out: Egress) -> None:
    second = client_leaf("second")
    loop = "while ! read -rt 0.01; do curl -s -m 20 -o /dev/null -w '%{http_code} ' http://" + HOST + "/; done"
    with out.lab.start("shop/client", "bash", "-c", loop) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(20).split() == ["200"] * 5
        out.apply(credential_yaml("partner", second))
        until("the second certificate is seen", lambda: out.ask()["client"] == "second")
        statuses = asking.communicate("enough\n")[0].split()
    assert set(statuses) == {"200"}, statuses
    assert out.ask()["serial"].lstrip("0") == serial(second)
    out.apply(credential_yaml("partner", Leaf("no key", "no certificate")))
    assert out.ask()["client"] == "second", "one that is unusable is not taken"


def test_an_endpoint_with_a_name_is_looked_up_by_the_waypoint(out: Egress) -> None:
    named = entry_yaml("named.example.com", NAMED, name="named", resolution="DNS")
    out.apply(named, tls_yaml({**SIMPLE, "sni": NAMED}, host="named.example.com", name="named"))
    out.known("named.example.com", "named")

    def asked() -> bool:
        seen = out.ask(kind="simple", host="named.example.com")
        return isinstance(seen, dict) and seen["sni"] == NAMED

    until("it is asked by the name that its rule has", asked)


def test_with_the_waypoint_killed_nothing_gets_out_until_it_is_back(out: Egress) -> None:
    before = out.lab.status_of("shop/waypoint")["restarts"]
    for pid in out.lab.status_of("shop/waypoint")["pids"]:
        out.lab.signal(pid, "STOP")
    assert out.ask("-m", "2") == 0
    for pid in out.lab.status_of("shop/waypoint")["pids"]:
        out.lab.signal(pid, "KILL")
    until("the waypoint was started anew", lambda: out.lab.status_of("shop/waypoint")["restarts"] > before, 60)
    until("requests get out again", lambda: isinstance(out.ask(), dict), 60)
