"""A folder of Kubernetes objects that several processes share: the lab's stand-in for the Kubernetes API.

    objects/<Kind>.<namespace or _>.<name>.json    the objects; objects/.revision counts changes, written last
    status/<writer>/<same name>.json               what each writer adds to them; status/<writer>/.revision

Everything is written to a temporary file and renamed. Changes of objects hold objects/.lock exclusively, readers
hold it shared, so a snapshot never shows half of a change. A file that cannot be read is reported among
`Records.refused` while the last good version of the object stays.
"""

from __future__ import annotations

import asyncio
import json
import operator
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ambient.errors import InvalidInput, Unavailable
from ambient.kube.files import Signature, locked, read_json, replace_json, signatures
from ambient.kube.merge import merged
from ambient.kube.notify import DirectoryWatch
from ambient.kube.objects import Record, Records, RefusedObject, parse_object
from ambient.kube.status import StatusWriter, file_name, revision_state
from ambient.waking import woken

_Content = dict[str, Any] | InvalidInput
_BUSY_RETRY_S: Final = 0.005
_SETTLED_NS: Final = 20_000_000
"""A file younger than this may be replaced again without its signature changing; it is read anew next time."""


class ObjectFolder:
    """Reader and writer of one folder. Not for use from several threads.

    `keep(kind, content)`: whether an object concerns this reader; of the others only the file's signature is kept.
    """

    def __init__(self, path: Path | str, *, keep: Callable[[str, Mapping[str, Any]], bool] | None = None) -> None:
        self._root = Path(path)
        self._keep = keep
        self._foreign: dict[str, int] = {}
        self._objects = self._root / "objects"
        self._decoded: dict[Path, tuple[Signature, _Content]] = {}
        self._good: dict[str, tuple[tuple[_Content, ...], Record]] = {}

    # --- reading

    def records(self) -> Records:
        """The whole content, status merged in. Waits while another process is in the middle of a change."""
        return self._records(wait=True)

    async def run(self) -> None:
        """Nothing has to be done beside `changes` (as `ObjectSource` asks)."""

    def leading(self) -> bool:
        """There is one control plane for a folder."""
        return True

    def waiting(self) -> str:
        """A folder is read at once, or what is wrong with it is among what is refused."""
        return ""

    async def changes(self) -> AsyncIterator[Records]:
        """The content now, then again after every change (several quick changes may come as one)."""
        wake = asyncio.Event()
        watch = DirectoryWatch(asyncio.get_running_loop(), wake.set)
        seen: object = None
        try:
            while True:
                wake.clear()
                watch.cover(self._directories())
                stamp = self._stamp()
                pause = watch.interval_s
                if stamp != seen:
                    try:
                        records = self._records(wait=False)
                    except Unavailable:
                        pause = _BUSY_RETRY_S
                    else:
                        seen = stamp
                        yield records
                        continue
                await woken(wake, pause)
        finally:
            watch.close()

    def status(self, writer: str) -> StatusWriter:
        """The writer of this process; its name must be used by no other process."""
        return StatusWriter(self._root, writer)

    def _directories(self) -> list[Path]:
        return [self._objects, self._root / "status", *self._writers()]

    def _writers(self) -> list[Path]:
        try:
            return sorted(path for path in (self._root / "status").iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def _stamp(self) -> tuple[bytes, ...]:
        # Contents, not times: two changes within one tick of the clock must not look like one.
        stamps: list[bytes] = []
        for directory in (self._objects, *self._writers()):
            with suppress(OSError):
                stamps += (directory.name.encode(), (directory / ".revision").read_bytes())
        return tuple(stamps)

    def _revision(self) -> int:
        try:
            text = (self._objects / ".revision").read_text().strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isascii() and text.isdigit() else 0

    def _records(self, *, wait: bool) -> Records:
        if not self._objects.is_dir():
            return Records()
        with locked(self._objects / ".lock", exclusive=False, wait=wait):
            revision = self._revision()
            objects = signatures(self._objects)
            read = ((name, self._ours(name, sign)) for name, sign in sorted(objects.items()))
            decoded = {name: value for name, value in read if value is not None}
            said: dict[str, list[_Content]] = {}
            writers = {}
            for directory in self._writers():
                writers[directory.name] = revision_state(directory / ".revision")
                for name, sign in signatures(directory).items():
                    if name in decoded:
                        said.setdefault(name, []).append(self._decode(directory / name, sign))
        by_key: dict[str, Record] = {}
        refused: list[RefusedObject] = []
        for name, value in decoded.items():
            self._take(name, value, said.get(name, []), by_key, refused)
        self._good = {key: entry for key, entry in self._good.items() if key in by_key}
        self._decoded = {path: entry for path, entry in self._decoded.items() if path.name in decoded}
        self._foreign = {name: sign for name, sign in self._foreign.items() if name in objects}
        return Records(revision, MappingProxyType(by_key), tuple(refused), MappingProxyType(writers))

    def _ours(self, name: str, sign: Signature) -> _Content | None:
        """The content of an object's file, None when it does not concern us."""
        if self._keep is None:
            return self._decode(self._objects / name, sign)
        if self._foreign.get(name) == hash(sign):
            return None
        self._foreign.pop(name, None)
        value = self._decode(self._objects / name, sign)
        if isinstance(value, InvalidInput) or self._keep(name.partition(".")[0], value):
            return value
        if self._decoded.pop(self._objects / name, None) is not None:
            self._foreign[name] = hash(sign)
        return None

    def _decode(self, path: Path, sign: Signature) -> _Content:
        """The file's content or why it has none; the same object again while the file is the same."""
        known = self._decoded.get(path)
        if known is not None and known[0] == sign:
            return known[1]
        value: _Content
        try:
            value = read_json(path)
        except FileNotFoundError:
            value = InvalidInput(path.name, "", "gone while it was read")
        except InvalidInput as error:
            value = error
        if time.time_ns() - sign[0] > _SETTLED_NS:
            self._decoded[path] = (sign, value)
        return value

    def _take(
        self,
        name: str,
        value: _Content,
        said: list[_Content],
        by_key: dict[str, Record],
        refused: list[RefusedObject],
    ) -> None:
        """Turn one file (and what was said about it) into a record, or into a report that it is refused."""
        kind, _, rest = name.removesuffix(".json").partition(".")
        namespace, _, plain = rest.partition(".")
        key = f"{kind}/{namespace}/{plain}"
        contents = (value, *said)
        before = self._good.get(key)
        if before is not None and len(before[0]) == len(contents) and all(map(operator.is_, before[0], contents)):
            by_key[key] = before[1]
            return
        where = "" if namespace == "_" else namespace
        raw: Mapping[str, Any] = {}
        try:
            if isinstance(value, InvalidInput):
                raise value
            raw = value
            record = parse_object(merged(value, [status for status in said if isinstance(status, dict)]), name)
            if record.key != key:
                raise InvalidInput(name, "metadata", f"the file holds {record.key}")
        except InvalidInput as error:
            if before is not None:
                by_key[key] = before[1]
            refused.append(RefusedObject(kind, where, plain, error, raw, stands=before is not None))
            return
        broken = [status for status in said if isinstance(status, InvalidInput)]
        if not broken:
            self._good[key] = (contents, record)
        by_key[key] = record
        refused.extend(RefusedObject(kind, where, plain, error, raw, stands=True) for error in broken)

    # --- writing

    def put(self, records: Iterable[Record]) -> int:
        """Store these objects as one change and return the revision they are in.

        Keeps uid, creation time and status of what they replace unless they bring their own; counts the generation
        when spec changes. Nothing is written, and the revision stays, when nothing differs.
        """
        wanted = list(records)
        names = {record.key: file_name(record.key) for record in wanted}
        self._objects.mkdir(parents=True, exist_ok=True)
        with locked(self._objects / ".lock", exclusive=True):
            revision = self._revision()
            writes: list[tuple[Path, dict[str, Any]]] = []
            for record in wanted:
                path = self._objects / names[record.key]
                content = _stored(record, self._current(path))
                if content is not None:
                    writes.append((path, content))
            if not writes:
                return revision
            for path, content in writes:
                replace_json(path, content)
            return self._bump(revision)

    def stored(self, key: str) -> dict[str, Any] | None:
        """An object as it was put, without what status writers say: the base for changing it. None: not there.

        (`Record.raw` of `records()` has status merged in; putting that back would make what was said permanent.)
        """
        return self._current(self._objects / file_name(key)) or None

    def delete(self, keys: Iterable[Record | str]) -> int:
        """Remove these objects and all that was said about them as one change; return the revision without them.

        Keys that are not there are ignored.
        """
        names = [file_name(key if isinstance(key, str) else key.key) for key in keys]
        if not self._objects.is_dir():
            return 0
        with locked(self._objects / ".lock", exclusive=True):
            revision = self._revision()
            present = [name for name in names if (self._objects / name).exists()]
            for name in present:
                (self._objects / name).unlink()
                for directory in self._writers():
                    (directory / name).unlink(missing_ok=True)
            return self._bump(revision) if present else revision

    def _current(self, path: Path) -> dict[str, Any]:
        try:
            return read_json(path)
        except (FileNotFoundError, InvalidInput):
            return {}

    def _bump(self, revision: int) -> int:
        temporary = self._objects / ".revision.new"
        temporary.write_text(f"{revision + 1}\n")
        temporary.replace(self._objects / ".revision")
        return revision + 1


def _stored(record: Record, current: dict[str, Any]) -> dict[str, Any] | None:
    """What to write for a record, None when the file says it already."""
    content: dict[str, Any] = json.loads(json.dumps(dict(record.raw)))
    old = current.get("metadata", {})
    metadata = content["metadata"]
    if record.namespace:
        metadata["namespace"] = record.namespace
    metadata["uid"] = metadata.get("uid") or old.get("uid") or str(uuid.uuid4())
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    metadata["creationTimestamp"] = metadata.get("creationTimestamp") or old.get("creationTimestamp") or now
    if "status" not in content and "status" in current and metadata["uid"] == old.get("uid"):
        content["status"] = current["status"]
    generation = old.get("generation", 0)
    same_spec = bool(current) and current.get("spec") == content.get("spec")
    metadata["generation"] = generation if same_spec and generation else generation + 1
    return None if content == current else content
