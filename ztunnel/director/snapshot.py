"""Discovery on disk, so that a ztunnel that starts while the control plane is gone serves what was last known.

    "ambient discovery 2\n", then parts, each a 4-byte length (big end first) and so many bytes: first who it is for,
    then one per resource; a length of 0 and the digest of everything before end it.

One file, replaced atomically; no keys are ever in it. Whatever is wrong with it, it is ignored as a whole, by name:
then discovery has to come from the control plane. It is checked to its end before anything of it is used. Reading and
writing go in steps and never have more than a part of it in memory: a mesh may have a hundred thousand workloads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

import msgspec

from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.model.policy import Authorization
from ambient.xds.client import STAND_IN_VERSION, Versions
from ambient.xds.codec import TYPES, Record, decode, encode, name_of, type_of
from ambient.xds.steps import finish

FORMAT: Final = 2
STEP: Final = 25
"""Resources per step: about a millisecond."""
_NAME: Final = b"ambient discovery"
_LINE: Final = b"%s %d\n" % (_NAME, FORMAT)
_DIGEST_SIZE: Final = 32
_MOST_PART: Final = 64 << 20
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What discovery said, and the versions (type URL -> name -> version) to continue from."""

    records: tuple[Record, ...]
    versions: Mapping[str, Mapping[str, str]]


class _Part(msgspec.Struct, frozen=True, array_like=True):
    """One resource. `kind`: place of its type in TYPES; `version` as the control plane gave it."""

    kind: int
    version: str
    body: bytes


def write(file: IO[bytes], snapshot: Snapshot, owner: str) -> Generator[None, None, None]:
    """The content of a file for `owner` (cluster and node: nobody else may start from it), in steps."""
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)

    def put(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    put(_LINE)
    put(_framed(owner.encode()))
    for count, record in enumerate(snapshot.records, 1):
        url = type_of(record)
        version = snapshot.versions.get(url, {}).get(name_of(record))
        if version is None:
            raise InvalidInput("discovery snapshot not written", name_of(record), "has no version")
        put(_framed(msgspec.msgpack.encode(_Part(TYPES.index(url), version, encode(record).body))))
        if count % STEP == 0:
            yield
    put(bytes(4))
    file.write(digest.digest())


def read(file: IO[bytes], owner: str) -> Generator[None, None, Snapshot]:
    """Read `write`'s bytes back, in steps. Raises InvalidInput for anything damaged, foreign, older or newer."""
    line = file.readline(64)
    if line != _LINE:
        older = line.startswith(_NAME) and line.endswith(b"\n")
        other = line[len(_NAME) :].strip().decode(errors="replace") or "1"
        raise _ignored(f"format {other}, not {FORMAT}" if older else "it is something else")
    yield from _verify(file)
    file.seek(len(_LINE))
    parts = _parts(file)
    found = next(parts, b"").decode(errors="replace")
    if found != owner:
        raise _ignored(f"it is of {found!r}, not of {owner!r}")
    records: list[Record] = []
    versions = {url: Versions() for url in TYPES}
    for count, data in enumerate(parts, 1):
        try:
            part = msgspec.msgpack.decode(data, type=_Part)
            record = _read_back(TYPES[part.kind], part)
        except (msgspec.MsgspecError, IndexError) as error:
            raise _ignored(str(error)) from None
        known = versions[TYPES[part.kind]]
        if name_of(record) in known:
            raise _ignored(f"{name_of(record)} is in it twice")
        known.add(name_of(record), part.version)
        records.append(record)
        if count % STEP == 0:
            yield
    return Snapshot(tuple(records), versions)


def _read_back(url: str, part: _Part) -> Record:
    record = decode(url, "", part.body)
    if part.version == STAND_IN_VERSION and not isinstance(record, Authorization):
        # What it stands for is as much in doubt as before.
        return replace(record, refused="it was not understood when it came")
    return record


def _verify(file: IO[bytes]) -> Generator[None, None, None]:
    """Raises InvalidInput unless the whole file is what was written."""
    size = os.fstat(file.fileno()).st_size
    digest = hashlib.blake2b(_LINE, digest_size=_DIGEST_SIZE)
    left = size - len(_LINE) - _DIGEST_SIZE
    while left > 0:
        data = file.read(min(_CHUNK, left))
        if not data:
            break
        left -= len(data)
        digest.update(data)
        yield
    if left or file.read(_DIGEST_SIZE + 1) != digest.digest():
        raise _ignored("it is damaged")


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    while size := int.from_bytes(file.read(4), "big"):
        if size > _MOST_PART:
            raise _ignored("it is damaged")
        yield file.read(size)


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _ignored(why: str) -> InvalidInput:
    return InvalidInput("discovery snapshot ignored", why=why)


class SnapshotFile:
    """`discovery.snapshot` in the state folder; "" as folder: nothing is kept. `loading` and `writing` are steps.

    `writer` tells those apart that write at the same time: while one ztunnel hands over to the next there are two."""

    def __init__(self, folder: str, owner: str, writer: str = "") -> None:
        self._path = Path(folder) / "discovery.snapshot" if folder else None
        self._fresh = Path(folder) / f"discovery{writer}.new"
        self._owner = owner

    def load(self) -> Snapshot | None:
        """The last snapshot, None when there is none. Raises InvalidInput (unusable) or Unavailable (unreadable)."""
        return finish(self.loading())

    def loading(self) -> Generator[None, None, Snapshot | None]:
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                return (yield from read(file, self._owner))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable("discovery snapshot", str(self._path), error.strerror or str(error)) from None
        except MeshError as error:
            raise InvalidInput(error.what, str(self._path), error.why) from None

    def save(self, records: Iterable[Record], versions: Mapping[str, Mapping[str, str]]) -> None:
        """Replace the file. Raises Unavailable (disk full, no permission); the earlier file stays then."""
        finish(self.writing(records, versions))
        self.commit()

    def writing(
        self, records: Iterable[Record], versions: Mapping[str, Mapping[str, str]]
    ) -> Generator[None, None, None]:
        """Write beside the file; `commit` then puts it in its place."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=1 << 16) as file:
                yield from write(file, Snapshot(tuple(records), versions), self._owner)
        except OSError as error:
            raise self._given_up(error) from None

    def commit(self) -> None:
        """Wait for the disk (call it where that hurts nobody), then replace. Raises Unavailable."""
        if self._path is None:
            return
        try:
            fd = os.open(self._fresh, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(self._fresh, self._path)
        except OSError as error:
            raise self._given_up(error) from None

    def _given_up(self, error: OSError) -> Unavailable:
        with suppress(OSError):
            self._fresh.unlink(missing_ok=True)
        return Unavailable("discovery snapshot", str(self._path), error.strerror or str(error))
