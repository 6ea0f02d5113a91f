"""Every access log line of a real ztunnel comes out of our own records as it was, letter by letter."""

from __future__ import annotations

import datetime
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ambient.model.address import parse_endpoint
from ambient.model.outcome import PeerLabels, ServiceLabels
from ztunnel.telemetry.access_log import LogWriter
from ztunnel.telemetry.record import Failure, Flag
from ztunnel.telemetry.recorder import Recorder

LINES = (Path(__file__).parents[2] / "golden" / "ztunnel-access-log.txt").read_text().splitlines()
FIELD = re.compile(r'([a-z_.]+)=("[^"]*"|\S+)')


@dataclass
class Meter:
    taken: int = 0
    given: int = 0


def fields_of(line: str) -> dict[str, str]:
    return {key: value.strip('"') for key, value in FIELD.findall(line.split("\t")[4])}


def written(theirs: str, log_format: str, *, reason: str = "") -> str:
    """The line of a connection that has everything `theirs` tells of it."""
    told = fields_of(theirs)
    ended = datetime.datetime.fromisoformat(theirs.split("\t")[0]).timestamp()
    read, write = os.pipe()
    log = LogWriter(write, soon=lambda flush: flush(), later=lambda *_: None, clock=lambda: ended)
    log.configure(log_format, "info")
    clock = iter([0.0, int(told["duration"].removesuffix("ms")) / 1000 + 0.0005])
    recorder = Recorder(log, clock=lambda: next(clock, 99.0), wall=lambda: ended)
    inbound = told["direction"] == "inbound"
    record = recorder.open("uid", parse_endpoint(told["src.addr"]), parse_endpoint(told["dst.addr"]), inbound=inbound)
    record.mutual_tls = "src.identity" in told
    record.source_identity, record.destination_identity = told.get("src.identity", ""), told.get("dst.identity", "")
    record.hbone_target = told.get("dst.hbone_addr", "")
    record.source_peer = PeerLabels(
        pod=told.get("src.workload", ""), namespace=told.get("src.namespace", ""), cluster=told.get("src.cluster", "")
    )
    record.destination_peer = PeerLabels(
        pod=told.get("dst.workload", ""), namespace=told.get("dst.namespace", ""), cluster=told.get("dst.cluster", "")
    )
    record.service = ServiceLabels(hostname=told.get("dst.service", ""))
    sent, received = int(told["bytes_sent"]), int(told["bytes_recv"])
    record.meter = Meter(taken=sent, given=received)
    clock = iter([int(told["duration"].removesuffix("ms")) / 1000 + 0.0005] * 3)
    recorder.close(record, Failure(Flag.DENY, told["error"], reason) if "error" in told else None)
    line = os.read(read, 65_536).decode().removesuffix("\n")
    os.close(read)
    os.close(write)
    return line


@pytest.mark.parametrize("theirs", LINES)
def test_the_same_connection_gives_the_same_line(theirs: str) -> None:
    assert written(theirs, "plain") == theirs


def test_the_golden_lines_are_of_every_kind() -> None:
    kinds = {(fields_of(line)["direction"], "src.identity" in line, "error=" in line) for line in LINES}
    assert kinds >= {
        ("inbound", True, False),
        ("outbound", True, False),
        ("inbound", False, True),
        ("outbound", True, True),
    }


def test_the_json_form_has_the_same_fields_in_the_same_order() -> None:
    row = json.loads(written(LINES[0], "json"))
    assert list(row) == ["level", "time", "scope", "message", *fields_of(LINES[0])]
    assert {key: str(value) for key, value in row.items()} == {
        "level": "info",
        "time": LINES[0].split("\t")[0],
        "scope": "access",
        "message": "connection complete",
        **fields_of(LINES[0]),
    }


def test_what_we_know_more_stands_behind_istios_fields() -> None:
    denied = next(line for line in LINES if "error=" in line)
    assert written(denied, "plain", reason="denied-by") == f'{denied} reason="denied-by"'
