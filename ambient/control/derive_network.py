"""Networks: gateways that lead to them, and what a workload on another one needs so that it can be reached. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ambient.control.derive_world import NETWORK, World
from ambient.kube import syntax
from ambient.kube.networking import Gateway
from ambient.model.address import IpAddress, parse_ip
from ambient.model.workload import GatewayAddress, NetworkAddress, TunnelProtocol, Workload

SERVICE_ACCOUNT: Final = "gateway.istio.io/service-account"
_REMOTE_CLASS: Final = "istio-remote"
_CLASSES: Final = frozenset({_REMOTE_CLASS, "istio-east-west"})


@dataclass(frozen=True, slots=True)
class NetworkGateway:
    """One address of a Gateway that leads into `network`; `ip` is None where it has a name instead."""

    network: str
    address: str
    port: int
    namespace: str
    service_account: str

    @property
    def ip(self) -> IpAddress | None:
        return None if syntax.ip(self.address) else parse_ip(self.address)

    @property
    def uid(self) -> str:
        return f"NetworkGateway/{self.network}/{self.address}/{self.port}"


def network_gateways(world: World) -> list[NetworkGateway]:
    """Of every network, those of older Gateways first; an address that two Gateways have belongs to the older."""
    found: dict[str, NetworkGateway] = {}
    for gateway in world.gateways():
        for one in _of(gateway):
            found.setdefault(one.uid, one)
    return list(found.values())


def gateway_of(world: World, network: str) -> GatewayAddress | None:
    """Where traffic to a network goes; None for our own and for those that nothing leads to."""
    if network == world.network:
        return None
    for gateway in network_gateways(world):
        if gateway.network == network and gateway.ip is not None:
            return GatewayAddress(NetworkAddress(network, gateway.ip), gateway.port)
    return None


def gateway_workloads(world: World) -> list[Workload]:
    """Gateways as workloads: who wants to verify them has to know their identity."""
    settings = world.settings
    return [
        Workload(
            uid=one.uid,
            name=one.service_account,
            namespace=one.namespace,
            addresses=() if one.ip is None else (one.ip,),
            hostname=one.address if one.ip is None else "",
            network=one.network,
            tunnel_protocol=TunnelProtocol.HBONE,
            trust_domain=settings.trust_domain,
            service_account=one.service_account,
            cluster_id=settings.cluster_id,
        )
        for one in network_gateways(world)
    ]


def _of(gateway: Gateway) -> list[NetworkGateway]:
    network = gateway.labels.get(NETWORK, "")
    tunnel = next((one for one in gateway.listeners if one.protocol == "HBONE"), None)
    if not network or tunnel is None or gateway.class_name not in _CLASSES:
        return []
    # A gateway of another network is known by the addresses that somebody wrote down, our own by those it got.
    addresses = gateway.wanted if gateway.class_name == _REMOTE_CLASS else gateway.assigned
    account = gateway.annotations.get(SERVICE_ACCOUNT) or gateway.name
    return [
        NetworkGateway(network, address.value, tunnel.port, gateway.namespace, account)
        for address in addresses
        if address.value and address.type in ("IPAddress", "Hostname")
    ]
