"""Which server and which credentials a kubeconfig means."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from ambient.errors import InvalidInput
from ambient.kube.api.access import ApiAccess
from ambient.kube.api.kubeconfig import find_access
from tests.support.authority import Authority
from tests.support.mint import Mint


def _mint() -> Mint:
    authority = Authority()
    return Mint(authority.root, authority.key)


def config(user: dict[str, Any], cluster: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "first", "context": {"cluster": "c", "user": "u"}},
            {"name": "second", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        ],
        "current-context": "first",
        **more,
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def access(path: Path, content: Any, context: str = "") -> ApiAccess:
    return find_access({"KUBECONFIG": str(write(path / "config", content))}, context=context)


def headers(found: ApiAccess) -> dict[str, str]:
    return dict(asyncio.run(found.credentials.identity()).headers)


def test_the_current_context_names_cluster_and_user(tmp_path: Path) -> None:
    found = access(tmp_path, config({"token": "t"}))
    assert (found.server, found.namespace) == ("https://10.0.0.1:6443", "default")
    assert headers(found) == {"Authorization": "Bearer t"}


def test_another_context_can_be_asked_for(tmp_path: Path) -> None:
    assert access(tmp_path, config({}), "second").namespace == "shop"
    with pytest.raises(InvalidInput, match=r"no such context.*'third'"):
        access(tmp_path, config({}), "third")


def test_of_several_files_the_first_that_names_a_thing_counts(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"current-context": "second", "users": [{"name": "u", "user": {"token": "one"}}]})
    two = write(tmp_path / "two", config({"token": "two"}))
    found = find_access({"KUBECONFIG": f"{one}:{tmp_path / 'absent'}:{two}"})
    assert (found.namespace, headers(found)) == ("shop", {"Authorization": "Bearer one"})


def test_without_a_setting_the_file_of_the_home_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", config({}))
    assert find_access({"HOME": str(tmp_path)}).server == "https://10.0.0.1:6443"
    with pytest.raises(InvalidInput, match="no pod with a service account"):
        find_access({"HOME": str(tmp_path / "empty")})


def test_certificates_come_inline_or_from_files_beside_the_config(tmp_path: Path) -> None:
    mint = _mint()
    own = mint.leaf("spiffe://x/ns/a/sa/b")
    inline = {
        "client-certificate-data": base64.b64encode(own.chain.encode()).decode(),
        "client-key-data": base64.b64encode(own.key.encode()).decode(),
    }
    ca = {"certificate-authority-data": base64.b64encode(mint.roots.encode()).decode()}
    assert asyncio.run(access(tmp_path, config(inline, ca)).credentials.identity()).context is not None
    own.save(tmp_path, "own")
    (tmp_path / "ca.pem").write_text(mint.roots)
    files = {"client-certificate": "own.pem", "client-key": "own.key"}
    found = access(tmp_path, config(files, {"certificate-authority": "ca.pem", "tls-server-name": "kubernetes"}))
    assert asyncio.run(found.credentials.identity()).context is not None
    assert found.server_name == "kubernetes"


def test_a_token_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    found = access(tmp_path, config({"tokenFile": "token"}))
    assert headers(found) == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two")
    found.credentials.refused()
    assert headers(found) == {"Authorization": "Bearer two"}


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (config({}, {"insecure-skip-tls-verify": True}), "always verified"),
        (config({"username": "a", "password": "b"}), "username: not supported"),
        (config({"auth-provider": {"name": "gcp"}}), "auth-provider: not supported"),
        (config({"as": "somebody"}), "as: not supported"),
        (config({"client-key-data": "eA=="}), "go together"),
        (config({"client-certificate-data": "!", "client-key-data": "eA=="}), "not base64"),
        (config({}, {"certificate-authority": "absent.pem"}), "certificate-authority"),
        (config({}, {"server": "10.0.0.1"}), "server"),
        (config({}, {"certificate-authority-data": "eA=="}), "certificate authority"),
        (config({}, **{"current-context": ""}), "no context chosen"),
        (config({}, users=[]), r"no such user.*'u'"),
        (config({}, clusters=[]), r"no such cluster.*'c'"),
        (config({"exec": {"apiVersion": "v1", "command": "x"}}), "apiVersion"),
        ("{", "cannot read the kubeconfig"),
        ("[]", "expected a mapping"),
        ({"contexts": 5}, "contexts: expected a list"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, content: Any, finding: str) -> None:
    with pytest.raises(InvalidInput, match=finding) as caught:
        access(tmp_path, content)
    assert str(tmp_path / "config") in str(caught.value)
