"""`python -m ambient.waypoint.agent`: one waypoint, Envoy and what it needs, until it is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from ambient.errors import MeshError, Unavailable
from ambient.http import HttpServer, Page
from ambient.log import log_lines
from ambient.model.address import Endpoint
from ambient.model.forbidden import forbidden
from ambient.settings import read_settings
from ambient.waypoint.agent.envoy import Envoy
from ambient.waypoint.agent.identity import OwnIdentity
from ambient.waypoint.agent.log_reader import LogReader
from ambient.waypoint.agent.names import RESOLV_CONF, Names, nameservers
from ambient.waypoint.agent.server import AgentServer
from ambient.waypoint.agent.settings import WaypointSettings
from ambient.waypoint.agent.traffic import Traffic
from ambient.waypoint.bootstrap import ASKED_NAMES_PORT, METRICS_PATH, METRICS_PORT, NAMES_PORT, bootstrap
from ambient.xds.ca_client import CaClient
from ambient.xds.channel import root_changed

LAST_WORDS_S: Final = 2.0
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"


async def serve(settings: WaypointSettings, folder: Path) -> None:
    """Run a waypoint; `folder` is ours alone. Raises Unavailable when Envoy ends by itself."""
    identity = OwnIdentity(settings.identity, CaClient(settings.control, int(settings.certificate_s)).sign)
    server, socket = AgentServer(settings.control, identity), folder / "agent.sock"
    envoy = Envoy(settings.envoy, folder, threads=settings.threads, drain_s=settings.drain_s)

    async def watch_root() -> None:
        while True:
            await root_changed(settings.root)
            identity.renew()

    lines = LogReader(Traffic())
    reader: threading.Thread | None = None

    async def metrics() -> Page:
        """Ours, and Envoy's own behind them; ours alone while Envoy does not answer."""
        try:
            theirs = await envoy.ask("GET", f"{METRICS_PATH}?usedonly")
        except Unavailable:
            theirs = ""
        names = "".join(("# TYPE ambient_waypoint_names_total counter\n", *written.render(), *asked.render()))
        return Page(lines.exposition() + names.encode() + theirs.encode(), EXPOSITION)

    servers = settings.nameservers or nameservers(RESOLV_CONF.read_text() if RESOLV_CONF.exists() else "")
    written, asked = Names("written", forbidden, servers), Names("asked", settings.reach.refusal, servers)
    pages = HttpServer({METRICS_PATH: metrics, "/metrics": metrics})
    await server.start(socket)
    made = bootstrap(
        settings.identification,
        agent_socket=str(socket),
        admin_socket=str(envoy.admin_socket),
        most=settings.bearable,
    )
    try:
        await written.start(NAMES_PORT)
        await asked.start(ASKED_NAMES_PORT)
        await pages.start(Endpoint(ip_address("::"), METRICS_PORT))
        source, sink = os.pipe()
        try:
            await envoy.start(made, sink)
        finally:
            os.close(sink)
        reader = lines.start(source)
        async with asyncio.TaskGroup() as group:
            group.create_task(identity.run())
            group.create_task(watch_root())
            group.create_task(_outlive(envoy))
    finally:
        await envoy.stop()
        if reader is not None:
            # What Envoy said last is logged, too.
            await asyncio.to_thread(reader.join, LAST_WORDS_S)
        await pages.stop()
        await server.stop()
        await written.stop()
        await asked.stop()


async def _outlive(envoy: Envoy) -> None:
    code = await envoy.wait()
    raise Unavailable("Envoy ended", why=f"exit code {code}")


async def _until_signalled(settings: WaypointSettings) -> None:
    running = asyncio.ensure_future(_serve_in_folder(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


async def _serve_in_folder(settings: WaypointSettings) -> None:
    with tempfile.TemporaryDirectory(prefix="waypoint-") as folder:
        await serve(settings, Path(folder))


def main() -> int:
    """0: told to end; 1: could not start or went down; 2: wrong settings."""
    try:
        settings = read_settings(WaypointSettings, os.environ)
    except MeshError as error:
        print(f"waypoint: {error}", file=sys.stderr)
        return 2
    log_lines(settings.log_level)
    try:
        asyncio.run(_until_signalled(settings))
    except MeshError as error:
        print(f"waypoint: {error}", file=sys.stderr)
        return 1
    except BaseExceptionGroup as group:
        print(f"waypoint: {'; '.join(str(one) for one in group.exceptions)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
