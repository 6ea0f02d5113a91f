"""The director as a process of its own: start, ports, drain, end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.fake_worker import FakeWorker
from tests.support.flow_records import packed
from tests.support.otlp_receiver import Receiver
from tests.support.waiting import eventually
from tests.ztunnel.director.test_spans import record
from ztunnel.director import app
from ztunnel.director.snapshot import SnapshotFile
from ztunnel.ipc.messages import Drain, Flows, LogLevel, Settings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Running:
    def __init__(self, folder: Path, **environment: str) -> None:
        self.ports = {name: free_port() for name in ("ADMIN", "STATS", "READY")}
        self.socket = folder / "run" / "director.sock"
        env = {
            **os.environ,
            "NODE_NAME": "n1",
            "AMBIENT_RUN_DIR": str(folder / "run"),
            "INPOD_UDS": str(folder / "zds.sock"),
            "XDS_ADDRESS": "https://127.0.0.1:1",
            "CONNECTION_TERMINATION_DEADLINE": "1s",
            **{f"AMBIENT_{name}_PORT": str(port) for name, port in self.ports.items()},
            **environment,
        }
        argv = [sys.executable, "-m", "ztunnel.director"]
        self.process = subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL)

    async def get(self, port: str, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str]:
        try:
            reader, writer = await asyncio.open_connection(host, self.ports[port])
        except OSError:
            return 0, ""
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split(" ")[1]), body

    async def answers(self, port: str, path: str, host: str = "127.0.0.1") -> None:
        """Ask until somebody is there."""
        async with asyncio.timeout(20):
            while (await self.get(port, path, host=host))[0] == 0:
                pass

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 20)


@asynccontextmanager
async def director(folder: Path, **environment: str) -> AsyncIterator[Running]:
    one = Running(folder, **environment)
    try:
        await eventually(one.socket.exists)
        for port, path in (("ADMIN", "/"), ("STATS", "/metrics"), ("READY", "/healthz/ready")):
            await one.answers(port, path)
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)


def test_it_is_not_ready_without_discovery_workers_and_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with director(tmp_path) as one:
            status, body = await one.get("READY", "/healthz/ready")
            assert (status, body) == (500, "not ready, pending: state manager, proxy, workload proxy manager\n")
            worker = FakeWorker(str(one.socket)).connect()
            await worker.hears(Settings)
            assert (await one.get("READY", "/healthz/ready"))[1] == (
                "not ready, pending: state manager, workload proxy manager\n"
            )
            worker.die()

    asyncio.run(scenario())


def test_the_admin_page_is_on_both_loopbacks_and_metrics_are_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with director(tmp_path, AMBIENT_CUSTODY_UDS=str(tmp_path / "custody.sock")) as one:
            assert (await one.get("ADMIN", "/config_dump"))[0] == 200
            await one.answers("ADMIN", "/config_dump", host="::1")
            metrics = (await one.get("STATS", "/stats/prometheus"))[1]
            assert "istio_build" in metrics
            assert "ambient_certificates_too_large_for_custody 0" in metrics

    asyncio.run(scenario())


def test_a_log_level_set_on_the_admin_page_reaches_the_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with director(tmp_path) as one:
            worker = FakeWorker(str(one.socket)).connect()
            await worker.hears(Settings)
            assert (await one.get("ADMIN", "/logging?level=debug", "POST"))[0] == 200
            assert (await worker.hears(LogLevel)).level == "debug"
            worker.die()

    asyncio.run(scenario())


def test_a_connection_becomes_a_span_at_the_receiver_and_the_last_ones_are_sent_at_the_end(tmp_path: Path) -> None:
    async def scenario(receiver: Receiver) -> None:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        async with director(tmp_path, **environment) as one:
            worker = FakeWorker(str(one.socket)).connect()
            await worker.hears(Settings)
            worker.say(Flows(packed=packed([record(), record("inbound")]), count=2))
            await eventually(lambda: len(receiver.spans) == 2)
            async with asyncio.timeout(10):
                while "ambient_spans_sent_total 2.0" not in (await one.get("STATS", "/metrics"))[1]:
                    pass  # the receiver has them before we hear that it has
            parent, child = receiver.spans
            assert child["parentSpanId"] == parent["spanId"]
            worker.say(Flows(packed=packed([record()]), count=1))
            one.process.send_signal(signal.SIGTERM)
            assert await one.ended() == 0
            assert len(receiver.spans) in (3, 4)  # what is under way at the end may arrive twice
            worker.die()

    with Receiver() as receiver:
        asyncio.run(scenario(receiver))


def test_tracing_settings_that_cannot_be_used_stop_the_start_for_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        one = Running(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317")
        assert await one.ended() == app.EXIT_CONFIG

    asyncio.run(scenario())


def test_at_sigterm_workers_drain_and_then_it_ends_with_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with director(tmp_path) as one:
            worker = FakeWorker(str(one.socket)).connect()
            await worker.hears(Settings)
            one.process.send_signal(signal.SIGTERM)
            assert (await worker.hears(Drain)).deadline_s == 1.0
            assert await one.ended() == 0
            worker.die()

    asyncio.run(scenario())


def test_quitting_by_the_admin_page_is_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with director(tmp_path) as one:
            assert (await one.get("ADMIN", "/quitquitquit", "POST")) == (200, "shutdown now\n")
            assert await one.ended() == 0

    asyncio.run(scenario())


def test_a_port_that_is_still_taken_is_opened_when_it_is_free(tmp_path: Path) -> None:
    async def scenario() -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        one = Running(tmp_path, AMBIENT_ADMIN_PORT=str(taken.getsockname()[1]))
        one.ports["ADMIN"] = taken.getsockname()[1]
        await eventually(one.socket.exists)
        taken.close()
        await one.answers("ADMIN", "/")
        one.process.kill()
        one.process.wait(10)

    asyncio.run(scenario())


def test_unusable_settings_end_it_with_the_code_that_nobody_restarts(tmp_path: Path) -> None:
    one = Running(tmp_path, SECRET_TTL="soon")
    assert one.process.wait(20) == app.EXIT_CONFIG


def test_a_director_whose_supervisor_died_ends(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, os\n"
        "child = subprocess.Popen([sys.executable, '-m', 'ztunnel.director', '--supervised'])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    env = {**os.environ, "AMBIENT_RUN_DIR": str(tmp_path / "run"), "XDS_ADDRESS": "https://127.0.0.1:1"}
    env |= {f"AMBIENT_{name}_PORT": str(free_port()) for name in ("ADMIN", "STATS", "READY")}
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    watch = os.pidfd_open(pid)

    async def scenario() -> None:
        await eventually((tmp_path / "run" / "director.sock").exists)
        parent.kill()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        async with asyncio.timeout(20):
            await ended.wait()

    asyncio.run(scenario())
    os.close(watch)
    parent.communicate()


def test_with_all_on_disk_and_no_agent_the_control_plane_is_still_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        SnapshotFile(str(tmp_path / "state"), "Kubernetes/n1").save((), {})
        with socket.create_server(("127.0.0.1", 0)) as control:
            control.setblocking(False)
            address = f"http://127.0.0.1:{control.getsockname()[1]}"
            environment = {"XDS_ADDRESS": address, "AMBIENT_STATE_DIR": str(tmp_path / "state")}
            async with director(tmp_path, **environment) as one:
                assert "state manager" not in (await one.get("READY", "/healthz/ready"))[1]
                async with asyncio.timeout(20):
                    peer, _ = await asyncio.get_running_loop().sock_accept(control)
                peer.close()

    asyncio.run(scenario())
