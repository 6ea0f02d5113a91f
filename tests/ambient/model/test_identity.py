"""SPIFFE identities: one spelling each, anything odd refused."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.model.identity import Identity, parse_identity


def test_an_identity_reads_back_what_it_writes() -> None:
    identity = Identity("cluster.local", "shop", "till")
    assert str(identity) == "spiffe://cluster.local/ns/shop/sa/till"
    assert identity.principal == "cluster.local/ns/shop/sa/till"
    assert parse_identity(str(identity)) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "cluster.local/ns/shop/sa/till",
        "SPIFFE://cluster.local/ns/shop/sa/till",
        "spiffe://cluster.local/ns/shop/sa/till/",
        "spiffe://cluster.local/ns/shop/sa",
        "spiffe://cluster.local/ns//sa/till",
        "spiffe:///ns/shop/sa/till",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/NS/shop/sa/till",
        "spiffe://cluster.local/sa/till/ns/shop",
        "spiffe://cluster.local/ns/shop/sa/ti ll",
        "spiffe://cluster.local/ns/shop/sa/till\x00",
        "spiffe://cluster.local/ns/shop/sa/till\n",
        "spiffe://cluster.local/ns/sh%6fp/sa/till",
        "spiffe://cluster.local/ns/shop/sa/till?x",
        "spiffe://cluster.local/ns/shop/sa/till#x",
        "spiffe://user@cluster.local/ns/shop/sa/till",
        "spiffe://cluster.local:8080/ns/shop/sa/till",
        "spiffe://cluster.local/ns/shöp/sa/till",
    ],
)
def test_what_two_readers_could_take_for_different_names_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        parse_identity(uri)
