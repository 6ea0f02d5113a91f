"""What the container runtime told at each pod's start: its sandbox, its namespace's path and its addresses.

One JSON file per pod beside the journal, for an agent that is restarted before the API server shows the addresses.
A file that cannot be read is dropped: the pod's processes tell the same, later.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ambient.errors import InvalidInput
from ambient.model.address import IpAddress, parse_ip


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`container` is the runtime's id of it, `netns` a path in the node's own file system."""

    container: str
    netns: str
    addresses: tuple[IpAddress, ...]


class Sandboxes:
    """By pod uid. `ended` are pods whose last sandbox the runtime has taken down; they have no address any more."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known: dict[str, Sandbox] = {}
        self.ended: set[str] = set()
        for path in directory.glob("*.json"):
            try:
                self._known[path.stem] = _decode(path.read_text())
            except (ValueError, KeyError, TypeError, InvalidInput):
                path.unlink()

    def get(self, uid: str) -> Sandbox | None:
        return self._known.get(uid)

    def addresses(self) -> Mapping[str, tuple[IpAddress, ...]]:
        return {uid: sandbox.addresses for uid, sandbox in self._known.items()}

    def put(self, uid: str, sandbox: Sandbox) -> None:
        text = json.dumps(
            {
                "container": sandbox.container,
                "netns": sandbox.netns,
                "addresses": [str(ip) for ip in sandbox.addresses],
            }
        )
        path = self._path(uid)
        new = path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, path)
        self._known[uid] = sandbox
        self.ended.discard(uid)

    def end(self, uid: str) -> None:
        self.drop(uid)
        self.ended.add(uid)

    def drop(self, uid: str) -> None:
        self._known.pop(uid, None)
        with contextlib.suppress(FileNotFoundError):
            self._path(uid).unlink()

    def keep_only(self, uids: set[str]) -> None:
        """Forget the pods that are not among these."""
        for uid in self._known.keys() - uids:
            self.drop(uid)
        self.ended &= uids

    def _path(self, uid: str) -> Path:
        if not uid or "/" in uid or uid.startswith("."):
            raise InvalidInput("a pod uid that is no file name", repr(uid))
        return self._directory / f"{uid}.json"


def _decode(text: str) -> Sandbox:
    raw = json.loads(text)
    return Sandbox(str(raw["container"]), str(raw["netns"]), tuple(parse_ip(ip) for ip in raw["addresses"]))
