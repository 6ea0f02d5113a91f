"""Tokens that a key of ours signed: keys from a file that may change."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.token import Caller, issue_token
from ambient.control.signed_tokens import SignedTokens
from ambient.errors import InvalidInput, Refused, Unavailable
from tests.support.control import pem_of, public_pem

CALLER = Caller("n1", "ambient-system", "ztunnel", "uid")
KEY, NEXT = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def tokens(file: Path) -> SignedTokens:
    return SignedTokens(file, issuer="lab", audience="istio-ca")


def verified(door: SignedTokens, key: ec.EllipticCurvePrivateKey = KEY) -> Caller:
    return asyncio.run(door.verify(issue_token(pem_of(key), CALLER, time.time(), 60, issuer="lab")))


def write(file: Path, text: str, mark: int) -> None:
    file.write_text(text)
    os.utime(file, ns=(mark, mark))


def test_a_token_of_the_key_in_the_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_text(public_pem(KEY))
    assert verified(tokens(file)) == CALLER


def test_a_new_key_in_the_file_is_taken_up_and_the_old_one_is_out(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    write(file, public_pem(KEY), 1)
    door = tokens(file)
    write(file, public_pem(NEXT), 2)
    assert verified(door, NEXT) == CALLER
    with pytest.raises(Refused, match="not signed by a key we trust"):
        verified(door)


def test_a_broken_or_missing_file_leaves_the_keys_in_force(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    write(file, public_pem(KEY), 1)
    door = tokens(file)
    write(file, "rubbish", 2)
    assert verified(door) == CALLER
    file.unlink()
    assert verified(door) == CALLER


def test_there_is_no_start_without_a_usable_key(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="token key"):
        tokens(tmp_path / "missing.pem")
    (tmp_path / "bad.pem").write_text("rubbish")
    with pytest.raises(InvalidInput, match="token key"):
        tokens(tmp_path / "bad.pem")
