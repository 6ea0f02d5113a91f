"""The `baggage` header read as Istio's proxies write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.model.outcome import PeerLabels
from ztunnel.telemetry.baggage import read_baggage

WHOLE = (
    b"k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v2,"
    b"cloud.region=r,cloud.availability_zone=z"
)


def test_every_key_has_its_label() -> None:
    assert read_baggage(((b"baggage", WHOLE),), "spiffe://td/ns/shop/sa/web") == PeerLabels(
        workload="web",
        namespace="shop",
        canonical_service="web",
        canonical_revision="v2",
        principal="spiffe://td/ns/shop/sa/web",
        cluster="c1",
        region="r",
        zone="z",
    )


@pytest.mark.parametrize("kind", ["deployment", "cronjob", "pod", "job"])
def test_the_workloads_kind_is_in_the_key(kind: str) -> None:
    assert read_baggage(((b"baggage", f"k8s.{kind}.name=w".encode()),)).workload == "w"


def test_all_headers_of_the_name_count_and_others_do_not() -> None:
    fields = ((b"baggage", b"service.name=a"), (b"x-baggage", b"service.version=v"), (b"baggage", b"cloud.region=r"))
    found = read_baggage(fields)
    assert (found.canonical_service, found.canonical_revision, found.region) == ("a", "", "r")


@pytest.mark.parametrize("text", [b"", b",,,", b"=", b"service.name", b"service.name=", b"other=x", b" service.name=x"])
def test_what_says_nothing_is_passed_over(text: bytes) -> None:
    assert read_baggage(((b"baggage", text),)) == PeerLabels()


def test_octets_that_are_no_text_are_replaced_and_a_second_equals_sign_ends_the_value() -> None:
    assert read_baggage(((b"baggage", b"service.name=\xff\xfe"),)).canonical_service == "\ufffd\ufffd"
    assert read_baggage(((b"baggage", b"service.name=a=b"),)).canonical_service == "a"


def test_a_value_is_no_longer_than_a_name_can_be() -> None:
    assert read_baggage(((b"baggage", b"service.name=" + b"x" * 16_000),)).canonical_service == "x" * 253


def test_who_it_is_comes_from_nowhere_else() -> None:
    assert read_baggage(((b"baggage", b"principal=spiffe://td/ns/a/sa/b"),)).principal == ""


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_octets_are_read_without_harm(values: list[bytes]) -> None:
    assert read_baggage(tuple((b"baggage", value) for value in values)).principal == ""
