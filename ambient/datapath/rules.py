"""What nftables is told where eBPF cannot be had: a pod's capture, and the node's probes, as text for `nft -f`. Pure.

The same contract as the programs': what the pod opens is looped (mark, policy route) to ztunnel's listeners, which
TPROXY finds; addresses stay as they are, so that ztunnel needs no conntrack to know them. What was decided about an
opening packet is kept in the connection's conntrack mark; connections without one are older, and left alone.

The rows of a pod are written into the table itself, as comments of the elements of two sets, so that rules and rows
change in one transaction and whoever reads the table knows both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.errors import InvalidInput
from ambient.model.address import (
    DNS_PORT,
    HBONE_PORT,
    LOOP_MARK,
    OUTBOUND_PORT,
    PLAINTEXT_PORT,
    PROXY_MARK,
    IpAddress,
    parse_ip,
)

TABLE: Final = "ambient"
PROBE_SOURCES: Final = (IPv4Address("169.254.7.127"), IPv6Address("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"))
"""Whom the kubelet's probes come from, as a pod sees it (Istio's HOST_PROBE_SNAT_IP and HOST_PROBE_SNAT_IPV6)."""
_RELAYED_MARK: Final = 0x111
"""Conntrack mark of what ztunnel opens towards the application: the answers are ztunnel's."""
_MARK_BITS: Final = 0xFFF
_OTHER_BITS: Final = 0xFFFFF000
_LOOP: Final = f"meta mark set {LOOP_MARK:#x} accept"
_OPENING: Final = "tcp flags & (syn | ack) == syn"
NODE: Final = "node"
"""In place of a pod's uid: the table of the node itself."""
_WHOSE: Final = re.compile(r'^\s*comment "ambient (\S+) (\S+)"$', re.MULTILINE)
_ROW: Final = re.compile(r'([0-9a-fA-F.:]+) comment "row (\d+) (\d+) (\d+) (\d+) (\d+)"')


@dataclass(frozen=True, slots=True)
class Group:
    """A control group v2 as nft names it: how many levels below the root, and where from /sys/fs/cgroup."""

    level: int
    path: str

    def __str__(self) -> str:
        if '"' in self.path or "\n" in self.path:
            raise InvalidInput("not a control group that a rule can name", repr(self.path))
        return f'socket cgroupv2 level {self.level} "{self.path}"'


@dataclass(frozen=True, slots=True)
class Written:
    """What a table says about itself: whose it is (an agent's name of itself), of which pod, with which rows."""

    owner: str
    uid: str
    rows: Mapping[IpAddress, PodRow]


def pod_rules(owner: str, uid: str, rows: Mapping[IpAddress, PodRow], ztunnels: Collection[Group] | None) -> str:
    """The table of one pod, in place of the one that is there. `ztunnels`: whose mark counts; None: everybody's."""
    sets = [_row_set(rows, 4), _row_set(rows, 6)]
    for name, flag in (
        ("out", Flag.CAPTURE_OUT),
        ("in", Flag.CAPTURE_IN),
        ("hbone", Flag.HBONE_IN),
        ("dns", Flag.DNS),
    ):
        sets += [_set(name, version, (ip for ip, row in rows.items() if flag in row.flags)) for version in (4, 6)]
    own = ["goto ztunnels"] if ztunnels is None else [f"{group} goto ztunnels" for group in ztunnels]
    return _table(
        owner,
        uid,
        sets,
        {
            "ztunnels": [f'oifname "lo" ct mark set ct mark & {_OTHER_BITS:#x} | {_RELAYED_MARK:#x}', "accept"],
            "marked": own,
            "loop": [
                f"ct mark set ct mark & {_OTHER_BITS:#x} | {LOOP_MARK:#x}",
                _LOOP,
            ],
            "opening": [
                f"ct mark & {_MARK_BITS:#x} != 0 ct mark set ct mark & {_OTHER_BITS:#x}",
                f"meta mark {PROXY_MARK:#x} jump marked",
                'oifname != "eth0" accept',
                *_each("saddr @out", "goto loop"),
                *_each("saddr @rows", "accept"),
                "drop",
            ],
            "names": [
                f"meta mark {PROXY_MARK:#x} jump marked",
                *_each("saddr @dns", f"meta mark set {LOOP_MARK:#x}"),
            ],
            "output": [
                "type route hook output priority mangle; policy accept;",
                f"{_OPENING} goto opening",
                f"ct mark & {_MARK_BITS:#x} == {LOOP_MARK:#x} ct direction original {_LOOP}",
                f"ct mark & {_MARK_BITS:#x} == {_RELAYED_MARK:#x} ct direction reply {_LOOP}",
                'oifname "eth0" udp dport 53 goto names',
                # Of what is not known to be anybody's it is not known either that it is not proxied.
                *_each("saddr @out", 'oifname "eth0" meta l4proto tcp ct state invalid drop'),
            ],
            "looped": [
                f"udp dport 53 tproxy to :{DNS_PORT} accept",
                "meta l4proto udp drop",
                *_each("saddr @dns", f"tcp dport 53 tproxy {{family}} to :{DNS_PORT} accept"),
                f"meta l4proto tcp tproxy to :{OUTBOUND_PORT} accept",
                f"{_OPENING} drop",
            ],
            "opened": [
                *_each("daddr @hbone", f"tcp dport {HBONE_PORT} tproxy {{family}} to :{HBONE_PORT} accept"),
                *_each(
                    "daddr @hbone",
                    f"tcp dport {{ {OUTBOUND_PORT}, {PLAINTEXT_PORT}, {HBONE_PORT}, {DNS_PORT} }} drop",
                ),
                *_each("daddr @in", f"meta l4proto tcp tproxy {{family}} to :{PLAINTEXT_PORT} accept"),
                *_each("daddr @in", "drop"),
                *_each("daddr @rows", "accept"),
                "drop",
            ],
            "arriving": [
                *(f"{_family(ip)} saddr {ip} accept" for ip in PROBE_SOURCES),
                f"{_OPENING} goto opened",
                *_each("daddr @in", f"meta l4proto tcp tproxy {{family}} to :{PLAINTEXT_PORT} accept"),
            ],
            "prerouting": [
                "type filter hook prerouting priority mangle; policy accept;",
                f'iifname "lo" meta mark {LOOP_MARK:#x} goto looped',
                'iifname "eth0" meta l4proto tcp goto arriving',
                *_each("daddr @hbone", f'iifname "eth0" udp dport {DNS_PORT} drop'),
            ],
            "passing": [
                "type filter hook forward priority mangle; policy accept;",
                f'oifname "eth0" {_OPENING} drop',
            ],
            "guard": [
                "type filter hook postrouting priority mangle; policy accept;",
                f'oifname "eth0" meta mark {LOOP_MARK:#x} drop',
            ],
        },
    )


