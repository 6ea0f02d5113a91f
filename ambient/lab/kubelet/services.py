"""Services of a node as one nftables ruleset: ClusterIP -> a ready pod, at random. Pure text.

The table is replaced as a whole, which nft does in one transaction; connections that exist are in conntrack and
stay where they are. What is in the Service range and has no ready pod is refused (RST), not lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.objects import Pod, Service
from ambient.lab.addresses import Dual, Plan
from ambient.lab.endpoints import backends, targets
from ambient.model.address import IpAddress

TABLE: Final = "ambient-lab"


def ruleset(services: Iterable[Service], pods: Iterable[Pod], plan: Plan, node: Dual) -> str:
    """Input for `nft -f -`. `node` is the node's own address (source of a pod's connections to itself)."""
    pods = list(pods)
    chains: list[str] = []
    verdicts: dict[int, list[str]] = {4: [], 6: []}
    hairpins: dict[int, set[IpAddress]] = {4: set(), 6: set()}
    for number, service in enumerate(sorted(services, key=lambda s: s.key)):
        chosen = backends(service, pods)
        for ip in service.cluster_ips:
            for place, port in enumerate(service.ports):
                protocol = port.protocol.lower()
                found = targets(port, chosen, ip.version)
                if not found or protocol == "sctp":
                    continue
                chain = f"s{number}p{place}v{ip.version}"
                chains += _balance(chain, protocol, found)
                verdicts[ip.version].append(f"{ip} . {protocol} . {port.port} : goto {chain}")
                hairpins[ip.version].update(address for address, _ in found)
    parts = [f"table inet {TABLE} {{", *chains]
    for version, family in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        parts += _map(f"services{version}", f"{family} . inet_proto . inet_service : verdict", verdicts[version])
        pairs = [f"{ip} . {ip}" for ip in sorted(hairpins[version], key=str)]
        parts += _set(f"hairpin{version}", f"{family} . {family}", pairs)
    parts += _hooks(plan, node)
    parts.append("}")
    return "\n".join([f"table inet {TABLE}", f"delete table inet {TABLE}", *parts, ""])


def _balance(chain: str, protocol: str, found: list[tuple[IpAddress, int]]) -> list[str]:
    family = "ip" if found[0][0].version == 4 else "ip6"
    rules = []
    choices = []
    for index, (ip, port) in enumerate(found):
        address = f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"
        rules += [f"chain {chain}e{index} {{", f"meta l4proto {protocol} dnat {family} to {address}", "}"]
        choices.append(f"{index} : goto {chain}e{index}")
    pick = f"numgen random mod {len(found)} vmap {{ {', '.join(choices)} }}"
    return [*rules, f"chain {chain} {{", pick, "}"]


def _map(name: str, type_: str, elements: list[str]) -> list[str]:
    return [f"map {name} {{", f"type {type_}", *_elements(elements), "}"]


def _set(name: str, type_: str, elements: list[str]) -> list[str]:
    return [f"set {name} {{", f"type {type_}", *_elements(elements), "}"]


def _elements(elements: list[str]) -> list[str]:
    return [f"elements = {{ {', '.join(elements)} }}"] if elements else []


def _hooks(plan: Plan, node: Dual) -> list[str]:
    lookup = [
        "ip daddr . meta l4proto . th dport vmap @services4",
        "ip6 daddr . meta l4proto . th dport vmap @services6",
    ]
    refuse = []
    for family, network, own in (("ip", plan.services.v4, plan.dns.v4), ("ip6", plan.services.v6, plan.dns.v6)):
        match = f"{family} daddr {network} {family} daddr != {own}"
        refuse += [f"{match} meta l4proto tcp reject with tcp reset", f"{match} reject"]
    return [
        *("chain arriving {", "type nat hook prerouting priority dstnat; policy accept;", *lookup, "}"),
        *("chain own {", "type nat hook output priority -100; policy accept;", *lookup, "}"),
        *("chain leaving {", "type nat hook postrouting priority srcnat; policy accept;"),
        f"ct status dnat ip saddr . ip daddr @hairpin4 snat ip to {node.v4}",
        f"ct status dnat ip6 saddr . ip6 daddr @hairpin6 snat ip6 to {node.v6}",
        "}",
        *("chain passing {", "type filter hook forward priority filter; policy accept;", *refuse, "}"),
        *("chain starting {", "type filter hook output priority filter; policy accept;", *refuse, "}"),
    ]
