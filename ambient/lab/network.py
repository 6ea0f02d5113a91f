"""Nodes, pods and the cable between them: network namespaces, veths, addresses and routes.

Plain routing, no bridge on a node: a pod has one default route to its node, the node one host route per pod and
one route per other node. Touches only the lab's own namespaces. Commands are built by pure functions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ambient.errors import KernelError
from ambient.lab.addresses import Dual, Plan
from ambient.lab.names import NETNS_DIR, Names
from ambient.lab.run import inside, ip_batch, run
from ambient.model.address import IpAddress
from ambient.netns import entered

_ROUTER_SYSCTLS = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    # Duplicate address detection delays each IPv6 address by a second, and here nobody else can have it.
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
)
_POD_SYSCTLS = (
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    # As container runtimes do: a container needs no privilege for port 80 or for ping.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
)


def exists(netns: str) -> bool:
    return (NETNS_DIR / netns).exists()


def inode(netns: str) -> int | None:
    """What identifies the namespace in /proc/<pid>/ns/net; None when there is none of this name."""
    try:
        return os.stat(NETNS_DIR / netns).st_ino
    except FileNotFoundError:
        return None


def remove(netns: str) -> None:
    """Unname the namespace; the kernel takes it apart when its last process and socket are gone."""
    path = NETNS_DIR / netns
    try:
        run(["ip", "netns", "del", netns])
    except KernelError:
        # A file that is no mount: what a crash between creating and mounting leaves.
        with suppress(FileNotFoundError):
            path.unlink()


def list_names() -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(NETNS_DIR))
    except FileNotFoundError:
        return []


def _add(netns: str, sysctls: Iterable[tuple[str, str]]) -> None:
    """A new namespace with these settings; one of this name that is there already (a crash) is replaced."""
    if exists(netns):
        remove(netns)
    run(["ip", "netns", "add", netns])
    with entered(netns_fd := os.open(NETNS_DIR / netns, os.O_RDONLY | os.O_CLOEXEC)):
        for name, value in sysctls:
            setting = Path("/proc/sys") / name
            if setting.exists():
                setting.write_text(value)
    os.close(netns_fd)


def _plug(netns: str, port: str, address: Dual) -> list[str]:
    """In `net`: a cable from a new port of the bridge to a new eth0 in `netns`.

    Its hardware address follows from its IPv4 address: after a reboot the neighbours still know it.
    """
    hardware = ":".join(f"{byte:02x}" for byte in (0x02, 0xAB, *address.v4.packed))
    return [
        f"link add {port} mtu 1500 type veth peer name eth0 address {hardware} mtu 1500 netns {netns}",
        f"link set {port} master br0 up",
    ]


def _underlay_end(address: Dual, plan: Plan) -> list[str]:
    four, six = plan.underlay.both()
    return [
        "link set lo up",
        f"addr add {address.v4}/{four.prefixlen} dev eth0",
        f"addr add {address.v6}/{six.prefixlen} dev eth0 nodad",
        "link set eth0 up",
    ]


def make_underlay(names: Names, plan: Plan) -> None:
    """The bridge and the control plane's namespace on it; what is there and whole already stays."""
    if not exists(names.net):
        _add(names.net, _ROUTER_SYSCTLS)
        ip_batch(names.net, ["link set lo up", "link add br0 type bridge", "link set br0 up"])
    if not _has_eth0(names.control):
        _add(names.control, _POD_SYSCTLS)
        _unplug(names.net, "control")
        ip_batch(names.net, _plug(names.control, "control", plan.control))
        ip_batch(names.control, _underlay_end(plan.control, plan))


def _let_control_answer(names: Names, plan: Plan, number: int) -> None:
    """The control plane's way back to the pods of a node: a waypoint asks it from its own address."""
    pods, via = plan.pods(number), plan.node(number)
    routes = [
        f"route replace {one} via {gateway} dev eth0" for one, gateway in zip(pods.both(), via.both(), strict=True)
    ]
    ip_batch(names.control, routes)


