"""ZDS packets: exact bytes of Istio's protocol, and refusal of everything else."""

from __future__ import annotations

import pytest

from ambient.errors import ProtocolError
from ambient.zds.codec import (
    MAX_PACKET,
    Ack,
    AddWorkload,
    DelWorkload,
    Hello,
    KeepWorkload,
    Request,
    SnapshotSent,
    decode_ack,
    decode_hello,
    decode_request,
    encode_ack,
    encode_hello,
    encode_request,
)

# Written by hand from the field numbers of the protocol.
KNOWN: list[tuple[Request, bytes]] = [
    (AddWorkload("u", "n", "ns", "sa"), b"\x0a\x10\x0a\x01u\x12\x0b\x0a\x01n\x12\x02ns\x1a\x02sa"),
    (DelWorkload("u"), b"\x12\x03\x12\x01u"),
    (SnapshotSent(), b"\x1a\x00"),
    (KeepWorkload("u"), b"\x2a\x03\x0a\x01u"),
]


@pytest.mark.parametrize(("request_", "packet"), KNOWN)
def test_requests_have_the_bytes_of_the_protocol(request_: Request, packet: bytes) -> None:
    assert encode_request(request_) == packet
    assert decode_request(packet) == request_


def test_an_add_without_workload_info_is_read() -> None:
    assert decode_request(b"\x0a\x03\x0a\x01u") == AddWorkload("u")


def test_hello_and_acks_have_the_bytes_of_the_protocol() -> None:
    assert encode_hello(Hello()) == b"\x08\x01"
    assert encode_ack(Ack()) == b"\x0a\x00"
    assert decode_ack(b"\x0a\x04\x0a\x02no") == Ack("no")


@pytest.mark.parametrize("packet", [b"", b"\x08\x00", b"\x08\x02", b"\xff", b"\x0a\x01"])
def test_a_hello_of_another_version_or_no_hello_is_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_hello(packet)


@pytest.mark.parametrize(
    "packet", [b"", b"\xff\xff", b"\x22\x00", b"\x0a\x00", b"\x12\x00", b"\x2a\x00", b"\x12\x03\x0a\x01u"]
)
def test_a_request_of_unknown_kind_or_without_uid_is_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(packet)


@pytest.mark.parametrize("packet", [b"", b"\x12\x00", b"\xff"])
def test_a_response_that_is_no_ack_is_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_ack(packet)


def test_a_long_error_is_cut_so_that_the_ack_fits_the_receiver() -> None:
    packet = encode_ack(Ack("é" * 4000))
    assert len(packet) <= MAX_PACKET
    assert decode_ack(packet).error.startswith("éé")


def test_a_request_that_does_not_fit_is_refused_at_the_sender() -> None:
    with pytest.raises(ProtocolError, match="at most 1024"):
        encode_request(AddWorkload("u", "n" * 2000))
