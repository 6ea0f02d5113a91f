"""What a lab was made with: `lab.json` in its folder, written once by `up`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ambient.errors import InvalidInput, Unavailable
from ambient.lab.addresses import Plan
from ambient.lab.names import Names


@dataclass(frozen=True, slots=True)
class LabSettings:
    """`mesh`: control plane, agents and ztunnels run. `env`: extra environment, key "COMPONENT:NAME" or "NAME"."""

    lab: str
    index: int
    mesh: bool = True
    env: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> Names:
        return Names(self.lab)

    @property
    def plan(self) -> Plan:
        return Plan(self.index)

    def environment(self, component: str) -> dict[str, str]:
        """The extra environment of control, agent or ztunnel."""
        found = {}
        for key, value in self.env:
            owner, _, name = key.rpartition(":")
            if owner in ("", component):
                found[name] = value
        return found

    def save(self) -> None:
        write_atomically(self.names.settings, json.dumps(asdict(self)))


def load(names: Names) -> LabSettings:
    """Raises Unavailable when there is no such lab, InvalidInput when its file is broken."""
    try:
        raw = json.loads(names.settings.read_text())
        return LabSettings(raw["lab"], raw["index"], raw["mesh"], tuple((k, v) for k, v in raw["env"]))
    except (FileNotFoundError, NotADirectoryError):
        raise Unavailable(f"no lab {names.lab!r}", why=f"make it: ambient lab up --name {names.lab}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("broken lab", str(names.settings), f"{error}; remove it: ambient lab down") from None


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Whole or not at all, also when we are killed in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.rename(path)


def read_json(path: Path) -> Any:
    """The file's content; None when it is missing or broken (a crash)."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
