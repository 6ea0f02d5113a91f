"""Which service the provider of a CUSTOM policy is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ambient.kube.mesh_config import MeshConfig, Provider
from ambient.model.workload import Service
from ambient.waypoint.front import Policy


class Providers:
    """Those of a MeshConfig. `services` are always those of the mesh, by "namespace/hostname"."""

    def __init__(self, mesh: MeshConfig, root_namespace: str) -> None:
        self._mesh = mesh
        self._root_namespace = root_namespace

    def of(self, policies: Iterable[Policy], services: Mapping[str, Service]) -> Iterator[Provider]:
        """Whom these policies ask, as far as there is somebody to ask."""
        for name in sorted({one.provider for one in policies if one.action == "CUSTOM" and not one.dry_run}):
            provider = self._mesh.providers.get(name)
            if provider is not None and self.service(provider, services) is not None:
                yield provider

    def services(self, providers: Iterable[Provider], services: Mapping[str, Service]) -> list[Service]:
        """Those of several, each once."""
        found = {one.key: one for provider in providers if (one := self.service(provider, services)) is not None}
        return [found[key] for key in sorted(found)]

    def service(self, provider: Provider, services: Mapping[str, Service]) -> Service | None:
        """Where the host name is none of Kubernetes', the root namespace's, unless another is named."""
        return service_called(services, provider.hostname, provider.port, self._home(provider))

    def _home(self, provider: Provider) -> str:
        return provider.namespace or namespace_in(provider.hostname) or self._root_namespace

    def trouble(self, name: str, services: Mapping[str, Service]) -> str:
        """Why nobody is asked, "" where somebody is, or nobody has to be."""
        if not name:
            return ""
        provider = self._mesh.providers.get(name)
        if provider is None:
            wrong = "".join(f"; {one}" for one in self._mesh.refused)[:300]
            return f"the mesh config has no extensionProvider {name!r} that authorizes{wrong}"
        if self.service(provider, services) is None:
            home, hint = self._home(provider), ""
            if home == self._root_namespace and not provider.namespace:
                hint = f" (for one of another namespace, service is NAMESPACE/{provider.hostname})"
            return f"there is no Service {provider.hostname} with port {provider.port} in namespace {home}{hint}"
        return ""


def service_called(services: Mapping[str, Service], hostname: str, number: int, namespace: str = "") -> Service | None:
    """The service that has this host name and port in the one namespace that has a say: the given one, else that which
    the name itself says. Anybody may write a ServiceEntry, and nobody else's shall answer in its place, or keep it
    from being asked."""
    found = services.get(f"{namespace or namespace_in(hostname)}/{hostname}")
    if found is None or all(port.service_port != number for port in found.ports):
        return None
    return found


def namespace_in(hostname: str) -> str:
    """The namespace in a name of a Service of Kubernetes, "" in others."""
    parts = hostname.split(".")
    return parts[1] if len(parts) > 2 and parts[2] == "svc" else ""
