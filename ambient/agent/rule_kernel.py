"""The node's kernel as the agent uses it where there is no eBPF: pods are captured by nftables in their namespaces.

Rules and rows of a pod are one table, written in one transaction; what an agent before this one wrote is found in the
namespaces themselves. Threads may use it at the same time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Literal

from ambient.agent.journal import Entry, OlderConnection
from ambient.agent.kernel import Mended, PodSpaces
from ambient.agent.locate import Locator
from ambient.agent.podns import PodNetns, cookie_of
from ambient.agent.rule_owners import RuleOwners
from ambient.agent.rule_table import RuleTable
from ambient.datapath import nft, pod_net, rule_tables
from ambient.datapath.layout import PodRow
from ambient.datapath.rules import NODE, Written, node_rules, pod_rules, read
from ambient.datapath.strangers import Stranger
from ambient.errors import KernelError, MeshError
from ambient.model.address import IpAddress

log = logging.getLogger("ambient.agent.rules")


class RuleKernel(PodSpaces):
    """`owner` is this agent's name of itself in the tables that it writes. What a table says counts only in the
    namespace of the pod that `journal` (by uid) knows: a pod may make namespaces of its own, and write into them."""

    captures_by: Literal["link", "rules"] = "rules"

    def __init__(
        self, locator: Locator, veth: str, owner: str, owners: RuleOwners, journal: Mapping[str, Entry]
    ) -> None:
        super().__init__(locator, veth)
        self._owner = owner
        self._owners = owners
        self._lock = threading.RLock()
        self._rows: dict[IpAddress, tuple[str, PodRow]] = {}
        self._tables: dict[str, RuleTable] = {}
        self._node: RuleTable | None = None
        self._probed: frozenset[IpAddress] = frozenset()
        for fd, written in rule_tables.of(owner):
            self._adopt(fd, written, journal.get(written.uid))
        owners.tell(self._owners_changed)

    def _adopt(self, fd: int, written: Written, entry: Entry | None) -> None:
        """What an agent before this one wrote. Of a pod that nobody knows the table is only there to be taken away."""
        if (written.uid == NODE) is not (os.fstat(fd).st_ino == os.fstat(self._host).st_ino):
            return
        if entry is not None and cookie_of(fd) != entry.netns:
            return
        table = RuleTable(os.dup(fd))
        with suppress(MeshError):
            table.adopt()
        if written.uid == NODE:
            self._node = table
            return
        self._tables[written.uid] = table
        if entry is not None:
            own = entry.pod.addresses
            self._rows |= {ip: (written.uid, row) for ip, row in written.rows.items() if ip in own}

    def close(self) -> None:
        super().close()
        for table in (*self._tables.values(), *([self._node] if self._node is not None else [])):
            os.close(table.fd)

    def admit_clear(self, connections: Iterable[OlderConnection]) -> None:
        """Rules leave alone what they have not seen open; nobody raises an alarm."""

    def rows(self) -> Mapping[IpAddress, PodRow]:
        return {ip: row for ip, (_, row) in self._rows.items()}

    def row(self, ip: IpAddress) -> PodRow | None:
        _, row = self._rows.get(ip, ("", None))
        return row

    def put_rows(self, uid: str, rows: Mapping[IpAddress, PodRow]) -> None:
        """Together, in one step. Raises KernelError: then they are as they were."""
        with self._lock:
            self._change(uid, {**self._rows, **{ip: (uid, row) for ip, row in rows.items()}})

    def delete_row(self, ip: IpAddress) -> None:
        with self._lock:
            uid, _ = self._rows.get(ip, ("", None))
            self._change(uid, {other: one for other, one in self._rows.items() if other != ip})

    def attach_pod(self, netns: PodNetns, uid: str) -> None:
        with self._lock:
            table = self._tables.get(uid)
            if table is not None and os.fstat(table.fd).st_ino != os.fstat(netns.fd).st_ino:
                self.detach(uid)
                table = None
            if table is None:
                self._refuse_others(netns.fd)
                table = RuleTable(os.dup(netns.fd))
            try:
                table.write(self._rules(uid, self._rows))
                pod_net.keep_half_closed(table.fd)
            except BaseException:
                if uid not in self._tables:
                    with suppress(MeshError):
                        nft.remove(table.fd)
                    os.close(table.fd)
                raise
            self._tables[uid] = table

    def attach_host(self, ifindex: int, uid: str) -> None:
        with self._lock:
            self._write_node()

    def attached(self) -> Mapping[str, bool]:
        """Pods that have a table; True when it is as we wrote it."""
        with self._lock:
            return {uid: table.is_intact() for uid, table in self._tables.items()}

    def detach(self, uid: str) -> None:
        with self._lock:
            table = self._tables.get(uid)
            if table is None:
                return
            nft.remove(table.fd)
            with suppress(KernelError):
                pod_net.forget_half_closed(table.fd)
            os.close(table.fd)
            del self._tables[uid]
            self._write_node()

    def attach_node(self) -> bool:
        return False

    def mend(self) -> Mended | None:
        """Write the node's table again when somebody was at it."""
        with self._lock:
            if self._node is None or self._node.is_intact():
                return None
            self._write_node(anew=True)
        return Mended("rules", "somebody changed or deleted the node's rules for probes: written again")

    def strangers(self, netns: PodNetns) -> tuple[Stranger, ...]:
        """Rules have no order with programs that could be told here."""
        return ()

    def _change(self, uid: str, rows: dict[IpAddress, tuple[str, PodRow]]) -> None:
        table = self._tables.get(uid)
        if table is not None:
            table.write(self._rules(uid, rows))
        self._rows = rows
        if table is not None:
            self._write_node()

    def _rules(self, uid: str, rows: Mapping[IpAddress, tuple[str, PodRow]]) -> str:
        own = {ip: row for ip, (whose, row) in rows.items() if whose == uid}
        return pod_rules(self._owner, uid, own, self._owners.ztunnels())

    def _refuse_others(self, fd: int) -> None:
        found = nft.listing(fd)
        if found is not None and read(found).owner != self._owner:
            raise KernelError("another mesh captures this pod", "table inet ambient", f"it is {read(found).owner}'s")

    def _write_node(self, *, anew: bool = False) -> None:
        """The table of the node itself is there while a pod is captured, and knows which ones are."""
        wanted = frozenset(ip for ip, (uid, _) in self._rows.items() if uid in self._tables)
        if not wanted:
            if self._node is not None:
                nft.remove(self._node.fd)
                os.close(self._node.fd)
            self._node, self._probed = None, wanted
            return
        if wanted == self._probed and self._node is not None and not anew:
            return
        table = self._node or RuleTable(os.dup(self._host))
        if self._node is None:
            self._refuse_others(table.fd)
        table.write(node_rules(self._owner, sorted(wanted, key=str), self._owners.kubelets()))
        self._node, self._probed = table, wanted

    def _owners_changed(self) -> None:
        """A ztunnel or a kubelet came or went: whose sockets count is written into every table. One that cannot be
        written is left to the sweep."""
        with self._lock:
            for uid, table in self._tables.items():
                try:
                    table.write(self._rules(uid, self._rows))
                except MeshError as error:
                    table.doubt()
                    log.error("pod %s: %s", uid, error)
            try:
                self._write_node(anew=True)
            except MeshError as error:
                if self._node is not None:
                    self._node.doubt()
                log.error("the node's rules: %s", error)
