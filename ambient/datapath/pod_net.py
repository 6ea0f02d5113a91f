"""What the capture needs inside a pod's network namespace besides the programs, and how it is undone.

A rule and a table so that looped packets are delivered locally whatever their address, and permission for lo to
receive packets that carry the pod's own address. Nothing else of the pod is changed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from ambient.errors import InvalidInput, KernelError
from ambient.model.address import LOOP_MARK, LOOP_TABLE
from ambient.netns import entered

RULE_PRIORITY: Final = 32764
_ACCEPT_LOCAL: Final = Path("sys/net/ipv4/conf/lo/accept_local")
_PROC: Final = (Path("/proc"), Path("/proc/1/root/proc"))
"""Ours, and the node's: in a container without privileges /proc/sys is read-only. Either shows the settings of the
network namespace that the reader is in."""
_HALF_CLOSED: Final = {"close_wait": 60, "fin_wait": 120, "last_ack": 30}
"""States of conntrack (sys/net/netfilter/nf_conntrack_tcp_timeout_*) and the kernel's seconds for them."""
_LONG_S: Final = 432_000
"""The kernel's own for what is open both ways."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_RTN_LOCAL: Final = 2
_SCOPE_HOST: Final = 254
_LO: Final = 1
_RTM_NEWNSID: Final = 88
_RTM_GETNSID: Final = 90
_NETNSA_NSID: Final = 1
_NETNSA_FD: Final = 3


@dataclass(frozen=True, slots=True)
class PodNet:
    """What `prepare` found and `restore` puts back: the sysctl's value before the first `prepare`."""

    accept_local: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PodNet:
        """Raises InvalidInput."""
        accept_local = value.get("accept_local")
        if accept_local not in {"0", "1"}:
            raise InvalidInput("not a record of a pod's network", "accept_local", f"{accept_local!r} is not '0' or '1'")
        return cls(accept_local)


def observe(netns_fd: int) -> PodNet:
    """What `prepare` would answer now, without changing anything: to be written down before it is called."""
    with entered(netns_fd):
        return PodNet(_accept_local().read_text().strip())


def prepare(netns_fd: int) -> PodNet:
    """Make the rules, routes and sysctl. Doing it again changes nothing, but then the answer no longer knows the
    sysctl's first value: keep the first answer. Raises KernelError."""
    with entered(netns_fd):
        setting = _accept_local()
        before = setting.read_text().strip()
        setting.write_text("1")
        with IPRoute() as route:
            for family in _families():
                try:
                    route.route("replace", **_route(family))
                    _tolerate(errno.EEXIST, route, "add", family)
                except NetlinkError as error:
                    raise KernelError("cannot prepare a pod's routes", _name(family), str(error)) from error
    return PodNet(before)


def restore(netns_fd: int, undo: PodNet) -> None:
    """Undo `prepare`; what is gone already is fine. Raises KernelError."""
    with entered(netns_fd):
        with IPRoute() as route:
            for family in _families():
                try:
                    _tolerate(errno.ENOENT, route, "del", family)
                    _drop_route(route, family)
                except NetlinkError as error:
                    raise KernelError("cannot undo a pod's routes", _name(family), str(error)) from error
        _accept_local().write_text(undo.accept_local)


def keep_half_closed(netns_fd: int) -> None:
    """Have conntrack know connections as long when one side has ended: where it alone knows that one is proxied, what
    it has forgotten would go on in the clear. Raises KernelError."""
    _time_out(netns_fd, dict.fromkeys(_HALF_CLOSED, _LONG_S))


def forget_half_closed(netns_fd: int) -> None:
    """As the kernel does by itself. Raises KernelError."""
    _time_out(netns_fd, _HALF_CLOSED)


def _time_out(netns_fd: int, seconds: Mapping[str, int]) -> None:
    with entered(netns_fd):
        for state, value in seconds.items():
            setting = _setting(Path(f"sys/net/netfilter/nf_conntrack_tcp_timeout_{state}"))
            try:
                setting.write_text(str(value))
            except OSError as error:
                raise KernelError("cannot set how long conntrack remembers", setting.name, str(error)) from error


