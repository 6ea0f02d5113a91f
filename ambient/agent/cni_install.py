"""Keeps our CNI plugin installed on the node: the program in the runtime's directory, and its entry in the
configuration that the runtime uses, put back whenever somebody else writes that file; takes both away again.

The program comes first and goes last, so that no configuration ever names one that is not there. A file is replaced by
renaming, and what it was is kept beside it (a hard link: bytes, owner, mode and times), to be renamed back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.agent import cni_conf
from ambient.agent.cni_conf import BACKUP, PLUGIN, Chained, Entry
from ambient.errors import InvalidInput, KernelError, MeshError, Unavailable
from ambient.kube.notify import DirectoryWatch
from ambient.waking import woken

LOOK_S: Final = 1.0
_MINE: Final = ".ambient-cni-new"

log = logging.getLogger("ambient.agent.cni")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """`configuration` and `programs` are the runtime's directories (/etc/cni/net.d, /opt/cni/bin); `plugin` is the
    program to install."""

    configuration: Path
    programs: Path
    plugin: Path


class Installation:
    def __init__(self, places: Places, entry: Entry) -> None:
        self._places = places
        self._entry = entry
        self._installed: tuple[object, ...] = ()
        self._said = ""
        self.problem = "the CNI plugin is not installed yet"

    async def keep(self) -> None:
        """Install, and again whenever something changes, until cancelled. Nothing is undone then: a node that boots
        must find it in place."""
        wake = asyncio.Event()
        watch = DirectoryWatch(asyncio.get_running_loop(), wake.set)
        try:
            while True:
                self._try()
                watch.cover([self._places.configuration, self._places.programs])
                await woken(wake, LOOK_S)
                wake.clear()
        finally:
            watch.close()

    def _try(self) -> None:
        try:
            self.ensure()
            self.problem = ""
        except (MeshError, OSError) as error:
            self.problem = str(error)
        if self.problem != self._said:
            log.log(logging.WARNING if self.problem else logging.INFO, "CNI plugin: %s", self.problem or "in place")
            self._said = self.problem

    def ensure(self) -> None:
        """Program and entry are in place when this returns. Raises Unavailable when the node has no network
        configuration yet, InvalidInput when ours cannot be added to the one it has."""
        self._ensure_program()
        directory = self._places.configuration
        problems = []
        for name in cni_conf.candidates(os.listdir(directory) if directory.is_dir() else ()):
            try:
                content = (directory / name).read_bytes()
                chained = cni_conf.chain(name, content, self._entry)
            except FileNotFoundError:
                continue
            except (InvalidInput, OSError) as error:
                problems.append(str(error))
                continue
            if chained is not None:
                self._write(name, chained)
                self._note(name, content)
            return
        raise Unavailable("CNI configuration", str(directory), "; ".join(problems) or "there is none yet")

    def _note(self, name: str, before: bytes) -> None:
        value = cni_conf.read(name, before)
        log.info("CNI configuration %s: our plugin is behind %s", name, value["plugins"][-1]["type"])
        if cni_conf.multus(value):
            log.warning("CNI configuration %s is Multus': only the cluster's own network of a pod is captured", name)
        if cni_conf.cilium(value):
            log.warning("CNI configuration %s is Cilium's: it needs cni.exclusive=false", name)

    def _ensure_program(self) -> None:
        target = self._places.programs / PLUGIN
        with contextlib.suppress(OSError):
            if self._installed and self._installed == _identity(target):
                return
        content = self._places.plugin.read_bytes()
        with contextlib.suppress(OSError):
            if target.read_bytes() == content and os.stat(target).st_mode & 0o777 == 0o755:
                self._installed = _identity(target)
                return
        if not self._places.programs.is_dir():
            raise Unavailable("CNI plugins", str(self._places.programs), "there is no such directory")
        _replace(target, content, 0o755, None)
        self._installed = _identity(target)

    def _write(self, name: str, chained: Chained) -> None:
        directory = self._places.configuration
        original = directory / name
        for path in {original, directory / chained.name}:
            kept = path.with_name(path.name + BACKUP)
            if path.exists() and not (cni_conf.has_ours(path.read_bytes()) and (kept.exists() or path != original)):
                _link(path, kept)
        _replace(directory / chained.name, chained.content, 0o600, os.stat(original))
        if chained.replaces:
            original.unlink()
            _sync(directory)

    def remove(self) -> None:
        """Everything off the node again; what cannot be is in the error raised (KernelError). Others' changes to a
        configuration since we were added stay."""
        failures = []
        directory = self._places.configuration
        names = sorted(os.listdir(directory)) if directory.is_dir() else []
        for name in cni_conf.candidates(names):
            try:
                self._remove_from(directory / name, names)
            except OSError as error:
                failures.append(f"{directory / name}: {error}")
        if not failures:
            for name in names:
                if name.endswith((BACKUP, _MINE)):
                    (directory / name).unlink(missing_ok=True)
            for path in (self._places.programs / PLUGIN, self._places.programs / (PLUGIN + _MINE)):
                path.unlink(missing_ok=True)
        if failures:
            raise KernelError("cannot take the CNI plugin off", "", "; ".join(failures))

    def _remove_from(self, path: Path, names: list[str]) -> None:
        content = path.read_bytes()
        if not cni_conf.has_ours(content):
            return
        stem = path.name.rpartition(".")[0]
        for kept in (path.name, f"{stem}.conf", f"{stem}.json"):
            backup = path.with_name(kept + BACKUP)
            if backup.name in names and cni_conf.same(kept, backup.read_bytes(), content):
                os.replace(backup, path.with_name(kept))
                if kept != path.name:
                    _put_back_or_drop(path)
                _sync(path.parent)
                return
        _replace(path, cni_conf.unchain(content), 0o600, os.stat(path))


def _put_back_or_drop(path: Path) -> None:
    """A list that we made of a single plugin's file; another list of that name may have been in its place."""
    backup = path.with_name(path.name + BACKUP)
    if backup.exists():
        os.replace(backup, path)
    else:
        path.unlink()


def _identity(path: Path) -> tuple[object, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size, found.st_mode


def _link(path: Path, backup: Path) -> None:
    """`backup` becomes another name of the file (or symbolic link) that `path` is."""
    new = backup.with_name(backup.name + _MINE)
    new.unlink(missing_ok=True)
    os.link(path, new, follow_symlinks=False)
    os.replace(new, backup)


def _replace(path: Path, content: bytes, mode: int, like: os.stat_result | None) -> None:
    """Write whole and rename: a reader finds the old file or the new one. Owner and mode as `like` has them."""
    new = path.with_name(path.name + _MINE)
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        if like is not None:
            os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, mode if like is None else like.st_mode & 0o7777)
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.replace(new, path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
