"""Reads kubeconfig files as kubectl does: a list of files merged by name, a context, a cluster, a user.

What would make the connection less than verified (insecure-skip-tls-verify) and what API servers no longer take
(passwords, auth-provider) is refused by name.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from ambient.errors import InvalidInput
from ambient.kube.api.access import ApiAccess, Credentials, FixedCredentials, Identity, TokenFile, in_cluster
from ambient.kube.api.access import tls_context as make_context
from ambient.kube.api.exec_plugin import ExecPlugin
from ambient.kube.read import Field, Object

_SERVER: Final = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?")
_UNSUPPORTED: Final = ("auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra")


def find_access(environment: Mapping[str, str], *, context: str = "") -> ApiAccess:
    """Where the API server is: KUBECONFIG when set, else the pod's service account, else ~/.kube/config.

    Raises InvalidInput naming file and field when that is not usable, or when there is nothing of the three.
    """
    named = environment.get("KUBECONFIG", "")
    if not named:
        inside = in_cluster(environment)
        if inside is not None:
            return inside
    usual = Path(environment.get("HOME", "/nonexistent")) / ".kube" / "config"
    files = [Path(part) for part in named.split(":") if part] if named else [usual]
    there = [file for file in files if file.exists()]
    if not there:
        looked = ", ".join(map(str, files))
        raise InvalidInput("no Kubernetes API", looked, "no such file, and this is no pod with a service account")
    return read_kubeconfig(there, environment, context=context)


def read_kubeconfig(files: list[Path], environment: Mapping[str, str], *, context: str = "") -> ApiAccess:
    """Of entries with the same name, and of current-context, the first file's counts. Paths in a file are relative to
    it."""
    named: dict[str, dict[str, Object]] = {"clusters": {}, "users": {}, "contexts": {}}
    homes: dict[int, Path] = {}
    for file in files:
        top = _load(file)
        context = context or top.text("current-context")
        for part, kind in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for entry in top.each(part, Field.open_object):
                content = entry.need(kind).open_object()
                homes[id(named[part].setdefault(entry.need("name").text(), content))] = file.parent
    where = ", ".join(map(str, files))
    if not context:
        raise InvalidInput("no context chosen", where, "current-context is empty")
    chosen = _entry(named["contexts"], context, "context", where)
    cluster_name, user_name = chosen.need("cluster").text(), chosen.need("user").text()
    cluster = _entry(named["clusters"], cluster_name, "cluster", where)
    user = _entry(named["users"], user_name, "user", where)
    server = cluster.need("server").checked(lambda url: "" if _SERVER.fullmatch(url) else f"{url!r} is not a URL")
    if cluster.flag("insecure-skip-tls-verify"):
        raise cluster.need("insecure-skip-tls-verify").refuse("not supported: the API server is always verified")
    ca = _bytes(cluster, "certificate-authority", homes[id(cluster)])
    return ApiAccess(
        server.rstrip("/"),
        _credentials(user, ca, server, homes[id(user)], environment),
        chosen.text("namespace") or "default",
        cluster.text("proxy-url"),
        cluster.text("tls-server-name"),
    )


def _load(file: Path) -> Object:
    try:
        content: Any = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise InvalidInput("cannot read the kubeconfig", str(file), " ".join(str(error).split())) from None
    return Field(content, "", str(file)).open_object()


def _entry(entries: Mapping[str, Object], name: str, kind: str, where: str) -> Object:
    if name not in entries:
        raise InvalidInput(f"no such {kind} in the kubeconfig", where, repr(name))
    return entries[name]


def _bytes(owner: Object, name: str, home: Path) -> bytes | None:
    """The content of `name`-data (base64), else of the file that `name` says, else None."""
    data = owner.get(f"{name}-data")
    if data is not None and data.text():
        try:
            return base64.b64decode(data.text(), validate=True)
        except (binascii.Error, ValueError):
            raise data.refuse("not base64") from None
    named = owner.get(name)
    if named is None or not named.text():
        return None
    try:
        return (home / named.text()).read_bytes()
    except OSError as error:
        raise named.refuse(str(error)) from None


def _credentials(
    user: Object, ca: bytes | None, server: str, home: Path, environment: Mapping[str, str]
) -> Credentials:
    for name in user.present(*_UNSUPPORTED):
        raise user.need(name).refuse("not supported; use a client certificate, a token or an exec plugin")
    where = user.at.what
    certificate, key = _bytes(user, "client-certificate", home), _bytes(user, "client-key", home)
    if (certificate is None) != (key is None):
        raise user.at.refuse("client-certificate and client-key go together")

    def context(own: bytes | None = certificate, own_key: bytes | None = key) -> Any:
        return make_context(ca, where=where, certificate=own, key=own_key) if server.startswith("https:") else None

    file, token = user.text("tokenFile"), user.text("token")
    if file:
        return TokenFile(home / file, context())
    if token:
        return FixedCredentials(Identity({"Authorization": f"Bearer {token}"}, context()))
    plugin = user.get("exec")
    if plugin is not None and certificate is None:
        make: Callable[[bytes | None, bytes | None], Any] = context
        return ExecPlugin.read(plugin.open_object(), make, server=server, ca=ca, home=home, environment=environment)
    return FixedCredentials(Identity(context=context()))
