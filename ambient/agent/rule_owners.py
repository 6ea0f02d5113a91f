"""Whose sockets are ztunnel's and the kubelet's where rules capture: the owners of `ambient.agent.owners` as control
groups that a rule can name. Kept in a file: rules that are there must not lose ztunnel because the agent restarted.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ambient.agent.owners import directories
from ambient.datapath.layout import Role
from ambient.datapath.rules import Group

_NFT_LOOKS_BELOW: Final = "/sys/fs/cgroup"

log = logging.getLogger("ambient.agent.owners")


class RuleOwners:
    """An `OwnerTable`. `mount`: where cgroup v2 is; None where there is none, or no rule can ask for it: then a mark
    alone is ztunnel's, and any socket of the node itself may probe. Call `tell` with who wants to know of changes."""

    def __init__(self, file: Path, mount: Path | None) -> None:
        self._file = file
        self._mount = mount
        self._roles = _read(file)
        self._found: dict[int, Path] = {}
        self._changed: Callable[[], None] = lambda: None
        self._said: set[int] = set()

    def tell(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def put(self, cgroup_id: int, role: Role) -> None:
        if self._roles.get(cgroup_id) is not role:
            self._set({**self._roles, cgroup_id: role})

    def delete(self, cgroup_id: int) -> None:
        if cgroup_id in self._roles:
            self._set({number: role for number, role in self._roles.items() if number != cgroup_id})

    def items(self) -> Mapping[int, Role]:
        return dict(self._roles)

    def ztunnels(self) -> tuple[Group, ...] | None:
        """Those whose mark counts; None: everybody's, also where ztunnel shares the root group with everybody."""
        found = self._groups(Role.ZTUNNEL)
        return None if found is None or any(not group.level for group in found.values()) else tuple(found.values())

    def kubelets(self) -> tuple[Group, ...] | None:
        """Those whose connections are probes; None: those of the node itself. A rule means what is below a group too,
        so a kubelet in the root group is not told apart from pods, and nobody is one."""
        found = self._groups(Role.KUBELET)
        if found is None:
            return None
        for number in {number for number, group in found.items() if not group.level} - self._said:
            self._said.add(number)
            log.error("kubelet: is in the root control group, which no rule tells from pods: probes are captured")
        return tuple(group for group in found.values() if group.level)

    def _groups(self, role: Role) -> dict[int, Group] | None:
        if self._mount is None:
            return None
        wanted = {number for number, one in self._roles.items() if one is role}
        gone = {number for number, path in self._found.items() if _number(path) != number}
        self._found = {number: path for number, path in self._found.items() if number not in gone}
        if wanted - self._found.keys():
            self._found |= directories(self._mount, wanted)
        return {
            number: Group(
                len(self._found[number].relative_to(self._mount).parts),
                os.path.relpath(self._found[number], _NFT_LOOKS_BELOW),
            )
            for number in sorted(wanted & self._found.keys())
        }

    def _set(self, roles: dict[int, Role]) -> None:
        self._roles = roles
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({str(number): int(role) for number, role in roles.items()}))
        os.replace(new, self._file)
        self._changed()


def _number(group: Path) -> int:
    """Its id, 0 when it is gone."""
    try:
        return group.stat().st_ino
    except OSError:
        return 0


def _read(file: Path) -> dict[int, Role]:
    """Nobody, when there is no file or it is not ours: they come again with ztunnel's next word."""
    try:
        return {int(number): Role(role) for number, role in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
