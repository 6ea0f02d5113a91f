"""Short ways to make model values and Kubernetes objects for tests. Defaults are dull on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

from ambient.kube.objects import Pod, Record, Records, RefusedObject, parse_object
from ambient.model.address import Endpoint, IpNetwork, parse_endpoint
from ambient.model.identity import Identity
from ambient.model.mesh import Mesh, Value
from ambient.model.outcome import Connection
from ambient.model.policy import (
    Action,
    Authorization,
    Match,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from ambient.model.workload import (
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    Port,
    Service,
    TunnelProtocol,
    Workload,
)

# --- model


def workload(name: str = "client", ip: str = "10.0.0.1", **changes: Any) -> Workload:
    """An HBONE pod on node n1 in namespace default, called `name`, its account too; several ips with commas."""
    namespace = changes.get("namespace", "default")
    base = Workload(
        uid=f"Kubernetes//Pod/{namespace}/{name}",
        name=name,
        namespace=namespace,
        addresses=tuple(ip_address(part) for part in ip.split(",") if part),
        tunnel_protocol=TunnelProtocol.HBONE,
        service_account=name,
        node="n1",
        canonical_name=name,
        canonical_revision="v1",
        workload_name=name,
    )
    return replace(base, **changes)


def service(name: str = "web", ip: str = "10.96.0.1", *ports: tuple[int, int], **changes: Any) -> Service:
    """A service of namespace default; ports as (service port, target port), default 80 -> 8080."""
    namespace = changes.get("namespace", "default")
    base = Service(
        name=name,
        namespace=namespace,
        hostname=f"{name}.{namespace}.svc.cluster.local",
        addresses=tuple(NetworkAddress("", ip_address(part)) for part in ip.split(",") if part),
        ports=tuple(Port(a, b) for a, b in ports or ((80, 8080),)),
        canonical=True,
    )
    return replace(base, **changes)


def behind(endpoint: Workload, *services: Service, ports: tuple[tuple[int, int], ...] = ()) -> Workload:
    """The workload as an endpoint of the services, with these ports of its own or theirs."""
    own = tuple(Port(a, b) for a, b in ports)
    mapping = {one.key: own or one.ports for one in services}
    return replace(endpoint, services=MappingProxyType({**endpoint.services, **mapping}))


def waypoint(name: str = "wp", namespace: str = "default") -> GatewayAddress:
    """The address of a waypoint service by hostname."""
    return GatewayAddress(NamespacedHostname(namespace, f"{name}.{namespace}.svc.cluster.local"))


def mesh(*values: Value) -> Mesh:
    built = Mesh()
    built.apply(values)
    return built


def to(text: str) -> Endpoint:
    return parse_endpoint(text)


def connection(
    source: str = "10.0.0.9", destination: str = "10.0.0.1:8080", peer: str | None = "default/client"
) -> Connection:
    """`peer` is namespace/account in cluster.local, or None for plaintext."""
    end = parse_endpoint(destination)
    identity = None if peer is None else Identity("cluster.local", *peer.split("/"))
    return Connection(ip_address(source), end.ip, end.port, identity)


def strings(*texts: str) -> tuple[StringMatch, ...]:
    """`*` presence, `x*` prefix, `*x` suffix, else exact."""
    return tuple(_string(text) for text in texts)


def _string(text: str) -> StringMatch:
    if text == "*":
        return StringMatch(StringMatchKind.PRESENCE)
    if text.startswith("*"):
        return StringMatch(StringMatchKind.SUFFIX, text[1:])
    if text.endswith("*"):
        return StringMatch(StringMatchKind.PREFIX, text[:-1])
    return StringMatch(StringMatchKind.EXACT, text)


def accounts(*texts: str) -> tuple[ServiceAccountMatch, ...]:
    return tuple(ServiceAccountMatch(*text.split("/")) for text in texts)


def networks(*texts: str) -> tuple[IpNetwork, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)


def policy(name: str, action: Action, *rules: Rule, **changes: Any) -> Authorization:
    """A policy of namespace default for all its workloads."""
    base = Authorization(name=name, namespace="default", scope=PolicyScope.NAMESPACE, action=action, rules=rules)
    return replace(base, **changes)


def allow(name: str, *rules: Rule, **changes: Any) -> Authorization:
    return policy(name, Action.ALLOW, *rules, **changes)


def deny(name: str, *rules: Rule, **changes: Any) -> Authorization:
    return policy(name, Action.DENY, *rules, **changes)


def rule(*matches: Match) -> Rule:
    """Each match a clause of its own: all must hold."""
    return tuple((match,) for match in matches)


# --- Kubernetes


def raw(kind: str, name: str, spec: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A Kubernetes object as decoded JSON; namespace default unless the kind has none."""
    version = "security.istio.io/v1" if kind in ("AuthorizationPolicy", "PeerAuthentication") else "v1"
    if kind not in ("Namespace", "Node"):
        metadata.setdefault("namespace", "default")
    built: dict[str, Any] = {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}}
    if spec is not None:
        built["spec"] = dict(spec)
    return built


def raw_pod(name: str = "a", *ips: str, node: str = "n1", ready: bool = True, **metadata: Any) -> dict[str, Any]:
    """A running pod with one container that has port 8080 called http."""
    container = {"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}
    spec = {"nodeName": node, "serviceAccountName": name, "containers": [container]}
    built = raw("Pod", name, spec, **metadata)
    built["status"] = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips or ("10.0.0.1",)], "ready": ready}
    return built


def records(*objects: Mapping[str, Any] | Record, refused: Iterable[RefusedObject] = (), revision: int = 1) -> Records:
    """A snapshot of these objects (raw ones are parsed)."""
    parsed = [one if isinstance(one, Record) else parse_object(one, "test") for one in objects]
    by_key = {one.key: one for one in parsed}
    return Records(revision, MappingProxyType(by_key), tuple(refused))


def pod(name: str = "a", *ips: str, **metadata: Any) -> Pod:
    parsed = parse_object(raw_pod(name, *ips, **metadata), "test")
    assert isinstance(parsed, Pod)
    return parsed
