"""Which certificates are whom: a table of refusals, each its own rule."""

from __future__ import annotations

import pytest

from ambient.errors import Refused
from ambient.model.identity import Identity
from ztunnel.tls.verify import peer_identity, verify_client, verify_server

GOOD = "spiffe://cluster.local/ns/a/sa/b"
WHO = Identity("cluster.local", "a", "b")


def certificate(*uris: str, others: tuple[tuple[str, str], ...] = ()) -> dict[str, object]:
    return {"subject": (), "subjectAltName": (*others, *(("URI", uri) for uri in uris))}


def test_one_spiffe_name_is_an_identity_whatever_else_stands_beside_it() -> None:
    assert peer_identity(certificate(GOOD)) == WHO
    assert peer_identity(certificate(GOOD, others=(("DNS", "x"), ("IP Address", "1.2.3.4")))) == WHO


REFUSED: dict[str, dict[str, object] | None] = {
    "nothing at all": None,
    "an empty certificate": {},
    "no alternative names": {"subject": ()},
    "alternative names of another shape": {"subjectAltName": "URI:" + GOOD},
    "alternative names in a list": {"subjectAltName": [("URI", GOOD)]},
    "no URI": certificate(others=(("DNS", GOOD),)),
    "two identities": certificate(GOOD, "spiffe://cluster.local/ns/a/sa/c"),
    "the same identity twice": certificate(GOOD, GOOD),
    "an identity beside another URI": certificate(GOOD, "https://example.org"),
    "another scheme": certificate("https://cluster.local/ns/a/sa/b"),
    "an upper-case scheme": certificate("SPIFFE://cluster.local/ns/a/sa/b"),
    "four components": certificate("spiffe://cluster.local/ns/a/sa"),
    "six components": certificate(GOOD + "/c"),
    "a final slash": certificate(GOOD + "/"),
    "an empty namespace": certificate("spiffe://cluster.local/ns//sa/b"),
    "an empty account": certificate("spiffe://cluster.local/ns/a/sa/"),
    "an empty trust domain": certificate("spiffe:///ns/a/sa/b"),
    "other key words": certificate("spiffe://cluster.local/namespace/a/sa/b"),
    "a NUL": certificate(GOOD + "\0.evil"),
    "a NUL in the middle": certificate("spiffe://cluster.local/ns/a\0/sa/b"),
    "a percent sign": certificate("spiffe://cluster.local/ns/a%2Fsa%2Fb/sa/b"),
    "a query": certificate(GOOD + "?x"),
    "a fragment": certificate(GOOD + "#x"),
    "a user": certificate("spiffe://user@cluster.local/ns/a/sa/b"),
    "a port": certificate("spiffe://cluster.local:1/ns/a/sa/b"),
    "a blank": certificate("spiffe://cluster.local/ns/a/sa/b "),
    "a look-alike letter": certificate("spiffe://cluster.local/ns/а/sa/b"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_two_readers_could_understand_in_two_ways_is_refused(case: str) -> None:
    with pytest.raises(Refused):
        peer_identity(REFUSED[case])


def test_a_client_must_be_of_our_trust_domain() -> None:
    assert verify_client(certificate(GOOD), "cluster.local") == WHO
    for other in ("other.local", "cluster.local.evil", "cluster", ""):
        with pytest.raises(Refused, match="not of trust domain"):
            verify_client(certificate(GOOD), other)


def test_a_server_must_be_one_of_the_expected_as_a_whole() -> None:
    assert verify_server(certificate(GOOD), ("spiffe://x/ns/y/sa/z", GOOD)) == WHO
    for expected in ((), (GOOD + "c",), (GOOD[:-1],), ("cluster.local/ns/a/sa/b",)):
        with pytest.raises(Refused, match="expected"):
            verify_server(certificate(GOOD), expected)