def _accept_local() -> Path:
    return _setting(_ACCEPT_LOCAL)


def _setting(below_proc: Path) -> Path:
    """That of the namespace that the thread is in, where it can be written."""
    places = [proc / below_proc for proc in _PROC]
    return next((place for place in places if os.access(place, os.W_OK)), places[0])


def _families() -> tuple[int, ...]:
    """Without AF_INET6 where the namespace has no IPv6."""
    return _FAMILIES if Path("/proc/net/if_inet6").exists() else _FAMILIES[:1]


def _name(family: int) -> str:
    return "IPv6" if family == socket.AF_INET6 else "IPv4"


def _route(family: int) -> dict[str, Any]:
    return {
        "family": family,
        "dst": "default",
        "oif": _LO,
        "table": LOOP_TABLE,
        "type": _RTN_LOCAL,
        "scope": _SCOPE_HOST if family == socket.AF_INET else 0,
    }


def _tolerate(number: int, route: IPRoute, command: str, family: int) -> None:
    """Add or delete the rule; the one error that says "done already" is fine (`ip rule` itself makes duplicates)."""
    try:
        route.rule(
            command,
            family=family,
            fwmark=LOOP_MARK,
            table=LOOP_TABLE,
            priority=RULE_PRIORITY,
        )
    except NetlinkError as error:
        if error.code != number:
            raise


def _drop_route(route: IPRoute, family: int) -> None:
    try:
        route.route("del", **_route(family))
    except NetlinkError as error:
        if error.code not in {errno.ESRCH, errno.ENOENT}:
            raise


def peer_ifindex(netns_fd: int, ifname: str = "eth0", *, host: int | None = None) -> int:
    """The ifindex of the other end of the pod's veth, in the namespace where that end is. Raises KernelError.

    With `host` (that namespace) it is checked that the other end leads back: if it were elsewhere the number would name
    something else there.
    """
    with entered(netns_fd), IPRoute() as route:
        try:
            found = route.link_lookup(ifname=ifname)
            link = route.get_links(found[0])[0] if found else None
        except NetlinkError as error:
            raise KernelError("cannot read an interface", ifname, str(error)) from error
    if link is None:
        raise KernelError("no veth", ifname, "there is none")
    kind = _kind(link)
    if kind != "veth":
        # Of a macvlan or ipvlan the "other end" is the node's own network card.
        raise KernelError("no veth", ifname, f"it is a {kind or 'device'}; only pods on a veth can be captured")
    peer = link.get_attr("IFLA_LINK")
    if not peer:
        raise KernelError("no veth", ifname, "it has no other end")
    if host is not None:
        _check_end(host, int(peer), netns_fd)
    return int(peer)


def _check_end(host: int, ifindex: int, netns_fd: int) -> None:
    with entered(host), IPRoute() as route:
        try:
            link = route.get_links(ifindex)[0]
        except (NetlinkError, IndexError) as error:
            raise KernelError("no veth", f"interface {ifindex} of the node", str(error)) from error
        where = link.get_attr("IFLA_LINK_NETNSID")
        if _kind(link) != "veth" or where is None or where != _namespace_id(netns_fd):
            raise KernelError(
                "no veth", f"interface {ifindex} of the node", "is not the pod's: its other end is elsewhere"
            )


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _namespace_id(netns_fd: int) -> int:
    """By what number the namespace of the calling thread knows another one, -1 for none (rtnetlink(7), RTM_GETNSID)."""
    attribute = struct.pack("=HHI", 8, _NETNSA_FD, netns_fd)
    body = struct.pack("=B3x", socket.AF_UNSPEC) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 16 + len(body), _RTM_GETNSID, 1, 1, 0) + body)
        answer = netlink.recv(4096)
    length, kind = struct.unpack_from("=IH", answer)
    at = 16 + 4
    while kind == _RTM_NEWNSID and at + 8 <= length:
        size, name = struct.unpack_from("=HH", answer, at)
        if name == _NETNSA_NSID:
            return int(struct.unpack_from("=i", answer, at + 4)[0])
        at += max(4, size + 3 & ~3)
    return -1
