"""Log lines in Istio's two forms, and a writer that never tears one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from ztunnel.telemetry.access_log import LogWriter, json_line, text_line
from ztunnel.telemetry.fields import bare

FIELDS: list[tuple[str, str | int]] = [
    ("src.addr", bare("10.244.1.5:55836")),
    ("src.workload", "client"),
    ("bytes_sent", 72),
    ("error", 'a "quoted"\nline'),
]


def test_the_text_form_is_istios() -> None:
    assert text_line(1_763_717_299.444183, "info", "access", "connection complete", FIELDS) == (
        "2025-11-21T09:28:19.444183Z\tinfo\taccess\tconnection complete\t"
        'src.addr=10.244.1.5:55836 src.workload="client" bytes_sent=72 error="a \\"quoted\\"\\nline"'
    )


def test_the_json_form_has_istios_keys() -> None:
    record = json.loads(json_line(0.5, "error", "access", "connection complete", FIELDS))
    assert list(record)[:4] == ["level", "time", "scope", "message"]
    assert record["time"] == "1970-01-01T00:00:00.500000Z"
    assert record["bytes_sent"] == 72


class Turns:
    """Runs what the writer schedules when the test says so."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def later(self, _: float, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def run(self) -> None:
        due, self.soon = self.soon, []
        for callback in due:
            callback()


def writer(fd: int, turns: Turns) -> LogWriter:
    return LogWriter(fd, soon=turns.soon.append, later=turns.later, clock=lambda: 0.0)


def test_lines_below_the_level_cost_nothing_and_the_level_can_change() -> None:
    read, write = os.pipe()
    turns = Turns()
    log = writer(write, turns)
    log.log("debug", "x", "hidden")
    assert not turns.soon
    log.set_level("debug,access=off")
    log.log("debug", "x", "shown")
    turns.run()
    assert b"shown" in os.read(read, 4096)
    log.log("error", "access", "not this one")
    assert not turns.soon
    log.set_level("warn,access=info")
    assert not log.enabled("info", "proxy::inbound")
    assert log.enabled("info", "access")
    log.set_level("nonsense")
    assert not log.enabled("info", "proxy::inbound")
    os.close(read)
    os.close(write)


def test_a_full_pipe_delays_lines_and_tears_none() -> None:
    read, write = os.pipe()
    turns = Turns()
    log = writer(write, turns)
    for number in range(2_000):
        log.log("info", "x", f"line {number} " + "y" * 80)
    received = b""
    while turns.soon:
        turns.run()
        received += os.read(read, 1 << 20)
    lines = received.split(b"\n")
    assert [int(line.split(b"line ")[1].split()[0]) for line in lines if line] == list(range(2_000))
    assert log.lost == 0
    os.close(read)
    os.close(write)


def test_a_reader_that_never_reads_costs_lines_and_not_memory() -> None:
    read, write = os.pipe()
    turns = Turns()
    log = writer(write, turns)
    for _ in range(20_000):
        log.log("info", "x", "y" * 200)
    turns.run()
    assert log.lost > 10_000
    os.close(read)
    turns.run()
    os.close(write)
