"""Discovery messages cross the wire unchanged; rubbish does not cross it."""

from __future__ import annotations

import pytest

from ambient.errors import ProtocolError
from ambient.xds.codec import ADDRESS_TYPE, Resource
from ambient.xds.messages import (
    DeltaRequest,
    DeltaResponse,
    NodeInfo,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    open_response,
    ztunnel_node,
)
from ambient.xds.wire import message


@pytest.mark.parametrize(
    "request_",
    [
        DeltaRequest(type_url=ADDRESS_TYPE),
        DeltaRequest(type_url=ADDRESS_TYPE, node=NodeInfo("id", {"NODE_NAME": "n1"}), versions={"a": "1", "b": ""}),
        DeltaRequest(type_url=ADDRESS_TYPE, versions={"n" * 200: "v", "": ""}, nonce="x"),
        DeltaRequest(type_url=ADDRESS_TYPE, subscribe=("*", "a"), unsubscribe=("b",)),
        DeltaRequest(type_url=ADDRESS_TYPE, nonce="5"),
        DeltaRequest(type_url=ADDRESS_TYPE, nonce="5", error=""),
        DeltaRequest(type_url=ADDRESS_TYPE, nonce="5", error="a: b; c: d"),
    ],
)
def test_requests_cross_unchanged(request_: DeltaRequest) -> None:
    assert decode_request(encode_request(request_)) == request_


def test_responses_cross_unchanged_with_their_aliases_only_when_told() -> None:
    bare = Resource(ADDRESS_TYPE, "n", "v", b"body")
    rich = Resource(ADDRESS_TYPE, "n", "v", b"body", ("a/1", "a/2"), ("node:n1",))
    response = DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=(rich,), removed=("x",), system_version="7")
    assert decode_response(encode_response(response)).resources == (bare,)
    aliased = DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=(rich,), with_aliases=True)
    assert decode_response(encode_response(aliased)).resources[0].aliases == ("a/1", "a/2")


def test_metadata_that_is_not_text_is_left_out() -> None:
    wire = message("envoy.service.discovery.v3.DeltaDiscoveryRequest")(type_url="t")
    wire.node.metadata.update({"NODE_NAME": "n1", "number": 5, "list": ["a"]})
    request = decode_request(wire.SerializeToString())
    assert request.node is not None
    assert request.node.metadata == {"NODE_NAME": "n1"}


def test_the_identification_is_the_one_istiod_expects() -> None:
    node = ztunnel_node("n1", pod="ztunnel-x", namespace="istio-system", ip="10.0.0.1")
    assert node.id == "ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local"
    assert node.node_name == "n1"


@pytest.mark.parametrize("data", [b"\xff", b"\x12\x05a", b"\x12\x01\xff"])
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(data)
    with pytest.raises(ProtocolError):
        decode_response(b"\xff" + data)


def test_resources_are_read_when_they_are_asked_for() -> None:
    resources = tuple(Resource(ADDRESS_TYPE, f"n{i}", "v", b"body" * i) for i in range(40))
    data = encode_response(DeltaResponse(type_url=ADDRESS_TYPE, nonce="9", resources=resources, removed=("x",)))
    response = open_response(data)
    assert (response.type_url, response.nonce, response.removed) == (ADDRESS_TYPE, "9", ("x",))
    assert len(response.resources) == 40
    assert tuple(response.resources) == resources
    assert response.resources[-1] == resources[-1]
    assert response.resources[3:5] == list(resources[3:5])
    with pytest.raises(IndexError):
        response.resources[40]


def test_fields_of_the_future_beside_the_resources_are_passed_over() -> None:
    data = encode_response(DeltaResponse(type_url=ADDRESS_TYPE, nonce="9", removed=("x",)))
    future = b"\xf0\x07\x01" + b"\xf1\x07" + bytes(8) + b"\xf5\x07" + bytes(4) + b"\xf2\x07\x02ab"
    assert open_response(future + data).removed == ("x",)


@pytest.mark.parametrize(
    "data", [b"\x12", b"\x12\x05ab", b"\x12\xff", b"\xf3\x07", b"\x12" + b"\xff" * 10 + b"\x01", b"\xf1\x07ab"]
)
def test_a_response_that_ends_early_or_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_response(data)


def test_json_metadata_travels_and_does_not_replace_what_is_ours() -> None:
    node = ztunnel_node("n1", extra=[("NODE_NAME", "liar"), ("LABELS", {"a": ["b"]})])
    wire = message("envoy.service.discovery.v3.DeltaDiscoveryRequest").FromString(
        encode_request(DeltaRequest(type_url="t", node=node))
    )
    assert wire.node.metadata["NODE_NAME"] == "n1"
    assert wire.node.metadata["LABELS"]["a"][0] == "b"
