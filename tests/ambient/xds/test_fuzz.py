"""Whatever bytes arrive, readers answer with a value or with their own error; nothing else ever escapes."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ambient.errors import ProtocolError
from ambient.xds.client import STAND_IN_VERSION, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES, Refusal, Resource, decode, encode, name_of
from ambient.xds.messages import DeltaResponse, decode_request, decode_response
from ambient.xds.stand_in import closed_address
from ambient.xds.wire import message
from ambient.zds import custody
from ambient.zds.codec import decode_ack, decode_hello
from ambient.zds.codec import decode_request as decode_zds_request
from tests.support.delta import NODE
from tests.support.discovery import rich_policy, rich_service, rich_workload

BODIES = [encode(record).body for record in (rich_workload(), rich_service(), rich_policy())]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message with some bytes changed, cut out, doubled or put in."""
    body = bytearray(draw(st.sampled_from(BODIES)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(body)) if body else 0
        kind = rng.randrange(4)
        if kind == 0 and body:
            body[place] = rng.randrange(256)
        elif kind == 1:
            del body[place : place + rng.randrange(1, 8)]
        elif kind == 2:
            body[place:place] = rng.randbytes(rng.randrange(1, 8))
        else:
            body[place:place] = body[place : place + rng.randrange(1, 20)]
    return bytes(body)


@settings(max_examples=600, deadline=None)
@given(body=damaged() | st.binary(max_size=200), type_url=st.sampled_from(TYPES), lax=st.booleans())
def test_a_damaged_resource_is_read_or_refused(body: bytes, type_url: str, lax: bool) -> None:
    try:
        record = decode(type_url, "", body, lax=lax)
    except Refusal:
        return
    again = encode(record)
    assert decode(again.type_url, name_of(record), again.body) == record


@settings(max_examples=300, deadline=None)
@given(bodies=st.lists(damaged() | st.sampled_from(BODIES), max_size=5), type_url=st.sampled_from(TYPES))
def test_a_client_answers_every_response(bodies: list[bytes], type_url: str) -> None:
    client = DeltaClient(NODE)
    names = {AUTHORIZATION_TYPE: rich_policy().key, ADDRESS_TYPE: rich_workload().uid}
    resources = tuple(Resource(type_url, f"{names[type_url]}{i or ''}", "v", body) for i, body in enumerate(bodies))
    before = client.versions()
    batch, answer = client.receive(DeltaResponse(type_url=type_url, nonce="n", resources=resources))
    assert (answer.error is not None) == bool(batch.refused)
    if batch.refused:
        known = client.versions()[ADDRESS_TYPE]
        assert {name for name in known if known[name] != STAND_IN_VERSION} == set(before[ADDRESS_TYPE])
        assert not batch.gone


@pytest.mark.parametrize("read", [decode_request, decode_response, decode_hello, decode_ack, decode_zds_request])
def test_packets_are_read_or_refused(read: object) -> None:
    assert callable(read)

    @settings(max_examples=200, deadline=None)
    @given(data=st.binary(max_size=120))
    @example(data=b"")
    def check(data: bytes) -> None:
        with suppress(ProtocolError):
            read(data)

    check()


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=120), descriptors=st.integers(0, 2))
def test_custody_packets_are_read_or_refused(data: bytes, descriptors: int) -> None:
    with suppress(ProtocolError):
        custody.decode(data, descriptors)


NAMES = st.sampled_from(["c1//Pod/ns/w", "ns/web.example", "c/x/ServiceEntry/ns/e/192.0.2.1", "a", "/", "a/", "a/b/c"])


@settings(max_examples=600, deadline=None)
@given(name=NAMES | st.text(max_size=20), body=damaged() | st.binary(max_size=200))
def test_what_stands_in_for_a_damaged_address_can_be_kept_and_read_back(name: str, body: bytes) -> None:
    stand_in = closed_address(name, body, "damaged")
    if stand_in is None:
        # Only what says that it is a service, under a name that no service can have, is nobody.
        read = message("istio.workload.Address").FromString(body).WhichOneof("type") if name and "/" not in name else ""
        assert not name or "/" in name or read == "service"
        return
    assert stand_in.refused == "damaged"
    assert name_of(stand_in) == name
    again = encode(stand_in)
    assert decode(again.type_url, name, again.body) == replace(stand_in, refused="")