def make_node(names: Names, plan: Plan, node: str, number: int) -> None:
    """The node's namespace with its cable, its Service route and its DNS address; stays when it is whole already."""
    netns = names.node(node)
    _let_control_answer(names, plan, number)
    if _has_eth0(netns):
        return
    _add(netns, _ROUTER_SYSCTLS)
    _unplug(names.net, f"n{number}")
    address = plan.node(number)
    ip_batch(names.net, _plug(netns, f"n{number}", address))
    services, pods = plan.services, plan.pods(number)
    ip_batch(
        netns,
        [
            # A bridge without ports: not every kernel has the dummy device.
            "link add svc0 type bridge",
            "link set svc0 up",
            f"addr add {plan.dns.v4}/32 dev svc0",
            f"addr add {plan.dns.v6}/128 dev svc0 nodad",
            # Own pods that do not exist are unreachable, not sent round in circles.
            f"route add unreachable {pods.v4} metric 4096",
            f"route add unreachable {pods.v6} metric 4096",
            *_underlay_end(address, plan),
            # Only so that a connection from the node itself gets as far as the DNAT.
            f"route add {services.v4} dev svc0 src {address.v4}",
            f"route add {services.v6} dev svc0 src {address.v6}",
        ],
    )


def _has_eth0(netns: str) -> bool:
    """eth0 gets its addresses last but one, so a namespace that has it up with an address was finished."""
    if not exists(netns):
        return False
    try:
        return "inet6" in run([*inside(netns), "ip", "addr", "show", "dev", "eth0", "up"])
    except KernelError:
        return False


def _unplug(netns: str, port: str) -> None:
    """Remove a port left behind by a namespace that is gone (the kernel removes it a little later by itself)."""
    with suppress(KernelError):
        ip_batch(netns, [f"link del {port}"])


def veth_name(uid: str) -> str:
    """The node's end of a pod's cable; 12 characters of 15."""
    return "veth" + hashlib.sha256(uid.encode()).hexdigest()[:8]


def make_pod_netns(netns: str) -> None:
    """A new, empty network namespace for a pod; one of this name is replaced."""
    _add(netns, _POD_SYSCTLS)


def wire_pod(names: Names, plan: Plan, node: str, number: int, netns: str, uid: str, ips: Sequence[IpAddress]) -> None:
    """The cable between a pod's namespace and its node, addresses and routes of both ends.

    Completes what a crash left half done; repeating it changes nothing.
    """
    port, node_netns, node_address = veth_name(uid), names.node(node), plan.node(number)
    gateway = plan.gateway(number)
    if not _has_link(netns, "eth0"):
        _unplug(node_netns, port)
        ip_batch(node_netns, [f"link add {port} mtu 1500 type veth peer name eth0 mtu 1500 netns {netns}"])
    ip_batch(
        node_netns,
        [
            f"addr replace {gateway}/32 dev {port}",
            f"addr replace fe80::1/64 dev {port} nodad",
            f"link set {port} up",
        ],
    )
    inside = ["link set lo up"]
    for ip in ips:
        inside.append(f"addr replace {ip}/{ip.max_prefixlen} dev eth0" + (" nodad" if ip.version == 6 else ""))
    inside.append("link set eth0 up")
    if any(ip.version == 4 for ip in ips):
        inside += [f"route replace {gateway} dev eth0 scope link", f"route replace default via {gateway} dev eth0"]
    if any(ip.version == 6 for ip in ips):
        inside.append("route replace ::/0 via fe80::1 dev eth0")
    ip_batch(netns, inside)
    ip_batch(
        node_netns,
        [
            f"route replace {ip}/32 dev {port} src {node_address.v4}"
            if ip.version == 4
            else f"route replace {ip}/128 dev {port} src {node_address.v6}"
            for ip in ips
        ],
    )


def _has_link(netns: str, link: str) -> bool:
    try:
        run([*inside(netns), "ip", "link", "show", "dev", link])
    except KernelError:
        return False
    return True


def remove_pod(names: Names, node: str, netns: str, uid: str) -> None:
    """Cut the cable (which takes the routes along) and unname the namespace."""
    _unplug(names.node(node), veth_name(uid))
    if exists(netns):
        remove(netns)


def peer_routes(plan: Plan, others: Iterable[int], foreign: Iterable[tuple[IpAddress, int]]) -> list[str]:
    """`ip` commands for a node: to the ranges of other nodes, and to pods whose address was asked for.

    `foreign`: (address, number of the node it is on) of pods on other nodes with an address outside their range.
    """
    lines = []
    for other in sorted(others):
        pods, via = plan.pods(other), plan.node(other)
        lines.append(f"route replace {pods.v4} via {via.v4} dev eth0")
        lines.append(f"route replace {pods.v6} via {via.v6} dev eth0")
    for ip, other in sorted(foreign, key=str):
        via = plan.node(other)
        gateway = via.v4 if ip.version == 4 else via.v6
        lines.append(f"route replace {ip}/{ip.max_prefixlen} via {gateway} dev eth0")
    return lines
