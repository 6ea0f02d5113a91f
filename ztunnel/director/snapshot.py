"""Discovery on disk, so that a ztunnel that starts while the control plane is gone serves what was last known.

One file, replaced atomically, with a version, the node it is for and a checksum; no keys are ever in it. Whatever
is wrong with it, it is ignored as a whole: then discovery has to come from the control plane.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.xds.codec import Record, decode, encode, name_of

FORMAT: Final = 1
_MAGIC: Final = b"ambient discovery\n"
_DIGEST_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What discovery said, and the versions (type URL -> name -> version) to continue from."""

    records: tuple[Record, ...]
    versions: Mapping[str, Mapping[str, str]]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    format: int
    owner: str
    versions: dict[str, dict[str, str]]
    resources: list[tuple[str, str, bytes]]


def pack(snapshot: Snapshot, owner: str) -> bytes:
    """The content of a file for `owner` (cluster and node: nobody else may start from it)."""
    resources = [(r.type_url, r.name, r.body) for r in map(encode, snapshot.records)]
    versions = {url: dict(names) for url, names in snapshot.versions.items()}
    body = msgspec.msgpack.encode(_Body(FORMAT, owner, versions, resources))
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, owner: str) -> Snapshot:
    """Read `pack`'s bytes back. Raises InvalidInput for anything damaged, foreign, older or newer."""
    start = len(_MAGIC) + _DIGEST_SIZE
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        raise InvalidInput("discovery snapshot ignored", why="it is damaged or something else")
    try:
        body = msgspec.msgpack.decode(data[start:], type=_Body)
    except msgspec.MsgspecError as error:
        raise InvalidInput("discovery snapshot ignored", why=str(error)) from None
    if body.format != FORMAT or body.owner != owner:
        raise InvalidInput("discovery snapshot ignored", why=f"format {body.format} of {body.owner!r}")
    records = tuple(decode(url, name, content) for url, name, content in body.resources)
    known = {name for names in body.versions.values() for name in names}
    if known != {name_of(record) for record in records}:
        raise InvalidInput("discovery snapshot ignored", why="its versions and its resources do not agree")
    return Snapshot(records, body.versions)


class SnapshotFile:
    """`discovery.snapshot` in the state folder; "" as folder: nothing is kept."""

    def __init__(self, folder: str, owner: str) -> None:
        self._path = Path(folder) / "discovery.snapshot" if folder else None
        self._owner = owner

    def load(self) -> Snapshot | None:
        """The last snapshot, None when there is none. Raises InvalidInput (unusable) or Unavailable (unreadable)."""
        if self._path is None:
            return None
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable("discovery snapshot", str(self._path), error.strerror or str(error)) from None
        try:
            return unpack(data, self._owner)
        except MeshError as error:
            raise InvalidInput(error.what, str(self._path), error.why) from None

    def save(self, records: Iterable[Record], versions: Mapping[str, Mapping[str, str]]) -> None:
        """Replace the file. Raises Unavailable (disk full, no permission); the earlier file stays then."""
        if self._path is None:
            return
        data = pack(Snapshot(tuple(records), versions), self._owner)
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise Unavailable("discovery snapshot", str(self._path), error.strerror or str(error)) from None
