"""Small atomic file operations that the object folder is made of. Blocking, short, synchronous."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ambient.errors import InvalidInput, Unavailable

Signature = tuple[int, int, int]
"""(modification time in ns, size, inode): changes whenever a file is replaced."""


def replace_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file so that a reader sees either the old content or the new one. Raises OSError."""
    temporary = path.with_name(f".tmp.{os.getpid()}.{path.name}"[:250])
    temporary.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InvalidInput when it is none; FileNotFoundError passes."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(str(path.name), "", f"not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(str(path.name), "", "not a JSON object")
    return value


def signature(entry: os.stat_result) -> Signature:
    return entry.st_mtime_ns, entry.st_size, entry.st_ino


def signatures(directory: Path) -> dict[str, Signature]:
    """Signatures of the *.json files of a directory by name, {} when it is not there."""
    found: dict[str, Signature] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    try:
                        found[entry.name] = signature(entry.stat())
                    except FileNotFoundError:
                        continue
    except FileNotFoundError:
        pass
    return found


@contextmanager
def locked(path: Path, *, exclusive: bool, wait: bool = True) -> Iterator[None]:
    """Hold the advisory lock on `path` (made if absent). Raises Unavailable when `wait` is false and it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            raise Unavailable("the object folder", str(path.parent), "another process is changing it") from None
        yield
    finally:
        os.close(descriptor)
