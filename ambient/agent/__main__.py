"""`python -m ambient.agent`: the node agent; `--uninstall` takes everything of it off the node instead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from ambient.agent.farewell import LAST_WORDS_S
from ambient.agent.leaving import OwnDaemonSet
from ambient.agent.server import only_one, serve
from ambient.agent.settings import AgentSettings
from ambient.agent.uninstall import uninstall
from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.log import log_lines
from ambient.netns import join_cgroup_namespace
from ambient.settings import read_settings


async def _until_signalled(settings: AgentSettings) -> bool:
    """Serve; then, whether the node is given up."""
    running = asyncio.ensure_future(serve(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    if not settings.daemonset:
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return False
    async with ApiClient.open(os.environ, timeout_s=LAST_WORDS_S) as client:
        own = OwnDaemonSet(client, settings.daemonset, settings.mesh_namespace)
        watching = asyncio.ensure_future(own.watch_over())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await running
            return await own.gone()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def main(arguments: Sequence[str]) -> int:
    """0: stopped or uninstalled; 1: could not start or went down; 2: wrong settings or arguments."""
    if list(arguments) not in ([], ["--uninstall"]):
        print("usage: python -m ambient.agent [--uninstall]", file=sys.stderr)
        return 2
    try:
        settings = read_settings(AgentSettings, os.environ)
    except MeshError as error:
        print(f"ambient agent: {error}", file=sys.stderr)
        return 2
    log_lines(settings.log_level)
    try:
        if settings.on_kubernetes:
            join_cgroup_namespace("/proc/1/ns/cgroup")
        if bool(arguments) or asyncio.run(_until_signalled(settings)):
            with only_one(settings.state):
                uninstall(settings)
            (settings.state / "lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                settings.state.rmdir()
    except MeshError as error:
        print(f"ambient agent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
