from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.join.health import NO_COMMANDS, UNPROBED, Health, read_probe
from ambient.model.address import parse_ip
from tests.support.waiting import eventually

LOOPBACK = parse_ip("127.0.0.1")


def test_without_a_probe_a_workload_counts_as_well() -> None:
    health = Health({}, LOOPBACK, lambda: None)
    asyncio.run(health.run())
    assert health.why == ""


def test_it_is_not_well_before_it_was_probed_and_follows_its_server() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        news: list[str] = []
        raw = {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1}
        health = Health(raw, LOOPBACK, lambda: news.append(health.why))
        assert health.why == UNPROBED
        task = asyncio.create_task(health.run())
        await eventually(lambda: health.why == "")
        server.close()
        await server.wait_closed()
        await eventually(lambda: health.why != "")
        task.cancel()
        assert news[0] == ""
        assert "refused" in news[1].lower() or "connect" in news[1].lower()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["true"], ""),
        (["false"], "false: exit code 1"),
        (["sleep", "60"], "sleep: did not end within 1 s"),
        (["/no/such/program"], "/no/such/program: No such file or directory"),
    ],
)
def test_a_command_is_a_probe_too(command: list[str], why: str) -> None:
    async def run() -> None:
        changed = asyncio.Event()
        health = Health({"exec": {"command": command}, "failureThreshold": 1}, LOOPBACK, changed.set, commands=True)
        health.why = "as yet unknown"
        task = asyncio.create_task(health.run())
        await asyncio.wait_for(changed.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert health.why == (why or "")

    asyncio.run(run())


def test_a_command_is_not_run_where_nobody_allowed_it_and_the_workload_says_so(tmp_path: Path) -> None:
    """Whoever may change the group would otherwise run anything as root on every machine that joined by it."""
    trace = tmp_path / "ran"

    async def run(**allowed: bool) -> str:
        changed = asyncio.Event()
        raw = {"exec": {"command": ["touch", str(trace)]}, "failureThreshold": 1}
        health = Health(raw, LOOPBACK, changed.set, **allowed)
        task = asyncio.create_task(health.run())
        await asyncio.wait_for(changed.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return health.why

    assert asyncio.run(run()) == NO_COMMANDS
    assert not trace.exists()
    assert asyncio.run(run(commands=True)) == ""
    assert trace.exists()


@pytest.mark.parametrize("raw", [{"exec": {}}, {"exec": {"command": []}}, {"exec": {"command": [1]}}, {"httpGet": {}}])
def test_a_broken_probe_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read_probe(raw)
