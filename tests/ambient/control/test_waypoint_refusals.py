"""What a waypoint's proxy refuses is closed, as narrowly as can be told, until it is another thing or is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from ambient.ca.token import Caller
from ambient.control.waypoint_metrics import WaypointCollector
from ambient.control.waypoints import Waypoints
from ambient.kube.objects import Records
from ambient.waypoint.resources import ENVOY_TYPES
from ambient.waypoint.tunnel import CONNECT_ROUTES, TERMINATE, table_of
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE
from ambient.xds.codec import Resource
from ambient.xds.messages import DeltaRequest
from tests.support.builders import raw
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_records import POOLS, TARGET, derived, policy, scene, service, tokens

OWN = Caller("n1", "shop", "waypoint", "u")
OTHER = service("other", {"name": "http", "port": 80}, {"name": "tcp-b", "port": 9001}, ip="10.96.0.2")
WEB, RAW = "service|80|web.shop.svc.cluster.local", "service|9000|web.shop.svc.cluster.local"
THEIRS = "service|80|other.shop.svc.cluster.local"
DENY = policy("deny", "DENY", TARGET, rules=[{}])
ROOTS, MORE = Authority("partners").roots, Authority("others").roots
LAYER_4 = policy("from", "ALLOW", TARGET, rules=[{"from": [{"source": {"namespaces": ["shop"]}}]}])

Refuses = Callable[[Resource], bool]


class Proxy:
    """Takes everything but what `refuses` says, and blames nobody but in words that anybody could have written."""

    def __init__(self, waypoints: Waypoints) -> None:
        self.waypoints = waypoints
        self.stream = waypoints.open(OWN, "waypoint")
        self.has: dict[tuple[str, str], bytes] = {}
        self.refuses: Refuses = lambda resource: False
        for url in (CLUSTER_TYPE, LISTENER_TYPE):
            self.stream.receive(DeltaRequest(type_url=url))

    def settle(self) -> None:
        while (response := self.stream.pull()) is not None:
            bad = [one.name for one in response.resources if self.refuses(one)]
            error = f"cannot take this: {THEIRS}: no; {WEB}: neither" if bad else None
            for one in () if bad else response.resources:
                self.has[one.type_url, one.name] = one.body
            for name in response.removed:
                self.has.pop((response.type_url, name), None)
            self.hear(DeltaRequest(type_url=response.type_url, nonce=response.nonce, error=error))
            self._ask(response.resources)

    def hear(self, request: DeltaRequest) -> None:
        self.stream.receive(request)
        self.waypoints.heard(self.stream)

    def _ask(self, resources: Iterable[Resource]) -> None:
        for one in resources:
            if one.type_url == CLUSTER_TYPE and one.name.startswith(POOLS):
                self.hear(DeltaRequest(type_url=ENDPOINT_TYPE, subscribe=(one.name,)))
            if one.type_url == LISTENER_TYPE:
                name = CONNECT_ROUTES if one.name == TERMINATE else table_of(one.name)
                self.hear(DeltaRequest(type_url=ROUTE_TYPE, subscribe=(name,)))


def waypoints(*more: dict[str, Any]) -> Waypoints:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local")
    tell(made, scene(OTHER, *more))
    return made


def tell(made: Waypoints, found: Records) -> None:
    made.update(found, derived(found))


def proxy(made: Waypoints) -> Proxy:
    one = Proxy(made)
    one.settle()
    assert {url for url, _ in one.has} == {*ENVOY_TYPES} - {SECRET_TYPE}, "certificates are told to gateways only"
    assert one.stream.complete
    return one


def table(one: Proxy) -> str:
    return one.has[ROUTE_TYPE, CONNECT_ROUTES].decode(errors="replace")


def closed(made: Waypoints) -> list[str]:
    found: list[str] = made.summary["shop/waypoint"]["closed"]
    return found


def only(url: str, name: str, holding: bytes = b"") -> Refuses:
    return lambda one: one.type_url == url and one.name == name and holding in one.body


def test_refused_routes_are_replaced_by_none_that_lets_anything_pass() -> None:
    made = waypoints()
    one = proxy(made)
    one.refuses = only(ROUTE_TYPE, WEB, b"policy[deny]")
    tell(made, scene(OTHER, DENY))
    one.settle()
    assert closed(made) == [WEB]
    assert b"could not take" in one.has[ROUTE_TYPE, WEB]
    assert b"could not take" not in one.has[ROUTE_TYPE, THEIRS]
    assert made.conditions("Gateway/shop/waypoint")[-1].status == "False"
    assert WEB in made.conditions("Gateway/shop/waypoint")[-1].message


def test_what_is_refused_while_all_is_made_anew_is_closed_in_the_end() -> None:
    made = waypoints()
    one = proxy(made)
    one.refuses = only(ROUTE_TYPE, WEB, b"policy[deny]")
    tell(made, scene(OTHER, DENY))
    response = one.stream.pull()
    assert response is not None
    more = (service(f"s{number}", {"name": "http", "port": 80}, ip=f"10.96.1.{number}") for number in range(30))
    found = scene(OTHER, DENY, *more)
    steps = made.updating(found, derived(found))
    next(steps)
    one.hear(DeltaRequest(type_url=response.type_url, nonce=response.nonce, error="no"))
    assert closed(made) == []
    for _ in steps:
        pass
    one.settle()
    assert closed(made) == [WEB]
    assert b"could not take" in one.has[ROUTE_TYPE, WEB]


def test_what_a_refusal_says_blames_nobody_who_is_not_refused() -> None:
    made = waypoints()
    one = proxy(made)
    one.refuses = only(ROUTE_TYPE, WEB, b"policy[deny]")
    theirs = policy("theirs", "DENY", {"kind": "Service", "name": "other"}, rules=[{}])
    tell(made, scene(OTHER, DENY, theirs))
    one.settle()
    assert closed(made) == [WEB]
    assert b"policy[theirs]" in one.has[ROUTE_TYPE, THEIRS]


def test_it_is_open_again_when_it_is_another_thing_and_is_taken() -> None:
    made = waypoints()
    one = proxy(made)
    one.refuses = only(ROUTE_TYPE, WEB, b"policy[deny]")
    tell(made, scene(OTHER, DENY))
    one.settle()
    tell(made, scene(OTHER, DENY))
    one.settle()
    assert closed(made) == [WEB]
    tell(made, scene(OTHER, policy("another", "DENY", TARGET, rules=[{}])))
    one.settle()
    assert closed(made) == []
    assert b"policy[another]" in one.has[ROUTE_TYPE, WEB]
    assert made.conditions("Gateway/shop/waypoint")[-1].status == "True"


def test_a_refused_listener_is_replaced_by_one_that_nobody_wrote_anything_of() -> None:
    made = waypoints()
    one = proxy(made)
    one.refuses = only(LISTENER_TYPE, WEB, b"issuer.example")
    tell(made, scene(OTHER, tokens("issuer", TARGET)))
    one.settle()
    assert closed(made) == [WEB]
    assert b"issuer.example" not in one.has[LISTENER_TYPE, WEB]
    assert b"could not take" in one.has[ROUTE_TYPE, WEB]


def test_of_a_refused_table_only_what_it_says_anew_is_left_out() -> None:
    made = waypoints()
    one = proxy(made)
    assert RAW in table(one)
    one.refuses = only(ROUTE_TYPE, CONNECT_ROUTES, b"policy[from]")
    tell(made, scene(OTHER, LAYER_4))
    one.settle()
    assert closed(made) == [RAW]
    assert RAW not in table(one)
    assert {WEB in table(one), THEIRS in table(one)} == {True}


def test_a_table_that_is_refused_for_no_such_reason_leaves_nobody_in() -> None:
    made = waypoints()
    one = proxy(made)
    one.refuses = only(ROUTE_TYPE, CONNECT_ROUTES, THEIRS.encode())
    tell(made, scene(OTHER, LAYER_4))
    one.settle()
    assert {WEB, RAW, THEIRS} <= set(closed(made))
    assert "service|" not in table(one)


def test_what_is_refused_for_all_services_closes_all() -> None:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local")
    tell(made, scene(OTHER))
    one = Proxy(made)
    one.refuses = only(LISTENER_TYPE, TERMINATE)
    one.settle()
    assert {WEB, RAW, THEIRS} <= set(closed(made))


def test_when_who_refused_has_gone_it_is_tried_again() -> None:
    made = waypoints(DENY)
    one = Proxy(made)
    one.refuses = only(ROUTE_TYPE, WEB, b"policy[deny]")
    one.settle()
    assert closed(made) == [WEB]
    another = Proxy(made)
    another.settle()
    assert b"could not take" in another.has[ROUTE_TYPE, WEB]
    assert made.close(one.stream)
    another.settle()
    assert closed(made) == []
    assert b"policy[deny]" in another.has[ROUTE_TYPE, WEB]


def test_an_answer_to_what_is_not_told_any_more_closes_nothing() -> None:
    made = waypoints()
    one = proxy(made)
    tell(made, scene(OTHER, DENY))
    response = one.stream.pull()
    assert response is not None
    tell(made, scene(OTHER))
    one.hear(DeltaRequest(type_url=response.type_url, nonce=response.nonce, error="no"))
    one.settle()
    assert closed(made) == []


def test_what_is_refused_and_closed_can_be_alarmed_of() -> None:
    made = waypoints()
    registry = CollectorRegistry()
    registry.register(WaypointCollector(made))
    one = proxy(made)
    one.refuses = only(ROUTE_TYPE, WEB, b"policy[deny]")
    tell(made, scene(OTHER, DENY))
    one.settle()
    text = generate_latest(registry).decode()
    for name in ("proxies", "refused_resources", "closed_ports"):
        assert f'ambient_control_waypoint_{name}{{gateway="waypoint",namespace="shop"}} 1.0' in text


BEYOND = service("beyond", {"name": "http", "port": 80}, ip="10.96.0.3", **{"istio.io/use-waypoint": "none"})
POOL = "inbound-vip|80|http|beyond.shop.svc.cluster.local"


def to(name: str) -> dict[str, Any]:
    rules = [{"backendRefs": [{"name": name, "port": 80}]}]
    made = raw("HTTPRoute", "r", {"parentRefs": [{"group": "", **TARGET}], "rules": rules}, namespace="shop")
    return {**made, "apiVersion": "gateway.networking.k8s.io/v1"}


def begun_with(name: str, ca: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """TLS with a service, and who vouches for it."""
    validation = {
        "hostname": "x.example.com",
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": f"{name}-ca"}],
    }
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": name}], "validation": validation}
    made = raw("BackendTLSPolicy", name, spec, namespace="shop")
    metadata = {"name": f"{name}-ca", "namespace": "shop"}
    vouching = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": ca}}
    return {**made, "apiVersion": "gateway.networking.k8s.io/v1"}, vouching


def test_endpoints_beyond_whose_new_cluster_is_refused_are_there_no_more() -> None:
    made = waypoints(BEYOND, to("beyond"))
    one = proxy(made)
    assert (CLUSTER_TYPE, POOL) in one.has
    one.refuses = only(CLUSTER_TYPE, POOL, b"UpstreamTlsContext")
    tell(made, scene(OTHER, BEYOND, to("beyond"), *begun_with("beyond", ROOTS)))
    one.settle()
    assert not {(CLUSTER_TYPE, POOL), (ENDPOINT_TYPE, POOL)} & one.has.keys(), "plain text would go on"
    assert closed(made) == ["service|80|beyond.shop.svc.cluster.local"]
    assert WEB in table(one)
    tell(made, scene(OTHER, BEYOND, to("beyond")))
    one.settle()
    assert (CLUSTER_TYPE, POOL) in one.has
    assert closed(made) == []


def test_a_refused_cluster_of_a_service_is_led_to_by_no_route_of_another() -> None:
    made = waypoints(to("other"))
    one = proxy(made)
    one.hear(DeltaRequest(type_url=SECRET_TYPE, subscribe=("upstream/authority/ConfigMap/shop/other-ca",)))
    pool = "inbound-vip|80|http|other.shop.svc.cluster.local"
    one.refuses = only(CLUSTER_TYPE, pool, b"UpstreamTlsContext")
    tell(made, scene(OTHER, to("other"), *begun_with("other", ROOTS)))
    one.settle()
    assert (CLUSTER_TYPE, pool) not in one.has
    assert closed(made) == [THEIRS]


def test_a_refused_secret_closes_the_ports_that_rest_on_it_and_no_others() -> None:
    made = waypoints(BEYOND, to("beyond"), *begun_with("other", ROOTS), *begun_with("beyond", MORE))
    one = Proxy(made)
    name = "upstream/authority/ConfigMap/shop/{}-ca"
    both = tuple(name.format(each) for each in ("other", "beyond"))
    one.hear(DeltaRequest(type_url=SECRET_TYPE, subscribe=both))
    one.refuses = only(SECRET_TYPE, both[0])
    one.settle()
    theirs = ["service|80|other.shop.svc.cluster.local", "service|9001|other.shop.svc.cluster.local"]
    assert closed(made) == theirs
    assert (CLUSTER_TYPE, "inbound-vip|80|http|other.shop.svc.cluster.local") not in one.has
    assert (CLUSTER_TYPE, POOL) in one.has
    assert b"could not take" not in one.has[ROUTE_TYPE, WEB]
    tell(made, scene(OTHER, BEYOND, to("beyond"), *begun_with("other", MORE), *begun_with("beyond", MORE)))
    one.refuses = lambda resource: False
    one.settle()
    assert closed(made) == []
    assert (CLUSTER_TYPE, "inbound-vip|80|http|other.shop.svc.cluster.local") in one.has
