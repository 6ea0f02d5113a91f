"""The control plane's waypoints: who is told what, that only changes are told, and what is said on the Gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.ca.token import Caller
from ambient.control.derive import Changes
from ambient.control.waypoints import Waypoints
from ambient.errors import Refused, Unavailable
from ambient.kube.objects import Condition, Records
from ambient.kube.routing import CONTROLLER, GATEWAY_CONTROLLER
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from ambient.xds.messages import DeltaRequest
from ambient.xds.server import DeltaStream
from tests.support.waypoint_records import POOLS, TARGET, derived, gateway, pod, policy, scene, service

OWN = Caller("n1", "shop", "waypoint", "u")
KEY = "Gateway/shop/waypoint"


def waypoints(found: Records, **more: Any) -> Waypoints:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local", **more)
    made.update(found, derived(found))
    return made


def test_gateways_of_a_class_that_is_somebody_elses_are_let_be() -> None:
    front = gateway("front")
    front["spec"] = {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    key = "Gateway/shop/front"
    assert key in waypoints(scene(front)).with_gateways({})
    found = scene(front, gateway_class("istio", "istio.io/gateway-controller"))
    made = waypoints(found, ingress_classes=())
    assert key not in made.with_gateways({})
    assert made.conditions(key) == ()
    with pytest.raises(Refused, match="no waypoint of Gateway"):
        made.open(Caller("n1", "shop", "front-istio", "u"), "front")


def test_gateways_of_a_class_of_our_controller_are_ours_whatever_it_is_called() -> None:
    front = gateway("front")
    front["spec"] = {"gatewayClassName": "edge", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    made = waypoints(scene(front, gateway_class("edge", GATEWAY_CONTROLLER)), ingress_classes=())
    told = made.with_gateways({})
    assert "Gateway/shop/front" in told
    assert [(one.type, one.status) for one in told["GatewayClass/_/edge"]] == [("Accepted", "True")]
    made.update(scene(front), derived(scene(front)))
    assert "Gateway/shop/front" not in made.with_gateways({})


def gateway_class(name: str, controller: str) -> dict[str, Any]:
    metadata, spec = {"name": name}, {"controllerName": controller}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": metadata, "spec": spec}


def statuses(made: Waypoints, key: str = KEY) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in made.conditions(key)}


def take_all(stream: DeltaStream) -> None:
    """As a proxy that takes whatever it is told."""
    for url in (CLUSTER_TYPE, LISTENER_TYPE):
        stream.receive(DeltaRequest(type_url=url))
    while (response := stream.pull()) is not None:
        if response.type_url == CLUSTER_TYPE:
            names = tuple(one.name for one in response.resources if one.name.startswith(POOLS))
            stream.receive(DeltaRequest(type_url=ENDPOINT_TYPE, subscribe=names))
        stream.receive(DeltaRequest(type_url=response.type_url, nonce=response.nonce))


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        (Caller("n1", "shop", "client", "u"), "waypoint"),
        (Caller("n1", "other", "waypoint", "u"), "waypoint"),
        (OWN, "second"),
        (Caller("n1", "ambient-system", "ztunnel", "u"), "waypoint"),
    ],
)
def test_nobody_but_its_own_account_is_told_a_waypoints_configuration(caller: Caller, name: str) -> None:
    made = waypoints(scene())
    made.open(OWN, "waypoint")
    with pytest.raises(Refused, match="no waypoint of Gateway"):
        made.open(caller, name)


def test_a_large_configuration_is_made_in_steps_and_told_as_one() -> None:
    made = waypoints(scene())
    before = made.summary["shop/waypoint"]["resources"]
    found = scene(
        *(service(f"s{number}", {"name": "http", "port": 80}, ip=f"10.96.1.{number}") for number in range(30))
    )
    steps = made.updating(found, derived(found))
    for count, _ in enumerate(steps):
        assert made.summary["shop/waypoint"]["resources"] == before, count
    assert count > 5
    assert made.summary["shop/waypoint"]["resources"] > before + 100


def test_a_change_is_told_and_nothing_else() -> None:
    first = scene()
    made = waypoints(first)
    stream = made.open(OWN, "waypoint")
    stream.receive(DeltaRequest(type_url=CLUSTER_TYPE))
    response = stream.pull()
    assert response is not None
    stream.receive(DeltaRequest(type_url=CLUSTER_TYPE, nonce=response.nonce))
    names = tuple(one.name for one in response.resources if one.name.startswith("inbound-vip|80"))
    stream.receive(DeltaRequest(type_url=ENDPOINT_TYPE, subscribe=names))
    response = stream.pull()
    assert response is not None
    stream.receive(DeltaRequest(type_url=ENDPOINT_TYPE, nonce=response.nonce))
    assert stream.pull() is None
    again = scene()
    assert not made.update(again, derived(again))
    more = scene(pod("web-9", "10.1.0.9"))
    assert made.update(more, derived(more))
    response = stream.pull()
    assert response is not None
    assert (response.type_url, [one.name for one in response.resources]) == (ENDPOINT_TYPE, list(names))


def test_what_cannot_be_made_stays_and_is_said_and_another_waypoint_goes_on() -> None:
    both = scene(gateway("second"))
    made = waypoints(both)
    before = made.summary["shop/waypoint"]["resources"]
    more = scene(gateway("second"), policy("p", "DENY", TARGET, rules=[{}]))
    good = derived(more)
    unmakable: Any = object()
    assert made.update(more, replace(good, waypoints={**good.waypoints, "shop/second": unmakable}))
    assert made.summary["shop/waypoint"]["resources"] == before
    assert made.summary["shop/waypoint"]["refused"] == {}
    assert statuses(made, "Gateway/shop/second")["ambient.mesh/Configured"] == ("False", "Refused")
    assert made.update(both, derived(both))
    assert statuses(made, "Gateway/shop/second")["ambient.mesh/Configured"] != ("False", "Refused")


def test_when_nothing_can_be_made_of_a_snapshot_all_stays_and_is_said() -> None:
    found = scene()
    made = waypoints(found)
    before = made.summary["shop/waypoint"]["resources"]
    broken: Any = object()
    assert not made.update(found, broken)
    assert made.summary["shop/waypoint"]["resources"] == before
    assert statuses(made)["ambient.mesh/Configured"] == ("False", "Refused")


def test_what_had_changed_when_nothing_could_be_made_is_told_with_the_next_snapshot() -> None:
    before, after = scene(), scene(policy("p", "DENY", TARGET, rules=[{}]), service("db", {"port": 1}, ip="10.96.0.2"))
    made = waypoints(before)
    broken: Any = object()
    news = frozenset({"AuthorizationPolicy/shop/p", "Service/shop/db"})
    assert not made.update(replace(after, changed=news), broken)
    nothing = replace(derived(after), changes=Changes((), (), ()))
    assert made.update(replace(after, changed=frozenset()), nothing)
    whole = waypoints(after)
    assert made._served[KEY].made == whole._served[KEY].made
    assert statuses(made) == statuses(whole)


def test_a_policy_is_told_as_routes() -> None:
    made = waypoints(scene())
    before = made.summary["shop/waypoint"]["resources"]
    more = scene(policy("p", "DENY", TARGET, rules=[{}]))
    assert made.update(more, derived(more))
    assert made.summary["shop/waypoint"]["resources"] == before


def test_a_gateway_says_how_far_it_is() -> None:
    made = waypoints(scene(gateway(ready=False), without=("waypoint",)))
    assert statuses(made) == {"Accepted": ("True", "Accepted"), "Programmed": ("False", "AddressNotAssigned")}
    found = scene()
    made.update(found, derived(found))
    assert statuses(made)["Programmed"] == ("False", "Pending")
    assert statuses(made)["ambient.mesh/Configured"] == ("False", "NoProxy")
    stream = made.open(OWN, "waypoint")
    assert statuses(made)["Programmed"] == ("False", "Pending")
    assert statuses(made)["ambient.mesh/Configured"] == ("True", "Accepted")
    take_all(made.open(OWN, "waypoint"))
    assert statuses(made)["Programmed"] == ("True", "Programmed")
    stream.receive(DeltaRequest(type_url=CLUSTER_TYPE))
    response = stream.pull()
    assert response is not None
    name = response.resources[0].name
    heard: list[str] = []
    made.say = heard.append
    stream.receive(DeltaRequest(type_url=CLUSTER_TYPE, nonce=response.nonce, error=f"{name}: no such thing"))
    made.heard(stream)
    assert heard == [KEY]
    assert statuses(made)["ambient.mesh/Configured"] == ("False", "Refused")
    assert "no such thing" in made.conditions(KEY)[-1].message
    made.close(stream)
    assert statuses(made)["ambient.mesh/Configured"] == ("True", "Accepted")


def test_a_gateway_that_lets_in_clients_whom_nobody_vouches_for_says_so_for_as_long() -> None:
    def said(mode: str) -> dict[str, tuple[str, str]]:
        check = {"caCertificateRefs": [{"kind": "ConfigMap", "name": "enterprise"}], "mode": mode}
        front = gateway("front")
        front["spec"] = {
            "gatewayClassName": "istio",
            "listeners": [
                {"name": "web", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "s"}]}}
            ],
            "tls": {"frontend": {"default": {"validation": check}}},
        }
        return statuses(waypoints(scene(front)), "Gateway/shop/front")

    assert said("AllowInsecureFallback")["InsecureFrontendValidationMode"] == ("True", "ConfigurationChanged")
    assert "InsecureFrontendValidationMode" not in said("AllowValidOnly")


def test_an_obstacle_to_what_a_gateway_stands_for_is_said_and_its_class_is_accepted() -> None:
    own = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "istio-waypoint"}}
    found = scene({**own, "spec": {"controllerName": CONTROLLER}})
    made = waypoints(found)
    take_all(made.open(OWN, "waypoint"))
    made.obstacle = lambda key: Condition("Programmed", "False", "NoResources", "exceeded quota")
    assert statuses(made)["Programmed"] == ("False", "NoResources")
    (said,) = made.with_gateways({})["GatewayClass/_/istio-waypoint"]
    assert (said.type, said.status) == ("Accepted", "True")
    found = scene({**own, "spec": {"controllerName": "example.com/theirs"}})
    made.update(found, derived(found))
    assert "GatewayClass/_/istio-waypoint" not in made.with_gateways({})


def test_what_was_said_of_a_gateway_holds_until_its_proxies_have_had_time_to_come_back() -> None:
    before = gateway()
    said = {"type": "Programmed", "status": "True", "reason": "Programmed", "message": "x"}
    before["status"]["conditions"] = [said]
    made = waypoints(scene(before, without=("waypoint",)))
    assert statuses(made)["Programmed"] == ("True", "Programmed")
    assert statuses(made)["ambient.mesh/Configured"] == ("True", "Accepted")


def test_a_gateway_with_other_listeners_is_not_accepted_and_not_served() -> None:
    made = waypoints(scene(gateway(port=80), without=("waypoint",)))
    assert statuses(made) == {"Accepted": ("False", "UnsupportedProtocol")}
    with pytest.raises(Refused):
        made.open(OWN, "waypoint")


def test_a_gateway_gets_its_services_name_as_its_address_once() -> None:
    own = service("waypoint", {"name": "mesh", "port": 15008}, ip="10.96.0.8")
    found = scene(gateway(ready=False), own, without=("waypoint",))
    ((record, (address,)),) = waypoints(found).wanted_addresses(found)
    assert (record.key, address.type, address.value) == (KEY, "Hostname", "waypoint.shop.svc.cluster.local")
    found = scene(own)
    assert list(waypoints(found).wanted_addresses(found)) == []


def test_the_last_name_of_all_is_the_table_that_leads_to_the_rest() -> None:
    made = waypoints(scene())
    stream = made.open(OWN, "waypoint")
    stream.receive(DeltaRequest(type_url=ROUTE_TYPE, subscribe=("connect",)))
    assert stream.pull() is None


def test_a_gateway_that_is_none_for_a_while_leaves_no_proxy_with_the_policies_of_before() -> None:
    """Its streams end, so that they come again and find the catalogue that is kept up to date."""
    made = waypoints(scene())
    stream = made.open(OWN, "waypoint")
    stream.receive(DeltaRequest(type_url=CLUSTER_TYPE))
    assert stream.pull() is not None
    for found in (scene(gateway(port=80), without=("waypoint",)), scene()):
        made.update(found, derived(found))
    with pytest.raises(Unavailable, match="its Gateway is none of ours any more"):
        stream.pull()
    again = made.open(OWN, "waypoint")
    again.receive(DeltaRequest(type_url=CLUSTER_TYPE))
    assert again.pull() is not None
