"""The agent's own memory of what it put on the node: one JSON file per pod, written before the deed it announces.

A restarted agent reads it, the pins and the kernel, and brings every pod fully in or fully out. May not touch the
kernel; a file that cannot be read is reported and set aside, never guessed at.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from ambient.agent.enrol import Capture, PodTarget
from ambient.errors import InvalidInput
from ambient.model.address import parse_ip


class Step(IntEnum):
    """The steps of an enrolment in their order. A journal entry names the furthest one that was begun."""

    OLDER = 1
    """Connections that are open already are written down."""
    ROWS = 2
    """Rows that let everything pass: an attached pod without a row would be refused."""
    ROUTES = 3
    """Rule, table and sysctl inside the pod that deliver looped packets."""
    ATTACH = 4
    """The programs inside the pod."""
    HOST = 5
    """The programs at the node's end of the pod's veth: probes told apart, nothing slips past."""
    ZDS = 6
    """ztunnel has its listeners up inside the pod."""
    ROW = 7
    """Capture is on."""
    ANNOTATE = 8
    """Everybody may know."""


@dataclass(frozen=True, slots=True)
class OlderConnection:
    """A connection that was open before the pod was enrolled; endpoints as text, `cookie` names it to the kernel."""

    cookie: int
    local: str
    remote: str
    inbound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is (or may be) on the node for one pod.

    `netns` is the cookie of the pod's network namespace (never reused while the kernel runs) and `boot` the kernel's
    boot id: an entry of another boot describes nothing. `undo` is what `ambient.datapath.pod_net` needs to put the
    pod's network back (None: not touched). `since_unix`: when capture went on, 0.0 before.
    """

    pod: PodTarget
    boot: str
    netns: int
    step: Step
    epoch: int
    undo: Mapping[str, Any] | None = None
    host_ifindex: int = 0
    releasing: bool = False
    since_unix: float = 0.0
    older: tuple[OlderConnection, ...] = ()


def encode(entry: Entry) -> str:
    raw: dict[str, Any] = asdict(entry)
    raw["pod"]["addresses"] = [str(ip) for ip in entry.pod.addresses]
    if not entry.pod.capture.direct:
        del raw["pod"]["capture"]["direct"]  # an agent that does not know it reads the rest
    raw["version"] = 1
    return json.dumps(raw, sort_keys=True)


def decode(text: str, where: str) -> Entry:
    """Read one file; raises InvalidInput naming the file."""
    try:
        raw: Mapping[str, Any] = json.loads(text)
        if raw["version"] != 1:
            raise ValueError(f"version {raw['version']!r} is not ours")
        pod = dict(raw["pod"])
        fields = {key: value for key, value in raw.items() if key not in ("version", "pod", "older", "step")}
        return Entry(
            pod=PodTarget(
                **{
                    **pod,
                    "addresses": tuple(parse_ip(ip) for ip in pod["addresses"]),
                    "capture": Capture(**pod["capture"]),
                }
            ),
            step=Step(raw["step"]),
            older=tuple(OlderConnection(**connection) for connection in raw["older"]),
            **fields,
        )
    except InvalidInput:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput("unreadable journal entry", where, f"{type(error).__name__}: {error}") from None


class Journal:
    """The entries in a directory; every change is on disk (as far as the running kernel goes) when a call returns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._entries: dict[str, Entry] = {}
        self.unreadable: dict[str, InvalidInput] = {}
        self._load()

    def _load(self) -> None:
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = decode(path.read_text(), str(path))
            except InvalidInput as error:
                self.unreadable[path.stem] = error
                path.rename(path.with_suffix(".unreadable"))
                continue
            self._entries[entry.pod.uid] = entry
        for path in self._directory.glob("*.new"):
            path.unlink()

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, uid: str) -> Entry | None:
        return self._entries.get(uid)

    def put(self, entry: Entry) -> Entry:
        path = self._path(entry.pod.uid)
        temporary = path.with_suffix(".new")
        temporary.write_text(encode(entry))
        os.replace(temporary, path)
        self._entries[entry.pod.uid] = entry
        return entry

    def change(self, uid: str, **fields: Any) -> Entry:
        """Write an entry with some fields replaced; KeyError when there is none."""
        return self.put(replace(self._entries[uid], **fields))

    def drop(self, uid: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(uid).unlink()
        self._entries.pop(uid, None)

    def next_epoch(self) -> int:
        """A row epoch that no entry has (0 is never given)."""
        return max((entry.epoch for entry in self._entries.values()), default=0) % 0x7FFFFFFF + 1

    def _path(self, uid: str) -> Path:
        if not uid or "/" in uid or uid.startswith("."):
            raise InvalidInput("a pod uid that is no file name", repr(uid))
        return self._directory / f"{uid}.json"
