"""The gate: keys from a file that may change, and callers that must be clients."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.token import Caller, issue_token
from ambient.control.access import Gate, peer_of
from ambient.errors import InvalidInput, Refused, Unavailable
from tests.support.control import pem_of, public_pem

CALLER = Caller("n1", "ambient-system", "ztunnel", "uid")
KEY, NEXT = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def gate(file: Path) -> Gate:
    return Gate(file, issuer="lab", audience="istio-ca", accounts={"ambient-system/ztunnel"})


def header(key: ec.EllipticCurvePrivateKey = KEY, scheme: str = "Bearer") -> list[tuple[str, str]]:
    token = issue_token(pem_of(key), CALLER, time.time(), 60, issuer="lab")
    return [("clusterid", "x"), ("authorization", f"{scheme} {token}")]


def write(file: Path, text: str, mark: int) -> None:
    file.write_text(text)
    os.utime(file, ns=(mark, mark))


def test_a_token_of_the_key_in_the_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_text(public_pem(KEY))
    assert gate(file).caller(header()) == CALLER
    assert gate(file).caller(header(scheme="bearer")) == CALLER


def test_a_new_key_in_the_file_is_taken_up_and_the_old_one_is_out(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    write(file, public_pem(KEY), 1)
    door = gate(file)
    write(file, public_pem(NEXT), 2)
    assert door.caller(header(NEXT)) == CALLER
    with pytest.raises(Refused, match="not signed by a key we trust"):
        door.caller(header(KEY))


def test_a_broken_or_missing_file_leaves_the_keys_in_force(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    write(file, public_pem(KEY), 1)
    door = gate(file)
    write(file, "rubbish", 2)
    assert door.caller(header()) == CALLER
    file.unlink()
    assert door.caller(header()) == CALLER


def test_there_is_no_start_without_a_usable_key(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="token key"):
        gate(tmp_path / "missing.pem")
    (tmp_path / "bad.pem").write_text("rubbish")
    with pytest.raises(InvalidInput, match="token key"):
        gate(tmp_path / "bad.pem")


def test_binary_metadata_is_no_token(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_text(public_pem(KEY))
    with pytest.raises(Refused, match="more than one"):
        gate(file).caller([("authorization", b"Bearer x")])


@pytest.mark.parametrize(
    ("given", "text"), [("ipv4:10.0.0.1:5", "10.0.0.1:5"), ("ipv6:%5B::1%5D:5", "[::1]:5"), ("unix:", "unix:")]
)
def test_peers_are_written_as_people_write_them(given: str, text: str) -> None:
    class Context:
        def peer(self) -> str:
            return given

    assert peer_of(Context()) == text
