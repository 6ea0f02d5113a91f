"""What people type for an endpoint, found in the mesh: "ns/pod", an address, a service's name in any usual form."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ambient.cli.env import Usage
from ambient.errors import InvalidInput, Refused
from ambient.model.address import Endpoint, IpAddress, parse_ip, port_number
from ambient.model.mesh import Mesh
from ambient.model.names import wildcards
from ambient.model.workload import IpFamilies, Service, TunnelProtocol, Workload

DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Source:
    """Who connects. `workload` is None for an address that no workload has."""

    text: str
    ip: IpAddress
    workload: Workload | None

    @property
    def captured(self) -> bool:
        return self.workload is not None and self.workload.tunnel_protocol is TunnelProtocol.HBONE

    def towards(self, ip: IpAddress) -> Source | None:
        """The same client with the address it would connect to `ip` from; None when it has none of that family."""
        if self.ip.version == ip.version:
            return self
        own = self.workload.addresses if self.workload else ()
        same = next((address for address in own if address.version == ip.version), None)
        return None if same is None else replace(self, ip=same)


@dataclass(frozen=True, slots=True)
class Target:
    """What is dialled: an address and port, and what it was found by."""

    text: str
    endpoint: Endpoint
    service: Service | None = None
    workload: Workload | None = None


def split_port(text: str) -> tuple[str, int]:
    """("host", port) of "host:port" or "[ip6]:port"; raises Usage."""
    host, separator, digits = text.rpartition(":")
    port = port_number(digits)
    if not separator or not host or not port:
        raise Usage("not a destination", repr(text), "expected HOST:PORT, NAMESPACE/POD:PORT or [IP6]:PORT")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if ":" in host:
        raise Usage("not a destination", repr(text), "an IPv6 address needs brackets")
    return host, port


def _address(text: str) -> IpAddress | None:
    try:
        return parse_ip(text)
    except InvalidInput:
        return None


def _pod(mesh: Mesh, text: str) -> Workload:
    namespace, _, name = text.partition("/")
    workload = mesh.local_workload(namespace, name)
    if workload is None:
        raise Refused(
            f"no workload {text}", "discovery", "the node's ztunnel does not know it: see `ambient workloads`"
        )
    return workload


def source(mesh: Mesh, text: str, network: str = "") -> Source:
    """Raises Usage for what cannot be a source, Refused for a pod that is not there."""
    ip = _address(text)
    if ip is not None:
        return Source(text, ip, mesh.workload_by_address(network, ip))
    if text.count("/") != 1 or not all(text.split("/")):
        raise Usage("not a source", repr(text), "expected NAMESPACE/POD or an address")
    workload = _pod(mesh, text)
    if not workload.addresses:
        raise Refused(f"{text} has no address", "discovery")
    return Source(text, workload.addresses[0], workload)


def targets(mesh: Mesh, text: str, client: Source) -> tuple[Target, ...]:
    """One per address family that `text` has, IPv6 first, as a resolver offers them and clients try them.

    Raises as `source`; a name is completed the way a resolver in the client's namespace would.
    """
    host, port = split_port(text)
    ip = _address(host)
    network = client.workload.network if client.workload else ""
    namespace = client.workload.namespace if client.workload else ""
    if ip is not None:
        service = mesh.service_by_address(network, ip, namespace)
        workload = None if service else mesh.workload_by_address(network, ip)
        return (Target(text, Endpoint(ip, port), service, workload),)
    if "/" in host:
        workload = _pod(mesh, host)
        return tuple(Target(text, Endpoint(ip, port), None, workload) for ip in _each_family(workload.addresses, host))
    for name in (wildcard for full in completions(host, namespace) for wildcard in wildcards(full)):
        found = mesh.service_by_hostname(name, namespace)
        if found is None:
            continue
        own = tuple(vip.ip for vip in found.addresses if vip.prefix_length is None and vip.network == network)
        return tuple(
            Target(text, Endpoint(ip, port), found) for ip in _each_family(own or _headless(mesh, found), name)
        )
    tried = f"tried {', '.join(completions(host, namespace))}"
    hint = "names of others (an ExternalName, too) are the resolvers' business: explain the address that they give"
    raise Refused(f"no service {host}", "discovery", f"{tried}; {hint}")


def _headless(mesh: Mesh, service: Service) -> tuple[IpAddress, ...]:
    """What the name of a service without addresses of its own stands for: its endpoints, in the families it has."""
    without = {IpFamilies.IPV4_ONLY: 6, IpFamilies.IPV6_ONLY: 4}.get(service.ip_families)
    found = (ip for endpoint in mesh.endpoints(service.key) for ip in endpoint.workload.addresses)
    return tuple(ip for ip in found if ip.version != without)


def completions(host: str, namespace: str) -> list[str]:
    """The name itself and what search domains would make of it, in the order a pod's resolver tries them."""
    host = host.rstrip(".").lower()
    searched = [f"{host}.{namespace}.svc.{DOMAIN}"] if namespace else []
    return [*searched, f"{host}.svc.{DOMAIN}", f"{host}.{DOMAIN}", host]


def _each_family(addresses: tuple[IpAddress, ...], what: str) -> list[IpAddress]:
    """The first address of each family, IPv6 first."""
    if not addresses:
        raise Refused(f"{what} has no address", "discovery", "no endpoint is known")
    firsts = (next((ip for ip in addresses if ip.version == version), None) for version in (6, 4))
    return [ip for ip in firsts if ip is not None]
