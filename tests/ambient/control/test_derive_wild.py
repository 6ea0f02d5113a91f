"""Wildcard hosts whose names are looked up as they are asked for: what a waypoint is told of them, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_endpoints import ALLOWED
from ambient.control.derive_front import Fronts
from ambient.control.derive_origination import ORIGINATED
from ambient.control.derive_wild import SERVED
from ambient.kube.networking import Gateway
from ambient.kube.objects import Condition
from ambient.waypoint.front import Front, Wild
from tests.ambient.control.test_derive_origination import entry, secret
from tests.support.builders import raw
from tests.support.waypoint_records import derived, scene

HOST = "*.example.com"
PORTS = [
    {"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 443},
    {"number": 443, "name": "tls", "protocol": "TLS"},
    {"number": 5432, "name": "db", "protocol": "TCP"},
    {"number": 9000, "name": "any"},
]


def wild(**spec: Any) -> dict[str, Any]:
    return entry(HOST, resolution="DYNAMIC_DNS", **{"ports": PORTS, **spec})


def look(*objects: dict[str, Any]) -> tuple[Fronts, Front]:
    found = scene(*objects)
    told = derived(found)
    fronts = Fronts(("cluster.local",), "istio-system", roots="system")
    fronts.update(found, told)
    gateway = found.find(Gateway, "shop", "waypoint")
    assert gateway is not None
    view = fronts.view(told.waypoints["shop/waypoint"], gateway)
    return fronts, next(one for one in view.fronts if one.hostname == HOST)


def conditions(*objects: dict[str, Any], key: str = "ServiceEntry/shop/api") -> dict[str, Condition]:
    return {one.type: one for one in derived(scene(*objects)).conditions[key]}


def other(name: str, host: str, namespace: str) -> dict[str, Any]:
    made = entry(host)
    return {**made, "metadata": {"name": name, "namespace": namespace, "uid": name}}


def tls(**settings: Any) -> dict[str, Any]:
    spec = {"host": HOST, "trafficPolicy": {"tls": settings}}
    return {**raw("DestinationRule", "r", spec, namespace="shop"), "apiVersion": "networking.istio.io/v1"}


def test_ports_on_which_clients_say_whom_they_ask_are_served_and_no_others() -> None:
    _, front = look(wild())
    assert {port.number: port.wild for port in front.ports} == {
        80: Wild("example.com", 443),
        443: Wild("example.com", 443),
    }
    said = conditions(wild())[SERVED]
    assert (said.status, said.reason) == ("False", "UnsupportedProtocol")
    assert "db (TCP), any (no protocol)" in said.message


def test_names_of_other_services_are_theirs_where_their_namespace_counts() -> None:
    others = (
        other("near", "API.Example.com", "shop"),
        other("deep", "*.deep.example.com", "shop"),
        other("root", "root.example.com", "istio-system"),
        other("far", "far.example.com", "elsewhere"),
        other("not", "example.com", "shop"),
    )
    _, front = look(wild(), *others)
    found = front.ports[0].wild
    assert found is not None
    assert found.elsewhere == ("*.deep.example.com", "api.example.com", "root.example.com")


def test_it_has_an_address_of_its_own() -> None:
    (pairs,) = derived(scene(wild(addresses=[]))).allocations.values()
    assert {host for host, _ in pairs} == {HOST}
    assert len(pairs) == 2


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"location": "MESH_INTERNAL"}, "NotSupported"),
        ({"resolution": "NONE", "ports": PORTS[1:]}, "NotSupported"),
        ({"resolution": "DNS"}, "NothingToLookUp"),
        ({"resolution": "STATIC", "addresses": []}, "NoAddress"),
    ],
)
def test_what_cannot_be_is_said_and_has_no_endpoint(changed: dict[str, Any], reason: str) -> None:
    made = wild()
    made["spec"].update(changed)
    said = conditions(made)[SERVED]
    assert (said.status, said.reason) == ("False", reason)
    if made["spec"]["addresses"]:
        _, front = look(made)
        assert [port.wild for port in front.ports] == [None] * len(front.ports)


def test_one_with_endpoints_and_an_address_is_as_any_other() -> None:
    static = entry(HOST, endpoints=[{"address": "192.0.2.1"}])
    assert SERVED not in conditions(static)
    _, front = look(static)
    assert (front.ports[0].wild, [str(one.address) for one in front.ports[0].backends]) == (None, ["192.0.2.1"])


def test_tls_is_begun_with_whom_the_client_asks_for() -> None:
    _, front = look(wild(), secret(), tls(mode="SIMPLE", credentialName="partner"))
    http, carried = front.ports
    assert http.tls is not None
    assert (http.tls.sni, http.tls.names, http.tls.as_asked, http.wild is not None) == ("", (), True, True)
    assert (carried.tls, carried.wild) == (None, None), "TLS that is carried gets no other around it"
    _, front = look(wild(), secret(), tls(mode="SIMPLE", credentialName="partner", sni="x.example.com"))
    assert front.ports[0].tls is not None
    assert (front.ports[0].tls.sni, front.ports[0].tls.names) == ("x.example.com", ("x.example.com",))


def virtual(**spec: Any) -> dict[str, Any]:
    made = raw("VirtualService", "v", {"hosts": [HOST], **spec}, namespace="shop")
    return {**made, "apiVersion": "networking.istio.io/v1"}


def test_a_virtual_service_leads_to_the_names_that_are_asked_for() -> None:
    back = [{"destination": {"host": HOST}}]
    http = [{"timeout": "1s", "route": back}, {"route": [{"destination": {"host": HOST, "port": {"number": 443}}}]}]
    tls_rule = {"match": [{"port": 443, "sniHosts": ["a.example.com"]}], "route": back}
    fronts, front = look(wild(), virtual(http=http, tls=[tls_rule]))
    leads = [one.destinations[0].hostname for one in front.routes if one.port == 80]
    assert leads == [HOST, ""], "another port has other addresses"
    assert [(one.names, one.destinations[0].hostname) for one in front.streams] == [(("a.example.com",), HOST)]
    (said,) = fronts.route_conditions()["VirtualService/shop/v"]
    assert (said.status, said.reason) == ("False", "RefNotPermitted")


def test_nobody_elses_requests_are_led_to_names_that_clients_choose() -> None:
    rule = virtual(hosts=["api.example.org"], http=[{"route": [{"destination": {"host": HOST}}]}])
    made = entry("api.example.org")
    fronts, _ = look(wild(), {**made, "metadata": {**made["metadata"], "name": "near", "uid": "near"}}, rule)
    (said,) = fronts.route_conditions()["VirtualService/shop/v"]
    assert (said.status, said.reason) == ("False", "RefNotPermitted")


@pytest.mark.parametrize("settings", [{"mode": "SIMPLE", "credentialName": "nothing"}, {"mode": "ISTIO_MUTUAL"}])
def test_where_tls_cannot_be_had_nobody_is_looked_up(settings: dict[str, Any]) -> None:
    fronts, front = look(wild(), tls(**settings))
    assert [port.wild for port in front.ports] == [None, None]
    (said,) = fronts.route_conditions()["DestinationRule/shop/r"]
    assert (said.type, said.status) == (ORIGINATED, "False")


def test_endpoints_that_nobody_is_sent_to_are_named() -> None:
    found = conditions(entry("api.example.com", endpoints=[{"address": "169.254.169.254"}, {"address": "192.0.2.1"}]))
    assert (found[ALLOWED].status, found[ALLOWED].reason) == ("False", "Forbidden")
    assert found[ALLOWED].message.startswith("169.254.169.254: ")
    named = conditions(entry("metadata.google.internal", resolution="DNS", addresses=[]))
    assert named[ALLOWED].message.startswith("metadata.google.internal: ")
    assert ALLOWED not in conditions(entry("api.example.com", endpoints=[{"address": "192.0.2.1"}]))
    machine = raw("WorkloadEntry", "vm", {"address": "127.0.0.1"}, namespace="shop")
    machine["apiVersion"] = "networking.istio.io/v1"
    assert conditions(machine, key="WorkloadEntry/shop/vm")[ALLOWED].reason == "Forbidden"
