"""Credentials that a program gives."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from ambient.errors import InvalidInput, Unavailable
from ambient.kube.api.exec_plugin import ExecPlugin
from ambient.kube.read import Field

V1 = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, script: str, **entry: Any) -> ExecPlugin:
    program = tmp_path / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    raw = {"apiVersion": V1, "command": "./plugin", **entry}

    def context(certificate: bytes | None, key: bytes | None) -> ssl.SSLContext | None:
        assert (certificate is None) == (key is None)
        return None

    read = Field(raw, "users[u].exec", "config").open_object()
    return ExecPlugin.read(read, context, server="https://a", ca=b"root", home=tmp_path, environment={"PATH": "/bin"})


def credential(**status: str) -> str:
    return f"echo '{json.dumps({'apiVersion': V1, 'kind': 'ExecCredential', 'status': status})}'"


def token(found: ExecPlugin) -> str:
    return asyncio.run(found.identity()).headers["Authorization"]


def test_the_token_is_kept_until_it_is_refused(tmp_path: Path) -> None:
    found = plugin(tmp_path, f"echo run >> {tmp_path}/runs\n{credential(token='t')}")
    assert [token(found), token(found)] == ["Bearer t", "Bearer t"]
    assert (tmp_path / "runs").read_text() == "run\n"
    found.refused()
    assert token(found) == "Bearer t"
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_a_token_that_has_expired_is_not_used_again(tmp_path: Path) -> None:
    expired = credential(token="t", expirationTimestamp="2020-01-01T00:00:00Z")
    found = plugin(tmp_path, f"echo run >> {tmp_path}/runs\n{expired}")
    assert [token(found), token(found)] == ["Bearer t", "Bearer t"]
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_the_program_is_told_the_cluster_and_gets_its_arguments_and_variables(tmp_path: Path) -> None:
    notes = f'printf %s "$KUBERNETES_EXEC_INFO" > {tmp_path}/info; echo "$1 $COLOUR" > {tmp_path}/said'
    found = plugin(
        tmp_path,
        f"{notes}\n{credential(token='t')}",
        args=["login"],
        env=[{"name": "COLOUR", "value": "red"}],
        provideClusterInfo=True,
    )
    assert token(found) == "Bearer t"
    info = json.loads((tmp_path / "info").read_text())
    assert info["spec"]["cluster"]["server"] == "https://a"
    assert info["spec"]["interactive"] is False
    assert (tmp_path / "said").read_text() == "login red\n"


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        ("echo oh dear >&2; exit 3", "oh dear"),
        ("exit 3", "exit status 3"),
        ("echo nonsense", "Expecting value"),
        ("echo '[]'", "expected a mapping"),
        (credential(), "neither a token nor a certificate"),
        (credential(token="t", expirationTimestamp="soon"), "soon"),
        ('echo \'{"apiVersion": "v2"}\'', "v2"),
    ],
)
def test_a_program_that_fails_is_named_with_its_reason(tmp_path: Path, script: str, finding: str) -> None:
    with pytest.raises(Unavailable, match=finding) as caught:
        token(plugin(tmp_path, script))
    assert "plugin" in caught.value.where


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        token(plugin(tmp_path, "", command="./nowhere"))


def test_a_program_that_needs_a_terminal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="terminal"):
        plugin(tmp_path, "", interactiveMode="Always")
