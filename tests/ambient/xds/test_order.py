"""Make before break: what has to wait for other types waits, whatever a client asks for first."""

from __future__ import annotations

from dataclasses import replace

from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import Resource
from ambient.xds.messages import DeltaRequest, DeltaResponse
from ambient.xds.server import DeltaStream, Order

CLUSTERS, ENDPOINTS, LISTENERS, ROUTES = "c", "e", "l", "r"
ORDER = Order(
    (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES),
    put_after={LISTENERS: (CLUSTERS, ENDPOINTS)},
    removed_after={CLUSTERS: (LISTENERS, ROUTES), LISTENERS: (ROUTES,)},
    last=frozenset({"table"}),
)


def resource(url: str, name: str, version: str = "1") -> Resource:
    return Resource(url, name, version, b"x")


BASE = (
    resource(CLUSTERS, "a"),
    resource(ENDPOINTS, "a"),
    resource(LISTENERS, "door"),
    resource(ROUTES, "table"),
)


class Client:
    """Asks, and answers when it is told to."""

    def __init__(self, *resources: Resource, order: Order = ORDER) -> None:
        self.catalogue = Catalogue(types=ORDER.types)
        self.catalogue.update(resources, 1)
        self.stream = DeltaStream(self.catalogue, order=order)

    def ask(self, url: str, *names: str) -> None:
        self.stream.receive(DeltaRequest(type_url=url, subscribe=names))

    def told(self) -> list[tuple[str, list[str], list[str]]]:
        """Everything that comes now, acknowledged."""
        found = []
        while (response := self.stream.pull()) is not None:
            found.append(summary(response))
            self.stream.receive(DeltaRequest(type_url=response.type_url, nonce=response.nonce))
        return found


def summary(response: DeltaResponse) -> tuple[str, list[str], list[str]]:
    return response.type_url, [one.name for one in response.resources], list(response.removed)


def connected(*resources: Resource, order: Order = ORDER) -> Client:
    client = Client(*resources, order=order)
    client.ask(CLUSTERS)
    client.told()
    client.ask(ENDPOINTS, "a")
    client.ask(LISTENERS)
    client.told()
    client.ask(ROUTES, "table")
    client.told()
    return client


def test_listeners_wait_until_the_endpoints_of_every_cluster_were_taken() -> None:
    client = Client(*BASE)
    client.ask(LISTENERS)
    client.ask(CLUSTERS)
    assert client.told() == [(CLUSTERS, ["a"], [])]
    client.ask(ENDPOINTS, "a")
    assert client.told() == [(ENDPOINTS, ["a"], []), (LISTENERS, ["door"], [])]


def test_the_last_name_waits_for_everything_even_for_what_was_not_asked_for_yet() -> None:
    client = connected(*BASE)
    more = (resource(CLUSTERS, "b"), resource(ENDPOINTS, "b"), resource(LISTENERS, "b"), resource(ROUTES, "b"))
    client.catalogue.update((*BASE[:3], resource(ROUTES, "table", "2"), *more), 2)
    assert client.told() == [(CLUSTERS, ["b"], [])]
    client.ask(ENDPOINTS, "b")
    assert client.told() == [(ENDPOINTS, ["b"], []), (LISTENERS, ["b"], [])]
    client.ask(ROUTES, "b")
    assert client.told() == [(ROUTES, ["b"], []), (ROUTES, ["table"], [])]


def test_what_goes_goes_after_what_leads_to_it() -> None:
    both = (resource(CLUSTERS, "b"), resource(LISTENERS, "b"))
    client = connected(*BASE, *both)
    client.catalogue.update((*BASE[:3], resource(ROUTES, "table", "2")), 2)
    assert client.told() == [(ROUTES, ["table"], []), (LISTENERS, [], ["b"]), (CLUSTERS, [], ["b"])]


def test_what_the_client_refuses_holds_nothing_else_up() -> None:
    client = connected(*BASE)
    more = (resource(CLUSTERS, "b"), resource(ENDPOINTS, "b"))
    client.catalogue.update((*BASE[:3], resource(ROUTES, "table", "2"), *more), 2)
    response = client.stream.pull()
    assert response is not None
    client.stream.receive(DeltaRequest(type_url=CLUSTERS, nonce=response.nonce, error="no"))
    assert client.told() == [(ROUTES, ["table"], [])]
    assert client.stream.nacks == {"b": "no"}


def test_nobody_waits_for_what_only_a_refused_resource_would_have_made_its_client_ask_for() -> None:
    more = (resource(LISTENERS, "b|tcp"), resource(ROUTES, "b"))
    for order, told in ((ORDER, []), (replace(ORDER, asks=lambda name: name[0]), [(ROUTES, ["table"], [])])):
        client = connected(*BASE, order=order)
        client.catalogue.update((*BASE[:3], resource(ROUTES, "table", "2"), *more), 2)
        response = client.stream.pull()
        assert response is not None
        client.stream.receive(DeltaRequest(type_url=LISTENERS, nonce=response.nonce, error="no"))
        assert client.told() == told


def test_of_several_the_one_that_is_refused_is_found_and_the_rest_is_taken() -> None:
    client = connected(*BASE)
    client.catalogue.update((*BASE, *(resource(CLUSTERS, name) for name in "xyz")), 2)
    taken, refused = set(), 0
    while (response := client.stream.pull()) is not None:
        names = {one.name for one in response.resources}
        error = "one of these is bad" if "y" in names else None
        refused += error is not None
        taken |= names if error is None else set()
        client.stream.receive(DeltaRequest(type_url=CLUSTERS, nonce=response.nonce, error=error))
    assert taken == {"x", "z"}
    assert refused <= 3
    assert client.stream.nacks == {"y": "one of these is bad"}


def test_what_waits_for_another_type_after_a_change_gets_it_again() -> None:
    order = replace(ORDER, renewed_by={CLUSTERS: ENDPOINTS})
    for stream_order, again in ((ORDER, []), (order, [(ENDPOINTS, ["a"], [])])):
        client = Client(*BASE, order=stream_order)
        client.ask(CLUSTERS)
        client.told()
        client.ask(ENDPOINTS, "a")
        client.told()
        client.catalogue.update((resource(CLUSTERS, "a", "2"), *BASE[1:]), 2)
        assert client.told() == [(CLUSTERS, ["a"], []), *again]


def test_what_nothing_else_changes_with_is_removed_all_the_same() -> None:
    client = connected(*BASE, resource(CLUSTERS, "b"))
    client.catalogue.update(BASE, 2)
    assert client.told() == [(CLUSTERS, [], ["b"])]
    assert client.stream.settled
