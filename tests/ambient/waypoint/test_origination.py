"""TLS that a proxy begins: what it proves, whom it believes, and that secrets come by themselves."""

from __future__ import annotations

from typing import Any

from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Backend, FrontPort, Origination, Protocol, Subset
from ambient.waypoint.origination import begun, complaint, originating, proved_by
from ambient.waypoint.resources import resources
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, SECRET_TYPE
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import EVERY_ORIGINATION, PLAIN, TUNNEL, front, view

CA = Evidence("ca", "chain")
OWN = Evidence("own", "chain", "key")
FULL = Origination("a.example.com", ("a.example.com", "spiffe://x/y", "10.0.0.1"), CA, OWN)


def test_both_ends_prove_who_they_are() -> None:
    made = begun(FULL)["typed_config"]
    common = made["common_tls_context"]
    assert made["sni"] == "a.example.com"
    assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_2"
    assert [one["name"] for one in common["tls_certificate_sds_secret_configs"]] == ["own"]
    checks = common["combined_validation_context"]
    assert checks["validation_context_sds_secret_config"]["name"] == "ca"
    assert [
        (one["san_type"], one["matcher"]["exact"])
        for one in checks["default_validation_context"]["match_typed_subject_alt_names"]
    ] == [("DNS", "a.example.com"), ("URI", "spiffe://x/y"), ("IP_ADDRESS", "10.0.0.1")]


def test_without_an_authority_nobody_is_asked_and_without_a_certificate_none_is_shown() -> None:
    assert begun(Origination(""))["typed_config"]["common_tls_context"].keys() == {"tls_params"}
    assert "sni" not in begun(Origination(""))["typed_config"]


def test_whoever_is_to_be_believed_has_a_name() -> None:
    assert complaint(Origination("", (), CA)) == "no name to look for in the server's certificate"
    assert "255" in complaint(Origination("a" * 256, ("x",), CA))
    for name in ("ä" * 200, "a b", "a\n", "[::1]"):
        assert "letters" in complaint(Origination(name, ("x",), CA))
    for name in ("", "ä", "a b"):
        assert "empty, or not ASCII" in complaint(Origination("a", ("x", name), CA))
    assert complaint(FULL) == complaint(Origination("")) == ""


def test_secrets_are_there_once_and_a_new_one_changes_nothing_else() -> None:
    def made(own: Evidence) -> dict[tuple[str, str], Any]:
        tls = Origination("a", ("a",), CA, own)
        ports = (
            FrontPort(80, Protocol.HTTP, (PLAIN,), tls=tls),
            FrontPort(81, Protocol.TCP, (PLAIN,), tls=tls),
        )
        return {(url, name): content for url, name, content in resources(view(front(ports=ports)))}

    first, second = made(OWN), made(Evidence("own", "other chain", "other key"))
    assert [name for url, name in first if url == SECRET_TYPE] == ["ca", "own"]
    assert {key for key in first if first[key] != second[key]} == {(SECRET_TYPE, "own")}
    assert [name for _, name, _ in originating([front()])] == []


def test_an_endpoint_in_the_mesh_is_spoken_to_in_tls_within_its_tunnel() -> None:
    port = FrontPort(80, Protocol.HTTP, (TUNNEL, PLAIN), tls=FULL)
    found = [one for url, name, one in resources(view(front(ports=(port,)))) if url == CLUSTER_TYPE and "vip" in name]
    plain, tunnel = found[0]["transport_socket_matches"]
    assert plain["transport_socket"] == begun(FULL) == tunnel["transport_socket"]["typed_config"]["transport_socket"]


def test_a_name_is_looked_up_by_the_proxy_and_tunnels_to_names_there_are_none() -> None:
    port = FrontPort(80, Protocol.HTTP, (Backend("a.example.com", 443), TUNNEL))
    found = {(url, name): one for url, name, one in resources(view(front(ports=(port,))))}
    name = "inbound-vip|80|http|web.shop.svc.cluster.local"
    made = found[CLUSTER_TYPE, name]
    assert (made["type"], (ENDPOINT_TYPE, name) in found) == ("STRICT_DNS", False)
    (endpoint,) = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"] == {"socket_address": {"address": "a.example.com", "port_value": 443}}


def test_a_secret_that_no_cluster_asks_for_is_not_there() -> None:
    tls = Origination("a", ("a",), CA, OWN)
    ports = (FrontPort(80, Protocol.HTTP, (PLAIN,), subsets=(Subset("s", (PLAIN,), tls=tls),)),)
    told = [name for url, name, _ in resources(view(front(ports=ports))) if url == SECRET_TYPE]
    assert told == [], "no route leads to the subset"


def test_which_ports_rest_on_what() -> None:
    tls = Origination("a", ("a",), CA, OWN)
    ports = (
        FrontPort(80, Protocol.HTTP, (PLAIN,), tls=Origination("a", ("a",), CA)),
        FrontPort(81, Protocol.TCP, (PLAIN,), subsets=(Subset("s", (PLAIN,), tls=tls),)),
        FrontPort(82, Protocol.TCP, (PLAIN,)),
    )
    told = [front(ports=ports)]
    assert {name.split("|")[1] for name in proved_by(told, ["ca"])} == {"80", "81"}
    assert {name.split("|")[1] for name in proved_by(told, ["own"])} == {"81"}
    assert proved_by(told, []) == frozenset()


def test_all_of_it_is_messages() -> None:
    for one in resources(EVERY_ORIGINATION):
        encode(*one)
