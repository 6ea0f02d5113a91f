"""How this node captures pods, chosen and opened: by programs (TCX, or filters of clsact), or by nftables where eBPF is
refused. What the agent is built on is the same either way: a kernel, a table of owners, and what the kernel tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from ambient.agent import kernel_path, kernel_policy, watch_flows, watch_packets
from ambient.agent.journal import Journal
from ambient.agent.kernel import Kernel, NodeKernel
from ambient.agent.locate import Locator
from ambient.agent.no_programs import NoTables
from ambient.agent.owners import OwnerTable
from ambient.agent.rule_kernel import RuleKernel
from ambient.agent.rule_owners import RuleOwners
from ambient.agent.settings import AgentSettings
from ambient.datapath import bpfsys, cgroups, nft, programs, rule_tables
from ambient.datapath.exchange import PODS, schema
from ambient.datapath.hooks import Attach
from ambient.datapath.layout import Counter
from ambient.datapath.maps import Maps
from ambient.datapath.rules import Group, node_rules, pod_rules
from ambient.datapath.variant import RULES, Variant, Wanted, choose
from ambient.errors import KernelError, MeshError, Refused

OWNERS_FILE: Final = "rule-owners.json"
"""In the agent's state directory, where rules capture."""

_FIRST: Final = "to change it take them out first (`python -m ambient.agent --uninstall`), or restart the node"

log = logging.getLogger("ambient.agent.captures")


class Counters(Protocol):
    def read(self) -> Mapping[Counter, int]: ...


class Tables(kernel_path.Tables, Protocol):
    """What the kernel is told and tells besides rows and owners, as `ambient.datapath.maps` has it."""

    @property
    def deny(self) -> kernel_policy.Tables: ...
    @property
    def shadow(self) -> kernel_policy.Sets: ...
    @property
    def lease(self) -> kernel_policy.Lease: ...
    @property
    def events(self) -> watch_packets.Ring: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def tallies(self) -> watch_flows.Sheets: ...


@dataclass(frozen=True, slots=True)
class Captures:
    """`kernel` is made once, with what finds pods' namespaces."""

    variant: Variant
    tables: Tables
    owners: OwnerTable
    kernel: Callable[[Locator], Kernel]


@contextmanager
def opened(settings: AgentSettings) -> Iterator[Captures]:
    """Have what captures loaded, and open. Raises MeshError when neither way is to be had, or not the one that is
    set."""
    variant = _load(settings)
    log.info("pods are captured by %s: %s", variant.via, variant.why)
    if variant.via == RULES:
        yield _by_rules(settings, variant)
        return
    via: programs.Via = variant.via
    with Maps.open(settings.bpffs) as tables:
        tables.config.set(settings.options(tables.config.options()))

        def kernel(locator: Locator) -> NodeKernel:
            return NodeKernel(settings.bpffs, tables, locator, settings.pod_veth, settings.node_cgroup, via)

        yield Captures(variant, tables, tables.owners, kernel)


def _by_rules(settings: AgentSettings, variant: Variant) -> Captures:
    mount = cgroups.mount_point()
    if mount is not None and not _tells_groups():
        log.error("nftables here cannot tell control groups (Linux 5.13): the mark alone says who is ztunnel")
        mount = None
    owners = RuleOwners(settings.state / OWNERS_FILE, mount)
    name = rule_tables.owner_name(settings.node, settings.state)

    def kernel(locator: Locator) -> RuleKernel:
        journal = {entry.pod.uid: entry for entry in Journal(settings.state / "pods")}
        return RuleKernel(locator, settings.pod_veth, name, owners, journal)

    return Captures(variant, NoTables(), owners, kernel)


def _tells_groups() -> bool:
    try:
        nft.check(pod_rules("check", "check", {}, [Group(1, "..")]))
    except KernelError:
        return False
    return True


def _load(settings: AgentSettings) -> Variant:
    """Raises MeshError. What captures pods of the node goes on: one way under the other would be looked after by
    nobody, and to take it off first would leave open connections to the wire."""
    wanted = cast(Wanted, settings.capture)
    by_programs, by_rules = _captured_by_programs(settings.bpffs), _captured_by_rules(settings)
    if (by_programs and wanted == RULES) or (by_rules and wanted not in (RULES, "auto")):
        there = "programs" if by_programs else "rules"
        raise Refused(f"pods here are captured by {there}", f"AMBIENT_CAPTURE={wanted}", _FIRST)
    if wanted == RULES or (by_rules and not by_programs):
        _check_rules()
        return Variant.by_rules("it is set so" if wanted == RULES else f"rules capture pods here already; {_FIRST}")
    try:
        via, why = choose(wanted, has_tcx=bpfsys.has_tcx(Attach.TCX_INGRESS))
        loaded = programs.load(settings.bpffs, cast(programs.Loader, settings.loader))
    except MeshError as error:
        if wanted != "auto" or by_programs:
            raise
        try:
            _check_rules()
        except MeshError as other:
            raise KernelError("nothing can capture pods here", "AMBIENT_CAPTURE=auto", f"{error}; {other}") from error
        log.warning("eBPF cannot be had here, nftables captures: %s", error)
        return Variant.by_rules(f"eBPF cannot be had: {error}")
    was_there = ", was there" if loaded.reused else ""
    log.info("datapath %s by %s, listeners %s%s", loaded.version, loaded.loader, loaded.listeners, was_there)
    return Variant(via, why, loaded.loader, loaded.version, schema(settings.bpffs), listeners=loaded.listeners)


def _check_rules() -> None:
    """Raises MeshError where nftables would not take what captures a pod."""
    nft.check(pod_rules("check", "check", {}, None) + node_rules("check", (), None))


def _captured_by_programs(bpffs: Path) -> bool:
    """An agent before us has pods in the mesh by programs: they are not given up because ours could not be loaded."""
    try:
        return any((bpffs / PODS).iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError("cannot see which pods programs capture", str(bpffs / PODS), str(error)) from error


def _captured_by_rules(settings: AgentSettings) -> bool:
    """Likewise by rules. Only where there was once such an agent are the namespaces looked through."""
    if not (settings.state / OWNERS_FILE).exists():
        return False
    return any(True for _ in rule_tables.of(rule_tables.owner_name(settings.node, settings.state)))
