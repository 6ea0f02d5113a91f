"""Objects that ask for TLS and cannot be read: what they may be about is not sent to in plain text. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ambient.control.derive_hosts import exactness
from ambient.kube.backend_tls import BackendTLSPolicy
from ambient.kube.networking import DestinationRule
from ambient.kube.objects import RefusedObject
from ambient.model.workload import Service


class Unread:
    """Of one snapshot: those without a good version, looked at once. By namespace the hosts of DestinationRules and the
    names that BackendTLSPolicies are for; None: any of that namespace."""

    def __init__(self, refused: Iterable[RefusedObject] = (), root_namespace: str = "") -> None:
        self._root_namespace = root_namespace
        self._hosts: dict[str, set[str | None]] = {}
        self._names: dict[str, set[str | None]] = {}
        for one in refused:
            spec = one.raw.get("spec")
            if one.stands:
                continue
            if one.kind == DestinationRule.kind and _may_ask(spec):
                host = spec.get("host") if isinstance(spec, Mapping) else None
                self._hosts.setdefault(one.namespace, set()).add(host if isinstance(host, str) else None)
            elif one.kind == BackendTLSPolicy.kind:
                self._names.setdefault(one.namespace, set()).update(_targets(spec))

    def asks(self, service: Service, home: str) -> bool:
        """Some of them may have asked a proxy in the namespace `home` for TLS with this service's endpoints: one that
        would be in force there, had it been read."""
        if not self._names.get(service.namespace, set()).isdisjoint((None, service.name)):
            return True
        if None in self._hosts.get(service.namespace, ()):
            return True
        return any(
            host is not None and exactness(host, namespace, service)
            for namespace in {home, service.namespace, self._root_namespace}
            for host in self._hosts.get(namespace, ())
        )


def _may_ask(spec: Any) -> bool:
    if not isinstance(spec, Mapping):
        return True
    try:
        return '"tls"' in json.dumps(spec, default=str)
    except (RecursionError, TypeError, ValueError):
        return True


def _targets(spec: Any) -> set[str | None]:
    refs = spec.get("targetRefs") if isinstance(spec, Mapping) else None
    if not isinstance(refs, list):
        return {None}
    names = [ref.get("name") if isinstance(ref, Mapping) else None for ref in refs]
    return {name if isinstance(name, str) else None for name in names}
