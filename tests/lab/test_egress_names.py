"""Names below a wildcard that clients choose: asked for through the waypoint alone, looked up there, and nothing but
what they may lead to is reached. Real Envoy, a resolver that says what the test wants, a server outside.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.egress_lab import HOST, entry_yaml, tls_yaml
from tests.support.lab import object_yaml, until
from tests.support.waypoint_lab import POLICY_VERSION
from tests.support.wild_lab import DOMAIN, ENTRY, PORTS, Wild, wild_lab, wild_yaml

SIMPLE = {"mode": "SIMPLE", "credentialName": "partner"}
SERVED = "ambient.mesh/HostsServed"


@pytest.fixture(scope="module")
def wild() -> Iterator[Wild]:
    with wild_lab() as made:
        yield made


@pytest.fixture(autouse=True)
def as_before(wild: Wild) -> None:
    wild.say()


def served(wild: Wild, name: str) -> tuple[str, str, str]:
    """What is said of a ServiceEntry: status, reason, message."""
    return wild.out.said("ServiceEntry", name).get(SERVED, ("", "", ""))


def to_it(wild: Wild, host: str, port: int) -> tuple[str, str]:
    """Options of curl: who is called `host` is where the wildcard is."""
    address = wild.out.known(f"*.{DOMAIN}", "wild")
    return "--resolve", f"{host}:{port}:{address}"


def call(wild: Wild, url: str, *words: str) -> str:
    """The status."""
    done = wild.out.lab.exec(
        "shop/client", "curl", "-sk", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", *words, url
    )
    return done.stdout


def test_any_name_below_the_wildcard_gets_out_in_http_and_in_tls_that_is_carried(wild: Wild) -> None:
    for name in ("one", "two", "a.b"):
        assert wild.ask(name)["headers"]["host"] == f"{name}.{DOMAIN}"
    seen = wild.ask("one", port=8080)
    assert (seen["headers"]["host"], seen["tls"]) == (f"one.{DOMAIN}:8080", "")
    seen = wild.ask("one", port=8444, scheme="https")
    assert (seen["sni"], seen["port"]) == (f"one.{DOMAIN}", 8444)
    until("it is said", lambda: served(wild, "wild")[:2] == ("True", "AsAsked"))


def test_tls_that_the_waypoint_begins_asks_for_the_clients_name_and_wants_it_proved(wild: Wild) -> None:
    rule = tls_yaml(
        {"mode": "DISABLE"},
        host=f"*.{DOMAIN}",
        name="wild",
        portLevelSettings=[{"port": {"number": 81}, "tls": SIMPLE}],
    )
    wild.out.apply(rule)
    for name in ("one", "two"):
        assert wild.ask(name, port=81)["sni"] == f"{name}.{DOMAIN}"
    # The certificate is for names of one level.
    assert wild.ask("a.b", port=81) == 503
    assert wild.ask("one")["tls"] == ""
    wild.out.delete(rule)


def test_other_names_and_other_ports_are_refused_at_its_address(wild: Wild) -> None:
    wild.out.apply(entry_yaml(f"api.{DOMAIN}", wild.out.address))
    wild.out.known(f"api.{DOMAIN}")
    until("an entry of its own has it", lambda: wild.ask("one", "-H", f"Host: api.{DOMAIN}") == 421)
    assert wild.ask("api")["headers"]["host"] == f"api.{DOMAIN}:83"
    for host in ("evil.example.org", HOST, DOMAIN, "127.0.0.1", f"one.{DOMAIN}:22", f"one.{DOMAIN}.", f"x{DOMAIN}"):
        assert wild.ask("one", "-H", f"Host: {host}") == 404, host
    assert call(wild, "https://evil.example.org:8444/", *to_it(wild, "evil.example.org", 8444)) == "000"
    assert call(wild, f"https://api.{DOMAIN}:8444/", *to_it(wild, f"api.{DOMAIN}", 8444)) == "000"
    assert call(wild, f"https://ok.{DOMAIN}:8444/", *to_it(wild, f"ok.{DOMAIN}", 8444)) == "200"
    address = wild.out.known(f"*.{DOMAIN}", "wild")
    assert call(wild, f"https://{address}:8444/") == "000", "nobody is asked for"
    wild.out.delete(entry_yaml(f"api.{DOMAIN}", wild.out.address))


def test_a_name_does_not_lead_to_what_is_the_clusters_own(wild: Wild) -> None:
    good, pod = wild.out.address, wild.out.lab.ip("outside/client")
    bad = {
        "loop": "127.0.0.1",
        "cloud": "169.254.169.254",
        "pod": pod,
        "service": "10.96.0.1",
        "mapped": good[:-1] + "9",
    }
    wild.say(**{name: [address] for name, address in bad.items()}, both=[good, "127.0.0.1"])
    for name in (*bad, "both"):
        assert wild.ask(name) == 503, name
        assert wild.ask(name, port=8444, scheme="https") == 0, name
    assert isinstance(wild.ask("good"), dict)


def test_a_name_that_comes_to_lead_elsewhere_is_not_followed_there(wild: Wild) -> None:
    """Neither one that a client has chosen, nor one that somebody wrote down."""
    written = entry_yaml("written.wild.example.com", "w.wild.example.com", name="named", resolution="DNS")
    wild.out.apply(written)
    wild.out.known("written.wild.example.com", "named")
    until("what is written is asked", lambda: isinstance(wild.ask("written"), dict))
    assert isinstance(wild.ask("turns"), dict)
    before = refused(wild)
    wild.say(turns=["127.0.0.1"], w=["169.254.169.254"])
    until("what is written is not asked", lambda: wild.ask("written") == 503, 60)
    until("both have been refused", lambda: all(now > was for now, was in zip(refused(wild), before, strict=True)), 60)
    # Envoy stays with what it was told before.
    assert isinstance(wild.ask("turns"), dict)
    wild.say()
    until("it is asked again", lambda: isinstance(wild.ask("written"), dict), 60)
    wild.out.delete(written)


def refused(wild: Wild) -> list[int]:
    """How often the waypoint's agent has refused to tell an address: of names that are written, and of others."""
    address = wild.out.lab.ip("shop/waypoint")
    words = ("curl", "-s", "-m", "20", f"http://{address}:15020/metrics")
    page = until("its metrics", lambda: wild.out.lab.exec("outside/client", *words).stdout)
    lines = [line for line in page.splitlines() if 'result="refused"' in line]
    return [int(line.rpartition(" ")[2]) for line in sorted(lines, reverse=True)]


