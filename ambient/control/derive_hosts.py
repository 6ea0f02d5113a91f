"""Hosts as Istio's objects name services: by full name, by wildcard, or by a name of their own namespace. Pure."""

from __future__ import annotations

from collections.abc import Collection

from ambient.model.workload import Service


def exactness(host: str, namespace: str, service: Service) -> int:
    """How exactly a host of an object in `namespace` means the service; 0: it does not. A name without a dot is that
    of a service of Kubernetes there."""
    host = host.lower()
    if host == "*":
        return 1
    if host.startswith("*."):
        return 1 + len(host) if service.hostname.endswith(host[1:]) else 0
    if "." not in host:
        return 1000 if _beside(host, namespace, service) else 0
    return 1000 if service.hostname == host else 0


def _beside(name: str, namespace: str, service: Service) -> bool:
    mine = service.canonical and (service.namespace, service.name) == (namespace, name)
    return mine and service.hostname.startswith(f"{name}.{namespace}.svc.")


def exported_to(export_to: Collection[str], namespace: str, reader: str) -> bool:
    """Whether an object of `namespace` is there for a proxy in namespace `reader`. Without a word it is for all."""
    return not export_to or "*" in export_to or reader in export_to or ("." in export_to and reader == namespace)
