"""The pages that tell how far every client is."""

from __future__ import annotations

from ambient.ca.token import Caller
from ambient.control.discovery import Client
from ambient.control.sync import sync_page, syncz_page
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import ADDRESS_TYPE
from ambient.xds.messages import DeltaRequest
from ambient.xds.server import DeltaStream
from tests.support.discovery import simple_workload


def client(catalogue: Catalogue) -> Client:
    stream = DeltaStream(catalogue)
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE))
    return Client(Caller("n1", "ambient-system", "ztunnel"), "10.0.0.1:5", stream, 1_700_000_000.0)


def test_a_client_is_late_until_it_answers_and_its_refusals_are_told() -> None:
    catalogue = Catalogue()
    catalogue.update([simple_workload("a")], 3)
    one = client(catalogue)
    response = one.stream.pull()
    assert response is not None
    assert sync_page(3, {"agent-n1": 2}, {"n1/ztunnel": one}, {"shop/waypoint": {"proxies": 1}}) == {
        "observed": 3,
        "writers": {"agent-n1": 2},
        "clients": {"n1/ztunnel": {"acked": 0, "settled": False}},
        "waypoints": {"shop/waypoint": {"proxies": 1}},
    }
    name = simple_workload("a").uid
    one.stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, nonce=response.nonce, error=f"{name}: bad address"))
    assert one.stream.pull() is None
    assert sync_page(3, {}, {"n1/ztunnel": one}, {})["clients"]["n1/ztunnel"] == {
        "acked": 3,
        "settled": True,
        "nack": f"{name}: bad address",
    }


def test_syncz_has_istiods_shape() -> None:
    catalogue = Catalogue()
    catalogue.update([], 1)
    one = client(catalogue)
    response = one.stream.pull()
    assert response is not None
    one.sent[ADDRESS_TYPE] = response.nonce
    (entry,) = syncz_page("Kubernetes", {"n1/ztunnel": one})
    assert entry["proxy"] == "n1/ztunnel"
    assert entry["proxy_type"] == "ztunnel"
    assert entry["resources"] == {ADDRESS_TYPE: {"sent": response.nonce, "acked": ""}}
    one.stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, nonce=response.nonce))
    (entry,) = syncz_page("Kubernetes", {"n1/ztunnel": one})
    assert entry["resources"][ADDRESS_TYPE]["acked"] == response.nonce
    assert entry["connected"] == "2023-11-14T22:13:20+00:00"
