"""Clients and servers of discovery that are Istio's: their bytes to our control plane, istiod's bytes to our client.

The client here is plain gRPC with the messages as a stock ztunnel writes them, none of our client's code.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ambient.xds.client import DeltaClient
from ambient.xds.messages import decode_response, ztunnel_node
from ambient.xds.wire import message
from tests.support.arena import Arena
from tests.support.caller import DELTA, Caller, ask_for, caller
from tests.support.journey import FAR
from tests.support.mint import spiffe

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"
GOLDEN = Path(__file__).parents[1] / "golden" / "xds"


@pytest.fixture(scope="module")
def control(place: Arena) -> Iterator[Caller]:
    with caller(place.lab) as made:
        yield made


class Stream:
    """A stock client's stream: requests as dictionaries of the wire's fields."""

    def __init__(self, control: Caller) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = control.channel.stream_stream(DELTA)(
            iter(self._requests.get, None), metadata=control.bearer(), timeout=100
        )

    def send(self, *, node: bool = False, **fields: Any) -> None:
        request = message("envoy.service.discovery.v3.DeltaDiscoveryRequest")(**fields)
        if node:
            request.node.id = "ztunnel~1.1.1.1~ztunnel-abcde.istio-system~istio-system.svc.cluster.local"
            meta = {"NAME": "ztunnel-abcde", "NAMESPACE": "istio-system", "NODE_NAME": "n1", "CLUSTER_ID": "Kubernetes"}
            request.node.metadata.update({**meta, "INSTANCE_IPS": "1.1.1.1", "ISTIO_VERSION": "1.30.0"})
        self._requests.put(request.SerializeToString())

    def receive(self) -> Any:
        return message("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(next(self.call))

    def close(self) -> None:
        self._requests.put(None)
        self.call.cancel()


@pytest.fixture
def stream(control: Caller) -> Iterator[Stream]:
    made = Stream(control)
    yield made
    made.close()


def _addresses(response: Any) -> dict[str, Any]:
    return {r.name: message("istio.workload.Address").FromString(r.resource.value) for r in response.resources}


def test_a_wildcard_subscription_brings_every_workload_and_service_under_istios_names(
    place: Arena, stream: Stream
) -> None:
    stream.send(node=True, type_url=ADDRESS, resource_names_subscribe=["*"])
    response = stream.receive()
    found = _addresses(response)
    far = found["Kubernetes//Pod/shop/far"].workload
    assert (far.name, far.namespace, far.service_account, far.node) == ("far", "shop", "far", "n2")
    assert far.uid == "Kubernetes//Pod/shop/far"
    assert place.mint.certificate is not None
    assert {len(address) for address in far.addresses} == {4, 16}
    assert "shop/far.shop.svc.cluster.local" in far.services
    service = found["shop/far.shop.svc.cluster.local"].service
    assert (service.name, service.namespace, service.hostname) == ("far", "shop", "far.shop.svc.cluster.local")
    assert response.nonce
    assert all(resource.version for resource in response.resources)
    assert {resource.resource.type_url for resource in response.resources} == {ADDRESS}


def test_policies_come_as_istios_authorizations(stream: Stream) -> None:
    stream.send(node=True, type_url=AUTHORIZATION, resource_names_subscribe=["*"])
    response = stream.receive()
    policies = {
        r.name: message("istio.security.Authorization").FromString(r.resource.value) for r in response.resources
    }
    only_web = policies["shop/only-web"]
    matches = only_web.rules[0].clauses[0].matches if hasattr(only_web.rules[0], "clauses") else only_web.rules
    assert "cluster.local/ns/shop/sa/web" in str(matches)


def test_an_on_demand_subscription_asks_by_address_and_is_answered_with_what_has_it(
    place: Arena, stream: Stream
) -> None:
    stream.send(node=True, type_url=ADDRESS, resource_names_subscribe=[f"/{place.mesh.host(FAR, 4)}"],
                resource_names_unsubscribe=["*"])  # fmt: skip
    found = _addresses(stream.receive())
    assert "Kubernetes//Pod/shop/far" in found


def test_a_name_that_nothing_has_is_answered_as_removed(stream: Stream) -> None:
    stream.send(node=True, type_url=ADDRESS, resource_names_subscribe=["/192.0.2.77"],
                resource_names_unsubscribe=["*"])  # fmt: skip
    removed: set[str] = set()
    while "/192.0.2.77" not in removed:
        response = stream.receive()
        removed |= set(response.removed_resources)
        stream.send(type_url=ADDRESS, response_nonce=response.nonce)


def test_what_was_acknowledged_is_not_sent_again_to_who_comes_back(control: Caller, stream: Stream) -> None:
    stream.send(node=True, type_url=ADDRESS, resource_names_subscribe=["*"])
    response = stream.receive()
    stream.send(type_url=ADDRESS, response_nonce=response.nonce)
    versions = {resource.name: resource.version for resource in response.resources}
    again = Stream(control)
    try:
        gone = "Kubernetes//Pod/shop/was-here"
        again.send(
            node=True,
            type_url=ADDRESS,
            resource_names_subscribe=["*"],
            initial_resource_versions={**versions, gone: "1"},
        )
        answer = again.receive()
        assert not set(_addresses(answer)) & versions.keys()
        assert list(answer.removed_resources) == [gone]
    finally:
        again.close()


def test_a_certificate_is_what_a_stock_ztunnel_takes(control: Caller) -> None:
    request = message("istio.v1.auth.IstioCertificateRequest")(csr=ask_for(spiffe("web")), validity_duration=86400)
    request.metadata.fields["ImpersonatedIdentity"].string_value = spiffe("web")
    chain = control.sign(request.SerializeToString()).cert_chain
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe("web")]
    root = x509.load_pem_x509_certificate(chain[-1].encode())
    leaf.verify_directly_issued_by(root)


@pytest.mark.parametrize("name", ["000-address", "001-authorization"])
def test_what_a_real_istiod_sent_is_taken_whole_by_our_client(name: str) -> None:
    response = decode_response((GOLDEN / f"{name}.pb").read_bytes())
    client = DeltaClient(ztunnel_node("n1"))
    list(client.open())
    batch, answer = client.receive(response)
    assert answer.error is None, answer.error
    assert len(batch.put) == len(response.resources)
    assert answer.nonce == response.nonce


def test_every_field_that_istiod_uses_has_its_name_in_our_messages() -> None:
    """Nothing in the golden's resources is unknown to our .proto files: it would be lost without a word."""
    response = message("envoy.service.discovery.v3.DeltaDiscoveryResponse")
    kinds = {"000-address": "istio.workload.Address", "001-authorization": "istio.security.Authorization"}
    for name, kind in kinds.items():
        for resource in response.FromString((GOLDEN / f"{name}.pb").read_bytes()).resources:
            read = message(kind).FromString(resource.resource.value)
            assert _unknown(read) == [], resource.name


def _unknown(read: Any) -> list[int]:
    """Numbers of fields that the message's type does not have, at any depth."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    found = [one.field_number for one in UnknownFieldSet(read)]
    for descriptor, value in read.ListFields():
        if descriptor.message_type is not None:
            values = value.values() if hasattr(value, "values") else value if hasattr(value, "__len__") else [value]
            found += [number for part in values if hasattr(part, "ListFields") for number in _unknown(part)]
    return found
