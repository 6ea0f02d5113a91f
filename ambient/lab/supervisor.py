"""Keeps a lab's components running: starts what is missing, restarts what ended, adopts what its predecessor left.

`python -m ambient.lab.supervisor --name LAB`. One per lab (a lock says so); the kubelets start a new one when it
dies. Never touches pods or networks.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

from ambient.errors import MeshError
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Records
from ambient.lab import cgroup, launch
from ambient.lab.components import Component, base_environment, components
from ambient.lab.names import Names, lab_name
from ambient.lab.notices import Notices
from ambient.lab.process import Process, adopt, saved_mark, start
from ambient.lab.settings import LabSettings, load

FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 2.0
STABLE_S: Final = 2.0
"""A component that lived longer had begun to serve: its end is the first again, not one of a row."""


def backoff_s(failures: int) -> float:
    """Seconds before the next start after this many short lives in a row; the first restart is at once."""
    if failures <= 1:
        return 0.0
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 2, 10))


async def keep(component: Component) -> None:
    """Run one component for ever. What it leaves behind in its cgroup ends before the next start, unless it said
    that it stops: then the next one starts beside it and takes over."""
    failures = 0
    mark = saved_mark(component.mark)
    process = adopt(mark) if mark else None
    leaving: set[asyncio.Task[None]] = set()
    notices = Notices(component.notices) if component.notices else None
    try:
        while True:
            began = time.monotonic()
            if process is None:
                try:
                    if not leaving:
                        await asyncio.to_thread(cgroup.kill, cgroup.path(component.group))
                    process = start(component.command(), component.env, component.log)
                    process.mark.save(component.mark)
                except (OSError, MeshError) as error:
                    say(f"{component.title}: cannot start: {error}")
            if process is not None and notices is not None and await _stops_before_it_ends(process, notices):
                say(f"{component.title}: {process.pid} stops, the next one starts")
                task = asyncio.ensure_future(_ended(component, process))
                leaving.add(task)
                task.add_done_callback(leaving.discard)
                process = None
                failures = 0
                continue
            if process is not None:
                await _ended(component, process)
                process = None
            failures = 1 if time.monotonic() - began > STABLE_S else failures + 1
            await asyncio.sleep(backoff_s(failures))
    finally:
        for task in leaving:
            task.cancel()
        if notices is not None:
            notices.close()


async def _ended(component: Component, process: Process) -> None:
    code = await process.wait()
    say(f"{component.title}: {process.pid} ended with {code}")


async def _stops_before_it_ends(process: Process, notices: Notices) -> bool:
    stopping = asyncio.ensure_future(notices.stopping(process.pid))
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
    said = stopping.done() and not ended.done()
    for task in (stopping, ended):
        task.cancel()
    await asyncio.gather(stopping, ended, return_exceptions=True)
    return said


class Supervisor:
    """Follows the nodes of the lab."""

    def __init__(self, settings: LabSettings) -> None:
        self._settings = settings
        self._tasks: dict[str, tuple[Component, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        async for records in ObjectFolder(self._settings.names.objects).changes():
            await self._follow(records)

    async def _follow(self, records: Records) -> None:
        try:
            wanted = {component.title: component for component in components(self._settings, records)}
        except MeshError as error:
            say(str(error))
            return
        for title in self._tasks.keys() - wanted.keys():
            component, task = self._tasks.pop(title)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(cgroup.remove, cgroup.path(component.group))
        for title, component in wanted.items():
            if title not in self._tasks:
                self._tasks[title] = component, asyncio.create_task(keep(component))


def _locked(settings: LabSettings) -> int | None:
    """The lock's descriptor, None when somebody has it or the lab is gone."""
    try:
        descriptor = os.open(settings.names.supervisor_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def ensure_supervisor(settings: LabSettings) -> None:
    """Start a supervisor unless one runs. Cheap; safe to call from several processes at once.

    Raises KernelError or OSError when it cannot be started.
    """
    descriptor = _locked(settings)
    if descriptor is None:
        return
    os.close(descriptor)
    names = settings.names
    argv = [sys.executable, "-m", "ambient.lab.supervisor", "--name", settings.lab]
    placed = launch.in_cgroup(cgroup.path(names.cgroup("supervisor")), launch.in_netns(names.net, argv))
    names.supervisor_log.parent.mkdir(parents=True, exist_ok=True)
    # A process in between, so that nobody has to reap the supervisor.
    background = 'log=$1; shift; "$@" >> "$log" 2>&1 < /dev/null &'
    subprocess.run(
        ["sh", "-c", background, "sh", str(names.supervisor_log), *placed],
        env=base_environment(),
        start_new_session=True,
        check=True,
        cwd="/",
    )


def say(text: str) -> None:
    """To the supervisor's log."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


async def _run(settings: LabSettings) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await Supervisor(settings).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ambient.lab.supervisor")
    parser.add_argument("--name", required=True)
    settings = load(Names(lab_name(parser.parse_args().name)))
    descriptor = _locked(settings)
    if descriptor is None:
        return
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
