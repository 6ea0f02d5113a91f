"""What one process says about objects it does not own: annotations, conditions and status fields, in its own folder.

One writer name belongs to one process. Each file carries the uid of the object it speaks about, so that what was
said about a deleted pod never sticks to a new one of the same name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ambient.errors import InvalidInput
from ambient.kube.files import read_json, replace_json
from ambient.kube.networking import TypedAddress
from ambient.kube.records import Condition, Record, WriterState
from ambient.kube.status_values import (
    AncestorStatus,
    ListenerStatus,
    ParentStatus,
    addresses_written,
    ancestors_written,
    listeners_written,
    parents_written,
)


def file_name(key: str) -> str:
    """ "Kind/namespace/name" as a file name. Raises InvalidInput for something that is no key."""
    parts = key.split("/")
    if len(parts) != 3 or not all(parts) or any(part.startswith(".") for part in parts):
        raise InvalidInput("not an object key", repr(key), "expected Kind/namespace/name")
    name = ".".join(parts) + ".json"
    if len(name) > 240:
        raise InvalidInput("the object's name is too long to be stored", key, f"{len(name)} characters")
    return name


def revision_state(path: Path) -> WriterState:
    """The content of a writer's .revision file; zeros when it is absent or broken."""
    try:
        state = read_json(path)
    except (FileNotFoundError, InvalidInput):
        return WriterState(0, 0)
    observed, status = state.get("observed", 0), state.get("status", 0)
    return WriterState(observed if isinstance(observed, int) else 0, status if isinstance(status, int) else 0)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class StatusWriter:
    """Writes below `<root>/status/<writer>/`. Every method is a no-op when it would change nothing."""

    def __init__(self, root: Path, writer: str) -> None:
        self._objects = root / "objects"
        self._directory = root / "status" / writer
        self._directory.mkdir(parents=True, exist_ok=True)
        self._state = revision_state(self._directory / ".revision")

    def annotate(self, target: Record | str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations on an object (a record or its key); None takes one away."""
        content = self._read(target)
        current = dict(content.get("annotations", {}))
        for name, value in annotations.items():
            if value is None:
                current.pop(name, None)
            else:
                current[name] = value
        self._write(target, {**content, "annotations": current})

    def conditions(self, target: Record | str, conditions: Iterable[Condition]) -> None:
        """Replace all conditions this writer gives the object. The time of transition is kept while status stays."""
        content = self._read(target)
        known = {entry["type"]: entry for entry in content.get("conditions", [])}
        now = _now()
        entries = []
        for condition in conditions:
            before = known.get(condition.type, {})
            same = before.get("status") == condition.status
            entries.append(
                {
                    "type": condition.type,
                    "status": condition.status,
                    "reason": condition.reason,
                    "message": condition.message,
                    "lastTransitionTime": before["lastTransitionTime"] if same else now,
                }
            )
        self._write(target, {**content, "conditions": entries})

    def set(self, target: Record | str, **fields: Any) -> None:
        """Set status fields (phase, ready, podIPs, ...); None takes one away."""
        content = {**self._read(target), **fields}
        self._write(target, {name: value for name, value in content.items() if value is not None})

    def addresses(self, target: Record, addresses: Sequence[tuple[str, str]]) -> None:
        """status.addresses of a ServiceEntry, as (host, address)."""
        self.set(target, addresses=[{"host": host, "value": address} for host, address in addresses])

    def gateway_addresses(self, target: Record, addresses: Sequence[TypedAddress]) -> None:
        """status.addresses of a Gateway."""
        self.set(target, addresses=addresses_written(addresses))

    def gateway_listeners(self, target: Record, listeners: Sequence[ListenerStatus]) -> None:
        """status.listeners of a Gateway."""
        before = self._read(target).get("listeners", [])
        self.set(target, listeners=listeners_written(listeners, before, target.generation, _now()))

    def route_parents(self, target: Record, parents: Sequence[ParentStatus]) -> None:
        """status.parents of a route, as far as they are gateways."""
        before = self._read(target).get("parents", [])
        self.set(target, parents=parents_written(parents, before, target.generation, _now()))

    def policy_ancestors(self, target: Record, ancestors: Sequence[AncestorStatus]) -> None:
        """status.ancestors of a policy, as far as they are Gateways of ours."""
        before = self._read(target).get("ancestors", [])
        self.set(target, ancestors=ancestors_written(ancestors, before, target.generation, _now()))

    def forget(self, target: Record | str) -> None:
        """Take back everything said about the object."""
        path = self._path(target)
        if path.exists():
            path.unlink(missing_ok=True)
            self._bump()

    def observed(self, revision: int) -> None:
        """Say that everything up to this objects revision has been acted upon."""
        if revision != self._state.observed:
            self._state = WriterState(revision, self._state.status)
            self._save_state()

    def _path(self, target: Record | str) -> Path:
        return self._directory / file_name(target if isinstance(target, str) else target.key)

    def _uid(self, target: Record | str) -> str:
        if isinstance(target, Record):
            return target.uid
        try:
            metadata = read_json(self._objects / file_name(target)).get("metadata", {})
        except (FileNotFoundError, InvalidInput):
            return ""
        return str(metadata.get("uid", "")) if isinstance(metadata, dict) else ""

    def _read(self, target: Record | str) -> dict[str, Any]:
        """What was said so far, unless it was about another object of the same name."""
        uid = self._uid(target)
        try:
            content = read_json(self._path(target))
        except (FileNotFoundError, InvalidInput):
            return {"uid": uid}
        return content if content.get("uid") == uid else {"uid": uid}

    def _write(self, target: Record | str, content: Mapping[str, Any]) -> None:
        path = self._path(target)
        try:
            if read_json(path) == content:
                return
        except (FileNotFoundError, InvalidInput):
            if all(name == "uid" or value in ({}, []) for name, value in content.items()):
                return
        replace_json(path, content)
        self._bump()

    def _bump(self) -> None:
        self._state = WriterState(self._state.observed, self._state.status + 1)
        self._save_state()

    def _save_state(self) -> None:
        replace_json(self._directory / ".revision", {"observed": self._state.observed, "status": self._state.status})
