"""What we ask the CA for, and every way in which its answer is refused."""

from __future__ import annotations

import base64
import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ambient.errors import InvalidInput
from ambient.xds.key_request import KeyRequest, describe, first_to_end, public_part, validity
from tests.support.authority import Authority

ALICE = "spiffe://cluster.local/ns/shop/sa/alice"
BOB = "spiffe://cluster.local/ns/shop/sa/bob"


def test_the_request_is_p256_with_one_critical_san_and_no_subject() -> None:
    csr = x509.load_pem_x509_csr(KeyRequest(ALICE).csr_pem.encode())
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert isinstance(csr.signature_hash_algorithm, hashes.SHA256)
    assert list(csr.subject) == []
    (extension,) = csr.extensions
    assert extension.critical
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert extension.value.get_values_for_type(x509.UniformResourceIdentifier) == [ALICE]


def test_each_request_has_a_new_key() -> None:
    def key(request: KeyRequest) -> object:
        return x509.load_pem_x509_csr(request.csr_pem.encode()).public_key()

    assert key(KeyRequest(ALICE)) != key(KeyRequest(ALICE))


def test_an_accepted_answer_holds_key_chain_and_every_root() -> None:
    authority, other = Authority(), Authority("second root")
    request = KeyRequest(ALICE)
    chain = [authority.leaf(request.csr_pem), authority.root_pem, authority.root_pem + other.root_pem]
    issued = request.accept(chain, time.time())
    private = load_pem_private_key(issued.secret, None)
    certificates = x509.load_pem_x509_certificates(issued.secret)
    assert private.public_key() == certificates[0].public_key()
    assert len(certificates) == 2
    assert len(x509.load_pem_x509_certificates(issued.roots.encode())) == 2
    assert issued.not_before < time.time() < issued.not_after
    assert validity(issued.secret, ALICE) == (issued.not_before, issued.not_after)
    assert b"PRIVATE" not in public_part(issued.secret)


def test_answers_that_are_not_ours_are_refused() -> None:
    authority = Authority()
    now = time.time()
    request = KeyRequest(ALICE)
    leaf = authority.leaf(request.csr_pem)
    authority.rename = BOB
    renamed = authority.leaf(request.csr_pem)
    authority.rename = ""
    foreign = authority.leaf(KeyRequest(ALICE).csr_pem)
    authority.life = timedelta(seconds=30)
    expired = authority.leaf(request.csr_pem)
    authority.begin, authority.life = timedelta(hours=1), timedelta(hours=1)
    early = authority.leaf(request.csr_pem)
    root = authority.root_pem
    cases: dict[str, tuple[list[str], str]] = {
        "nothing": ([], "0 elements"),
        "no roots": ([leaf], "1 elements"),
        "another identity": ([renamed, root], BOB),
        "another key": ([foreign, root], "another key"),
        "expired": ([expired, root], "valid"),
        "not yet valid": ([early, root], "valid"),
        "garbage leaf": (["hello", root], "unreadable"),
        "garbage roots": ([leaf, "hello"], "unreadable"),
        "two leaves": ([leaf + leaf, root], "not one certificate"),
        "a root as leaf": ([root, root], "nobody"),
    }
    for chain, why in cases.values():
        with pytest.raises(InvalidInput, match=why):
            request.accept(chain, now)
    assert request.accept([leaf, root], now)


def test_the_first_of_a_chain_to_end_is_named_unless_it_is_the_leaf() -> None:
    authority = Authority()
    leaf = authority.leaf(KeyRequest(ALICE).csr_pem)
    end = x509.load_pem_x509_certificate(leaf.encode()).not_valid_after_utc.timestamp()
    assert first_to_end(leaf) == first_to_end(leaf + authority.root_pem) == (end, "")
    short = Authority("short", timedelta(minutes=5))
    assert first_to_end(leaf + authority.root_pem + short.root_pem) == (
        short.root.not_valid_after_utc.timestamp(),
        "O=short",
    )
    with pytest.raises(InvalidInput):
        first_to_end("hello")


def test_a_kept_secret_of_somebody_else_is_refused() -> None:
    request = KeyRequest(ALICE)
    authority = Authority()
    issued = request.accept([authority.leaf(request.csr_pem), authority.root_pem], time.time())
    for secret, identity in [(issued.secret, BOB), (public_part(issued.secret), ALICE), (b"", ALICE), (b"\xff", ALICE)]:
        with pytest.raises(InvalidInput):
            validity(secret, identity)


def test_the_dump_shows_decimal_serials_and_utc_times() -> None:
    authority = Authority()
    (row,) = describe(authority.root_pem)
    assert int(row["serialNumber"]) == authority.root.serial_number
    assert row["validFrom"].endswith("Z")
    assert base64.b64decode(row["pem"]).decode() == authority.root_pem
    assert describe("") == []
