"""The director process: builds its parts, opens its ports, runs until told to stop, then drains the workers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Final

from ambient.errors import InvalidInput, MeshError
from ambient.xds.ca_client import CaClient
from ambient.xds.channel import root_changed
from ztunnel.admin import http
from ztunnel.admin.pages import Pages, Sources
from ztunnel.config import Config, read_config
from ztunnel.director.director import Director
from ztunnel.director.discovery import server_settings
from ztunnel.director.dumping import config_dump, connections
from ztunnel.director.handover import Heir
from ztunnel.director.logs import Logs
from ztunnel.director.notify import say_stopping
from ztunnel.director.tracing import Tracing, read_tracing
from ztunnel.inpod.agent import AgentLink

EXIT_CONFIG: Final = 78
PORT_RETRY_S: Final = 0.1
GATHER_S: Final = 0.5
"""How long a fresh director waits at most for living workers to report before it talks to the node agent."""
GATHER_LOOK_S: Final = 0.01
HEAD_START_S: Final = 1.0
"""How long at most a director that has all it needs from disk and custody serves pods and does nothing else."""
LATE: Final = "grpc.aio"
"""What is large to import and no pod waits for."""
LOOK_S: Final = 0.02
"""How often a ztunnel that is to take over looks whether it could."""
FLUSH_S: Final = 1.0
"""How long the last spans may take at shutdown."""
RANK_S: Final = 15.0
"""How often the busiest label sets are chosen anew, when there are too many: about once per scrape."""
SETTLE_S: Final = 0.2
"""How long handshakes that are under way at shutdown have to come to their end: a long round trip."""

_log = logging.getLogger("director")


class App:
    """One run of the director."""

    def __init__(
        self,
        config: Config,
        *,
        supervised: bool,
        heirs: int = 0,
        logs: Logs | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`heirs`: workers that outlived an earlier director."""
        self._heirs = heirs
        self._config = config
        self._supervised = supervised
        self._stop = asyncio.Event()
        self._logs = logs or Logs(config.log_format, config.log_level)
        self._ca = server_settings(
            config.ca_address,
            config.ca_root_ca,
            config.auth_token,
            config.alt_ca_hostname,
            config.cluster_id,
            config.ca_headers,
        )
        self.director = Director(config, CaClient(self._ca, config.secret_ttl_s).sign, tracing=tracing)
        self._link = AgentLink(config.inpod_uds, self.director)
        self._servers: list[http.Server] = []
        self._draining = False
        self._code = 0

    async def run(self) -> int:
        """Until SIGTERM, SIGINT or the supervisor's end; returns the exit code. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop.set)
        if self._supervised:
            self._watch_parent(loop)
        director = self.director
        heir = Heir(self._config.handover_socket)
        if heir.connect():
            _log.info("another ztunnel serves the pods of this node; it hands them over when we are ready")
        if director.custody is not None:
            director.certificates.offer(await director.custody.take_back())
        if director.revoked is not None:
            director.revoked.load()
        await heir.written()
        await director.discovery.restore()
        director.crew.listen()
        work = [self._control_plane(), self._pods(heir), self._rank()]
        work.append(self._watch_root())
        if director.custody is not None:
            work.append(director.custody.run())
        if director.revoked is not None:
            work.append(director.revoked.run())
        if director.exporter is not None:
            work.append(director.exporter.run())
        tasks = [asyncio.ensure_future(one) for one in (*work, *self._ports(self._pages()))]
        for task in tasks:
            task.add_done_callback(self._ended)
        await self._stop.wait()
        await self._shut_down(tasks)
        return self._code

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that fails ends the process: the supervisor starts it again, the workers go on meanwhile."""
        if not task.cancelled() and task.exception() is not None:
            _log.error("stopping", exc_info=task.exception())
            self._code = 1
            self._stop.set()

    async def _shut_down(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        if not self._code:
            await self._leave()
        self._draining = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_ports()
        if self.director.estate.taken is None:
            await self.director.discovery.save()
        if self.director.exporter is not None:
            await self.director.exporter.flush(FLUSH_S)
        self.director.close()

    async def _leave(self) -> None:
        """Go on until the next ztunnel serves, if there is one; then let what is open come to its end."""
        config, director = self._config, self.director
        say_stopping(os.getppid() if self._supervised else os.getpid())
        passed_on = await director.estate.passed_on(config.handover_s, max(config.handover_s, config.drain_s))
        self._draining = True
        self._link.retire()
        _log.info("draining, at most %.0f s; %d pods were handed over", config.drain_s, len(passed_on))
        if director.estate.beside:
            # Its pages are to be found where ours were.
            await self._close_ports()
        if director.pods.refuse_new(passed_on):
            await asyncio.sleep(SETTLE_S)
        director.drain(config.drain_s, passed_on)
        await director.reports.drained(config.drain_s + 0.5)

    async def _close_ports(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            await server.close()

    async def _take_over(self, heir: Heir) -> None:
        """Have the pods of the ztunnel that was here before, when we could serve them, and tell it when we do."""
        director = self.director
        await self._until(lambda: heir.gone.is_set() or self._prepared())
        await heir.ask()
        taken = director.inherit(heir)
        itself = asyncio.ensure_future(director.serve_itself())
        talking = asyncio.ensure_future(self._link.run())
        try:
            await self._until(lambda: heir.gone.is_set() or not self._pending())
            if taken:
                _log.info("took over %d pods", len(taken))
            heir.serving([uid for uid in taken if director.pods.up(uid)])
            director.estate.listen()
            await talking
        finally:
            itself.cancel()
            talking.cancel()
            heir.close()

    async def _until(self, done: Callable[[], bool]) -> None:
        while True:
            if done():
                return
            await asyncio.sleep(LOOK_S)

    async def _control_plane(self) -> None:
        """Discovery and certificates, for ever. What the pods can do with what disk and custody had comes first."""
        director = self.director
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_S):
                await self._until(lambda: self._asking or not self._pending())
        # Beside the loop: workers have questions meanwhile.
        await asyncio.to_thread(import_module, LATE)
        gc.collect()
        gc.freeze()
        async with asyncio.TaskGroup() as group:
            group.create_task(director.certificates.run())
            group.create_task(director.discovery.run())

    @property
    def _asking(self) -> bool:
        """There are pods that cannot be served without the control plane."""
        return not self.director.discovery.settled or self.director.certificates.lacking

    def _prepared(self) -> bool:
        return self.director.discovery.settled and len(list(self.director.crew)) >= self._config.workers

    async def _watch_root(self) -> None:
        """The mounted root is replaced when the mesh changes its root: the sooner everybody trusts both, the better."""
        while True:
            await root_changed(self._ca.root)
            _log.info("the root certificate was replaced: every certificate is renewed")
            self.director.certificates.renew_all()

    async def _pods(self, heir: Heir) -> None:
        # Workers that outlived an earlier director bring the pods' sockets; without them we would bind anew.
        for _ in range(round(GATHER_S / GATHER_LOOK_S) if self._heirs else 0):
            if self._gathered():
                break
            await asyncio.sleep(GATHER_LOOK_S)
        await self._take_over(heir)

    async def _rank(self) -> None:
        while True:
            await asyncio.sleep(RANK_S)
            self.director.tally.rank()

    def _gathered(self) -> bool:
        """Every worker has said hello, and the sockets of every pod they serve are here."""
        workers, pods = self.director.crew.everyone(), self.director.pods
        known = all(pods.get(uid) is not None for worker in workers for uid in worker.claims)
        return len(workers) >= self._config.workers and known

    def _watch_parent(self, loop: asyncio.AbstractEventLoop) -> None:
        """A director without its supervisor would be in the way of the next one: it ends."""
        fd = os.pidfd_open(os.getppid())
        loop.add_reader(fd, self._stop.set)

    def _pages(self) -> Pages:
        director = self.director
        return Pages(
            Sources(
                config_dump=partial(config_dump, director),
                connections=lambda: connections(director, time.time()),
                metrics=lambda exemplars: director.stats.snapshot(exemplars=exemplars),
                pending=self._pending,
                change_log_level=self._change_log_level,
                log_filter=lambda: str(self._logs.filter),
                shut_down=self._quit,
                flows=director.flows,
            )
        )

    def _ports(self, pages: Pages) -> list[Coroutine[Any, Any, None]]:
        config = self._config
        admin, stats, ready = http.Server(pages.admin), http.Server(pages.stats), http.Server(pages.readiness)
        self._servers += [admin, stats, ready]
        wildcard = "::" if config.ipv6 else "0.0.0.0"
        listen = [
            self._serve(admin, partial(http.listen, "127.0.0.1", config.admin_port)),
            self._serve(stats, partial(http.listen, wildcard, config.stats_port, dual=config.ipv6)),
            self._serve(ready, partial(http.listen, wildcard, config.ready_port, dual=config.ipv6)),
        ]
        if config.ipv6:
            listen.append(self._serve(admin, partial(http.listen, "::1", config.admin_port)))
        return listen

    async def _serve(self, server: http.Server, listen: Callable[[], Any]) -> None:
        """Open one port; while another process still has it (an upgrade), try again."""
        complained = False
        while True:
            try:
                await server.serve(listen())
                return
            except OSError as error:
                if not complained:
                    _log.warning("port not open yet: %s", error)
                complained = True
                await asyncio.sleep(PORT_RETRY_S)

    def _pending(self) -> list[str]:
        """Istio's names of what is not ready."""
        director = self.director
        tasks = {
            "state manager": not director.discovery.settled,
            "proxy": not list(director.crew),
            "workload proxy manager": not self._link.ready or bool(director.pods.pending()),
            "draining": self._draining,
        }
        return [name for name, waiting in tasks.items() if waiting]

    def _change_log_level(self, level: str, reset: bool) -> bool:
        if not self._logs.change(level, reset=reset):
            return False
        self.director.change_log_level(str(self._logs.filter))
        return True

    def _quit(self) -> None:
        if self._supervised:
            os.kill(os.getppid(), signal.SIGTERM)
        else:
            self._stop.set()


def main(argv: list[str]) -> int:
    """Entry point of the process; 78 for settings that cannot be used, so that nobody starts it again."""
    try:
        config = read_config(os.environ)
        tracing = read_tracing(os.environ, node=config.node, pod=config.pod_name)
    except InvalidInput as error:
        sys.stderr.write(f"ztunnel: {error}\n")
        return EXIT_CONFIG
    logs = Logs(config.log_format, config.log_level)
    logs.begin()
    try:
        with asyncio.Runner() as runner:
            return runner.run(_run(config, argv, logs, tracing))
    except MeshError as error:
        _log.error("%s", error)
        return 1


async def _run(config: Config, argv: list[str], logs: Logs, tracing: Tracing | None) -> int:
    heirs = [int(word.removeprefix("--heirs=")) for word in argv if word.startswith("--heirs=")]
    supervised = "--supervised" in argv
    return await App(config, supervised=supervised, heirs=max(heirs, default=0), logs=logs, tracing=tracing).run()
