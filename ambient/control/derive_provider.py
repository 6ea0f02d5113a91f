"""Which service the provider of a CUSTOM policy is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ambient.kube.mesh_config import MeshConfig, Provider
from ambient.model.workload import Service
from ambient.waypoint.front import Policy


class Providers:
    """Those of a MeshConfig. `services` are always those of the mesh, by "namespace/hostname"."""

    def __init__(self, mesh: MeshConfig) -> None:
        self._mesh = mesh

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
        """The service that has the provider's host name and port: of the namespace that is given, or that the name
        itself says, or the only one. None where several have it: anybody may write a ServiceEntry."""
        namespace = provider.namespace
        parts = provider.hostname.split(".")
        if not namespace and len(parts) > 2 and parts[2] == "svc":
            namespace = parts[1]
        if namespace:
            found = [services[key]] if (key := f"{namespace}/{provider.hostname}") in services else []
        else:
            found = [one for one in services.values() if one.hostname == provider.hostname]
        if len(found) != 1 or all(port.service_port != provider.port for port in found[0].ports):
            return None
        return found[0]

    def trouble(self, name: str, services: Mapping[str, Service]) -> str:
        """Why nobody is asked, "" where somebody is, or nobody has to be."""
        if not name:
            return ""
        provider = self._mesh.providers.get(name)
        if provider is None:
            wrong = "".join(f"; {one}" for one in self._mesh.refused)[:300]
            return f"the mesh config has no extensionProvider {name!r} that authorizes{wrong}"
        if self.service(provider, services) is None:
            return f"there is no Service {provider.hostname} with port {provider.port}"
        return ""