def node_rules(owner: str, pods: Iterable[IpAddress], kubelets: Collection[Group] | None) -> str:
    """The node's own table: probes come from an address that nobody else may have. `kubelets`: whose connections are
    probes; None: those of every socket of the node itself."""
    pods = tuple(pods)
    sets = []
    for version in (4, 6):
        sets.append(_set("pods", version, (ip for ip in pods if ip.version == version)))
        kind = "ipv4_addr" if version == 4 else "ipv6_addr"
        sets.append(
            f"set probes_v{version} {{ type {kind} . inet_service . {kind} . inet_service; flags dynamic,timeout; "
            "timeout 2s; size 65535; }"
        )
    noting = [
        f"{family} daddr @pods_v{version} {_OPENING}{who} update @probes_v{version} {{ {_tuple(family)} }}"
        for version, family in ((4, "ip"), (6, "ip6"))
        for who in ([""] if kubelets is None else [f" {group}" for group in kubelets])
    ]
    return _table(
        owner,
        NODE,
        sets,
        {
            "output": ["type filter hook output priority mangle; policy accept;", *noting],
            "postrouting": [
                "type nat hook postrouting priority srcnat - 1; policy accept;",
                *(f"{_tuple(_family(ip))} @probes_v{ip.version} snat {_family(ip)} to {ip}" for ip in PROBE_SOURCES),
            ],
            "prerouting": [
                "type filter hook prerouting priority raw; policy accept;",
                *(f"{_family(ip)} saddr {ip} drop" for ip in PROBE_SOURCES),
            ],
        },
    )


def removal() -> str:
    """Take the table away, whether it is there or not."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def read(listing: str) -> Written:
    """What a table says about itself, as `nft list table` shows it. Raises InvalidInput for a table that is no agent's
    of ours."""
    whose = _WHOSE.search(listing)
    if whose is None:
        raise InvalidInput("a table that is not ours", f"inet {TABLE}", "it does not say whose it is")
    rows = {}
    for address, *numbers in _ROW.findall(listing):
        flags, fail_in, fail_out, host_ifindex, epoch = map(int, numbers)
        try:
            row = PodRow(Flag(flags), FailMode(fail_in), FailMode(fail_out), epoch, host_ifindex)
        except ValueError as error:
            raise InvalidInput("a table that is not ours", f"inet {TABLE}", str(error)) from None
        rows[parse_ip(address)] = row
    return Written(whose[1], whose[2], rows)


def _table(owner: str, of: str, sets: Iterable[str], chains: Mapping[str, Iterable[str]]) -> str:
    lines = [removal() + f"table inet {TABLE} {{", f'\tcomment "ambient {owner} {of}"']
    lines += [f"\t{one}" for one in sets]
    for name, rules in chains.items():
        lines += [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    return "\n".join([*lines, "}"]) + "\n"


def _row_set(rows: Mapping[IpAddress, PodRow], version: int) -> str:
    return _set(
        "rows",
        version,
        (
            f'{ip} comment "row {int(row.flags)} {int(row.fail_in)} {int(row.fail_out)} {row.host_ifindex} {row.epoch}"'
            for ip, row in sorted(rows.items(), key=lambda item: int(item[0]))
            if ip.version == version
        ),
    )


def _set(name: str, version: int, elements: Iterable[object]) -> str:
    """A set of addresses; those of the other family are left out."""
    kind = "ipv4_addr" if version == 4 else "ipv6_addr"
    there = ", ".join(str(one) for one in elements if not isinstance(one, IpAddress) or one.version == version)
    held = f" elements = {{ {there} }}" if there else ""
    return f"set {name}_v{version} {{ type {kind};{held} }}"


def _each(address: str, rest: str) -> list[str]:
    """The rule for each family; `address` ends with the name of a set, "{family}" is what nft calls the family."""
    return [
        f"{family} {address}_v{version} {rest.replace('{family}', family)}"
        for version, family in ((4, "ip"), (6, "ip6"))
    ]


def _tuple(family: str) -> str:
    """All of a connection: a probe's alone is a probe's, whoever else comes by its port."""
    return f"{family} saddr . tcp sport . {family} daddr . tcp dport"


def _family(ip: IpAddress) -> str:
    return "ip" if ip.version == 4 else "ip6"
