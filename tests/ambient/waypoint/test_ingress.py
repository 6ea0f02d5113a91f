"""What an ingress gateway's Envoy is told: complete in itself, judged before any route, taken by Envoy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ambient.waypoint.door import Clients, Door, GatewayView, Site
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Destination, FrontPort, Origination, Protocol
from ambient.waypoint.ingress import gateway_resources
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, Message
from ambient.waypoint.wire import encode
from tests.ambient.waypoint.test_resources import every
from tests.support.gateway_views import EVERY_DOOR, LEAF, WEB, route
from tests.support.waypoint_views import PLAIN, RULE, front, policy


def found(view: GatewayView = EVERY_DOOR, *refused: str) -> dict[tuple[str, str], Message]:
    made = list(gateway_resources(view, frozenset(refused)))
    assert len({one[:2] for one in made}) == len(made)
    return {(url, name): content for url, name, content in made}


def test_every_resource_is_a_message_of_its_type_and_what_is_referred_to_is_there() -> None:
    names: dict[str, set[str]] = {}
    for (url, name), content in found().items():
        encode(url, name, content)
        assert content.get("name", content.get("cluster_name")) == name
        names.setdefault(url, set()).add(name)
    content = list(found().values())
    assert every("cluster", content) <= names[CLUSTER_TYPE]
    assert every("server_listener_name", content) <= names[LISTENER_TYPE]
    assert every("service_name", content) == names[ENDPOINT_TYPE]
    assert every("route_config_name", content) == names[ROUTE_TYPE]
    mesh = {"default", "ROOTCA"}
    asked = {one["name"] for one in _secrets(content)} - mesh
    assert asked == names[SECRET_TYPE]


def test_certificates_of_listeners_that_are_not_served_are_told_to_nobody() -> None:
    plain = replace(EVERY_DOOR, doors=tuple(one for one in EVERY_DOOR.doors if one.protocol != "HTTPS"))
    assert [name for url, name in found(plain) if url == SECRET_TYPE] == []
    without = tuple(replace(one, clients=None) for one in EVERY_DOOR.doors)
    assert [name for url, name in found(replace(EVERY_DOOR, doors=without)) if url == SECRET_TYPE] == [
        "server/shop/site"
    ]


def _secrets(value: Any) -> list[Message]:
    if isinstance(value, dict):
        own = [value] if "sds_config" in value else []
        return own + [each for one in value.values() for each in _secrets(one)]
    return [each for one in value for each in _secrets(one)] if isinstance(value, list) else []


def test_keys_are_in_secrets_and_nowhere_else() -> None:
    for (url, _), content in found().items():
        assert ("PRIVATE KEY" in json.dumps(content)) is (url == SECRET_TYPE and "tls_certificate" in content)
    assert LEAF.key not in repr(EVERY_DOOR)


def test_every_host_is_judged_before_its_routes_and_no_route_has_filters_of_its_own() -> None:
    for (url, name), content in found().items():
        for host in content["virtual_hosts"] if url == ROUTE_TYPE else ():
            misdirected = any(one.get("direct_response", {}).get("status") == 421 for one in host["routes"])
            assert misdirected or len(host["typed_per_filter_config"]) == 2, name
            assert all("typed_per_filter_config" not in one for one in host["routes"])


def test_by_address_the_client_itself_is_judged_and_by_remote_address_what_trusted_proxies_say() -> None:
    text = json.dumps(found()[ROUTE_TYPE, "ingress|80"])
    assert '"direct_remote_ip"' in text
    assert '"remote_ip"' not in text


def test_a_port_whose_listener_is_refused_answers_nobody_and_one_that_is_carried_unread_is_gone() -> None:
    closed = found(EVERY_DOOR, "ingress|80", "ingress|444")
    (host,) = closed[ROUTE_TYPE, "ingress|80"]["virtual_hosts"]
    assert host["routes"][0]["direct_response"]["status"] == 503
    assert (LISTENER_TYPE, "ingress|444") not in closed
    assert closed[ROUTE_TYPE, "ingress|443|tls"] == found()[ROUTE_TYPE, "ingress|443|tls"]


def test_endpoints_are_not_there_whose_cluster_is_refused_or_what_it_rests_on() -> None:
    tls = Origination("x", ("x",), Evidence("upstream/authority", "chain"))
    ports = (FrontPort(80, Protocol.HTTP, (PLAIN,), tls=tls), FrontPort(81, Protocol.HTTP, (PLAIN,)))
    view = replace(EVERY_DOOR, pools=(front(ports=ports),))

    def pools(*refused: str) -> set[tuple[str, str]]:
        return {(name.split("|")[1], name.split("|")[2]) for _, name in found(view, *refused) if "inbound-vip" in name}

    first, second = {("80", "http"), ("80", "tcp")}, {("81", "http"), ("81", "tcp")}
    assert pools() == first | second
    assert pools(f"inbound-vip|80|http|{WEB}") == {("80", "tcp")} | second
    assert pools("upstream/authority") == second
    secret = (SECRET_TYPE, "upstream/authority")
    assert secret in found(view)
    assert secret not in found(view, "upstream/authority"), "nobody would ask for it"


@pytest.mark.parametrize("carried", [(), (("a.example.com", (Destination(WEB, 80, 0), Destination("", 0))),)])
def test_a_port_for_tls_from_which_nothing_is_carried_has_no_listener(carried: Any) -> None:
    alone = replace(EVERY_DOOR, doors=(Door("shared", 444, "TLS", "", destinations=carried),))
    beside = replace(EVERY_DOOR, doors=(*alone.doors, *EVERY_DOOR.doors[:1]))
    for view, names in ((alone, []), (beside, ["ingress|80"])):
        listeners = [name for url, name in found(view) if url == LISTENER_TYPE]
        assert [name for name in listeners if name.startswith("ingress|")] == names


def test_what_clients_speak_is_not_what_applications_have_to() -> None:
    cluster = found()[CLUSTER_TYPE, f"inbound-vip|80|http|{WEB}"]
    assert '"explicit_http_config": {"http_protocol_options"' in json.dumps(cluster)


@pytest.mark.parametrize("clients", [True, False])
def test_a_certificate_of_a_client_is_demanded_where_its_owner_says_so(clients: bool) -> None:
    listener = found()[LISTENER_TYPE, "ingress|443"]
    chain = next(one for one in listener["filter_chains"] if one["name"] == ("mutual" if clients else "tls"))
    context = chain["transport_socket"]["typed_config"]
    assert context.get("require_client_certificate", False) is clients
    told = chain["filters"][0]["typed_config"]["forward_client_cert_details"]
    assert told == ("SANITIZE_SET" if clients else "SANITIZE")
    assert ("%DOWNSTREAM_PEER_SUBJECT%" in json.dumps(chain)) is clients


def test_where_anybody_is_let_in_no_client_is_told_to_the_application_or_in_the_log() -> None:
    doors = tuple(
        replace(one, clients=Clients(one.clients.authority, insecure=True)) if one.clients else one
        for one in EVERY_DOOR.doors
    )
    listener = found(replace(EVERY_DOOR, doors=doors))[LISTENER_TYPE, "ingress|443"]
    chain = next(one for one in listener["filter_chains"] if one["name"] == "mutual")
    context = chain["transport_socket"]["typed_config"]
    assert "require_client_certificate" not in context
    checks = context["common_tls_context"]["combined_validation_context"]
    assert checks["default_validation_context"] == {"trust_chain_verification": "ACCEPT_UNTRUSTED"}
    assert chain["filters"][0]["typed_config"]["forward_client_cert_details"] == "SANITIZE"
    assert "DOWNSTREAM_PEER" not in json.dumps(chain)


def test_what_is_carried_unread_is_judged_before_anything_is_connected() -> None:
    listener = found()[LISTENER_TYPE, "ingress|444"]
    filters = [one["typed_config"] for one in listener["filter_chains"][0]["filters"]]
    assert [one.get("rules", {}).get("action") for one in filters] == ["DENY", "ALLOW", None]
    assert filters[-1]["upstream_connect_mode"] == "ON_DOWNSTREAM_DATA"
    # A rule that asks for more than a connection shows lets nobody in.
    more = replace(EVERY_DOOR, policies=(policy("allow", "ALLOW", RULE),))
    (rules,) = [
        one["typed_config"]["rules"]
        for one in found(more)[LISTENER_TYPE, "ingress|444"]["filter_chains"][0]["filters"]
        if "rules" in one["typed_config"]
    ]
    assert rules == {"action": "ALLOW", "policies": {}}


def test_a_change_of_routes_is_no_change_of_listeners() -> None:
    plain = replace(EVERY_DOOR, doors=(Door("http", 80, "HTTP", sites=(Site("*"),)),))
    before = {key: one for key, one in found(plain).items() if key[0] == LISTENER_TYPE}
    more = replace(plain, doors=(replace(plain.doors[0], sites=(*EVERY_DOOR.doors[0].sites,)),))
    assert before == {key: one for key, one in found(more).items() if key[0] == LISTENER_TYPE}


def test_a_route_for_many_hosts_is_made_once() -> None:
    shared = route(80)
    view = replace(
        EVERY_DOOR, doors=(Door("http", 80, "HTTP", sites=(Site("a.com", (shared,)), Site("*", (shared,)))),)
    )
    one, other = (host["routes"] for host in found(view)[ROUTE_TYPE, "ingress|80"]["virtual_hosts"])
    assert len(one) == len(other) == 1
    assert one[0] is other[0]
