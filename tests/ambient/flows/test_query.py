"""Filters: one case per key, each of which selects one of two flows."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.flows.query import parse_query
from ambient.flows.record import Event, Flow

FIRST = Flow(
    event=Event.DENIED,
    time_unix=1.0,
    node="n1",
    direction="inbound",
    source="10.0.0.1:4000",
    destination="[fd00::2]:80",
    source_pod="web",
    source_namespace="shop",
    source_principal="spiffe://cluster.local/ns/shop/sa/web",
    destination_pod="db",
    destination_namespace="store",
    service="db.store.svc.cluster.local",
    security="mutual_tls",
    flags="DENY",
    reason="denied-by",
    policy="store/no",
)
SECOND = Flow(
    event=Event.OPENED,
    time_unix=1.0,
    node="n2",
    direction="outbound",
    source="10.0.0.9:5000",
    destination="10.0.0.8:443",
)


@pytest.mark.parametrize(
    "term",
    [
        "namespace=shop",
        "namespace=store",
        "pod=web",
        "pod=shop/web",
        "pod=store/db",
        "from=shop/web",
        "from=shop/",
        "from=10.0.0.1",
        "from=10.0.0.1:4000",
        "to=store/db",
        "to=fd00::2",
        "to=[fd00::2]:80",
        "to=db.store.svc.cluster.local",
        "event=denied",
        "event=denied,failed",
        "direction=inbound",
        "node=n1",
        "principal=spiffe://cluster.local/ns/shop/sa/web",
        "principal=cluster.local/ns/shop/sa/web",
        "service=db",
        "service=db.store.svc.cluster.local",
        "port=80",
        "reason=denied-by",
        "policy=no",
        "policy=store/no",
        "flags=DENY",
        "security=mutual_tls",
        "event!=opened",
    ],
)
def test_each_key_selects(term: str) -> None:
    query = parse_query([term])
    assert query(FIRST)
    assert not query(SECOND)


@pytest.mark.parametrize("term", ["pod=we", "pod=store/web", "from=store/db", "to=shop/web", "port=8", "service=d"])
def test_a_part_of_a_name_or_the_other_side_does_not_match(term: str) -> None:
    assert not parse_query([term])(FIRST)


def test_terms_are_anded_and_none_selects_all() -> None:
    assert parse_query([])(SECOND)
    assert parse_query(["node=n1", "port=80"])(FIRST)
    assert not parse_query(["node=n1", "port=81"])(FIRST)


@pytest.mark.parametrize("term", ["", "pod", "colour=red", "pod=", "pod=a,,b", "event=exploded", "=x"])
def test_what_is_no_filter_is_refused(term: str) -> None:
    with pytest.raises(InvalidInput, match="not a flow filter"):
        parse_query([term])