def test_policies_say_who_asks_for_which_name(wild: Wild) -> None:
    source = {"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}
    hosts = {"operation": {"hosts": [f"one.{DOMAIN}", f"one.{DOMAIN}:*"], "ports": ["83"]}}
    carried = {"from": [source], "to": [{"operation": {"ports": ["8444"]}}]}
    rules = [{"from": [source], "to": [hosts]}, carried]
    spec = {"targetRefs": [ENTRY], "action": "ALLOW", "rules": rules}
    policy = object_yaml(POLICY_VERSION, "AuthorizationPolicy", "wild", "shop", spec=spec)
    wild.out.apply(policy)
    assert isinstance(wild.ask("one"), dict)
    assert (wild.ask("two"), wild.ask("one", pod="shop/other")) == (403, 403)
    assert isinstance(wild.ask("one", port=8444, scheme="https"), dict)
    assert wild.ask("one", port=8444, scheme="https", pod="shop/other") == 0
    wild.out.delete(policy)
    until("without it all get out", lambda: isinstance(wild.ask("two", pod="shop/other"), dict))


def test_the_breaker_and_the_look_at_outliers_hold_for_names_as_for_others(wild: Wild) -> None:
    policy = {"connectionPool": {"http": {"http2MaxRequests": 1}}}
    rule = tls_yaml({"mode": "DISABLE"}, host=f"*.{DOMAIN}", name="wild", **policy)
    wild.out.apply(rule)
    wild.out.held_alone(f"http://held.{DOMAIN}:83/")
    outliers = {"consecutive5xxErrors": 1, "baseEjectionTime": "600s", "maxEjectionPercent": 100}
    wild.out.apply(tls_yaml({"mode": "DISABLE"}, host=f"*.{DOMAIN}", name="wild", outlierDetection=outliers))
    assert wild.out.ask_at(f"http://frail.{DOMAIN}:83/up")["path"] == "/up"
    wild.out.ask_at(f"http://frail.{DOMAIN}:83/down")
    until("what is broken is left alone", lambda: wild.out.ask_at(f"http://frail.{DOMAIN}:83/up") == 503)
    assert isinstance(wild.ask("sound"), dict), "and no other name"
    wild.out.delete(rule)


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"location": "MESH_INTERNAL"}, "NotSupported", "location"),
        ({"resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}, "NoAddress", "addresses"),
        ({"resolution": "DNS"}, "NothingToLookUp", "hosts"),
        ({"resolution": "NONE"}, "NotSupported", "resolution"),
        ({"ports": [{"number": 5432, "name": "tcp-db", "protocol": "TCP"}]}, "UnsupportedProtocol", "tcp-db (TCP)"),
    ],
    ids=["in the mesh", "STATIC", "DNS", "NONE", "TCP"],
)
def test_what_cannot_be_is_said(wild: Wild, changed: dict[str, object], reason: str, field: str) -> None:
    ports = [{key: value for key, value in one.items() if key != "targetPort"} for one in PORTS]
    odd = wild_yaml("odd", **{"hosts": ["*.odd.example.com"], "ports": ports, **changed})
    wild.out.apply(odd)
    until("it is said", lambda: served(wild, "odd")[:2] == ("False", reason) and field in served(wild, "odd")[2])
    wild.out.delete(odd)


def test_with_the_waypoint_stopped_nothing_gets_past_it(wild: Wild) -> None:
    pids = wild.out.lab.status_of("shop/waypoint")["pids"]
    for pid in pids:
        wild.out.lab.signal(pid, "STOP")
    try:
        assert wild.ask("one", "-m", "2") == 0
        assert wild.ask("one", "-m", "2", port=8444, scheme="https") == 0
        assert call(wild, f"http://{wild.out.address}:8080/", "-m", "2") == "000"
    finally:
        for pid in pids:
            wild.out.lab.signal(pid, "CONT")
    until("requests get out again", lambda: isinstance(wild.ask("one"), dict), 60)
