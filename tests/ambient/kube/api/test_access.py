"""Service accounts and tokens that change on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.errors import InvalidInput, Unavailable
from ambient.kube.api.access import REREAD_S, TokenFile, in_cluster, tls_context
from tests.support.authority import Authority
from tests.support.mint import Mint


def _mint() -> Mint:
    authority = Authority()
    return Mint(authority.root, authority.key)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sent(file: TokenFile) -> str:
    return asyncio.run(file.identity()).headers["Authorization"]


def test_a_token_is_read_again_now_and_then_and_after_a_refusal(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    path.write_text("one\n")
    file = TokenFile(path, None, clock=clock)
    assert sent(file) == "Bearer one"
    path.write_text("two")
    assert sent(file) == "Bearer one"
    clock.now = REREAD_S
    assert sent(file) == "Bearer two"
    path.write_text("three")
    file.refused()
    assert sent(file) == "Bearer three"


def test_a_token_that_vanishes_or_is_being_replaced_leaves_the_last_one(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    path.write_text("one")
    file = TokenFile(path, None, clock=clock)
    assert sent(file) == "Bearer one"
    for content in ("", "two\x00"):
        path.write_text(content)
        file.refused()
        assert sent(file) == "Bearer one"
    path.unlink()
    file.refused()
    assert sent(file) == "Bearer one"


def test_without_any_token_the_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="token"):
        sent(TokenFile(tmp_path / "token", None))
    (tmp_path / "token").write_text("\n")
    with pytest.raises(Unavailable, match="holds no token"):
        sent(TokenFile(tmp_path / "token", None))


def test_a_pod_finds_its_api_server_and_its_namespace(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_cluster(environment, tmp_path) is None
    (tmp_path / "token").write_text("t")
    assert in_cluster({}, tmp_path) is None
    with pytest.raises(InvalidInput, match="certificate authority"):
        in_cluster(environment, tmp_path)
    (tmp_path / "ca.crt").write_text(_mint().roots)
    (tmp_path / "namespace").write_text("ambient-system")
    access = in_cluster(environment, tmp_path)
    assert access is not None
    assert (access.server, access.namespace) == ("https://[fd00::1]:443", "ambient-system")


def test_what_is_no_certificate_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"here\.yaml"):
        tls_context(b"nothing", where="here.yaml")
    with pytest.raises(InvalidInput, match="it is empty"):
        tls_context(b"\n", where="here.yaml")
    with pytest.raises(InvalidInput, match=r"client certificate.*here\.yaml"):
        tls_context(None, where="here.yaml", certificate=b"nothing", key=b"at all")


def test_an_authority_that_is_replaced_on_disk_is_trusted_from_then_on(tmp_path: Path) -> None:
    ca, clock = tmp_path / "ca.crt", Clock()
    ca.write_text(_mint().roots)
    (tmp_path / "token").write_text("t")
    file = TokenFile(tmp_path / "token", tls_context(ca.read_bytes(), where="x"), ca=ca, clock=clock)
    first = asyncio.run(file.identity()).context
    for broken in ("", "not a certificate"):
        ca.write_text(broken)
        clock.now += REREAD_S
        assert asyncio.run(file.identity()).context is first
    ca.write_text(_mint().roots)
    clock.now += REREAD_S
    assert asyncio.run(file.identity()).context is not first
