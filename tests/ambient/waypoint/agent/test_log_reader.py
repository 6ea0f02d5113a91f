"""Every line that Envoy writes is counted and goes on; a log that nobody takes holds nothing up."""

from __future__ import annotations

import json
import os
import re
import threading

from ambient.waypoint.agent.log_reader import LogReader
from ambient.waypoint.agent.traffic import Traffic


def through(data: bytes, *, patience_s: float = 60) -> tuple[bytes, str]:
    """What comes out for what Envoy writes, and the metrics then."""
    (source, envoy), (ours, sink) = os.pipe(), os.pipe()
    reader = LogReader(Traffic(), sink, patience_s)
    found: list[bytes] = []

    def collect() -> None:
        with open(ours, "rb") as stream:
            found.append(stream.read())

    thread = reader.start(source)
    collector = threading.Thread(target=collect)
    collector.start()
    with open(envoy, "wb") as stream:
        stream.write(data)
    thread.join()
    os.close(sink)
    collector.join()
    return found[0], reader.exposition().decode()


def value(page: str, name: str) -> int:
    (found,) = re.findall(rf"^{re.escape(name)} (\d+)$", page, re.MULTILINE)
    return int(found)


def http(status: int) -> bytes:
    return json.dumps({"log": "http", "status": status, "service": "web", "peer": None}).encode() + b"\n"


def test_lines_go_on_as_they_are_and_refusals_are_marked() -> None:
    out, page = through(http(200) + http(403))
    assert [json.loads(line).get("signal") for line in out.splitlines()] == [None, "denied"]
    assert value(page, 'ambient_waypoint_security_signals_total{signal="denied"}') == 1


def test_many_lines_come_out_whole_and_all_are_counted() -> None:
    out, page = through(http(200) * 20_000)
    assert out == http(200) * 20_000
    assert re.search(r'^istio_requests_total\{.*response_code="200".*\} 20000$', page, re.MULTILINE)


def test_what_is_no_line_of_ours_goes_on_and_is_counted() -> None:
    data = b"something else\n" + http(200) + b"x" * 100_000 + b"\n"
    out, page = through(data)
    assert out.replace(b"\n", b"") == data.replace(b"\n", b"")
    assert value(page, "ambient_waypoint_log_lines_unread_total") >= 2
    assert value(page, "ambient_waypoint_log_lines_dropped_total") == 0


def test_a_log_that_nobody_takes_is_dropped_by_lines_and_counted() -> None:
    (source, envoy), (ours, sink) = os.pipe(), os.pipe()
    reader = LogReader(Traffic(), sink, patience_s=0)
    thread = reader.start(source)
    with open(envoy, "wb") as stream:
        stream.write(http(200) * 20_000)
    thread.join()
    os.close(sink)
    with open(ours, "rb") as stream:
        kept = stream.read()
    page = reader.exposition().decode()
    assert kept == http(200) * (len(kept) // len(http(200)))
    dropped = value(page, "ambient_waypoint_log_lines_dropped_total")
    assert dropped > 0
    assert dropped + len(kept.splitlines()) == 20_000
    assert re.search(r'^istio_requests_total\{.*response_code="200".*\} 20000$', page, re.MULTILINE)


def test_a_log_that_cannot_be_written_is_counted_and_so_is_the_traffic() -> None:
    (source, envoy), (ours, sink) = os.pipe(), os.pipe()
    os.close(ours)
    reader = LogReader(Traffic(), sink, patience_s=0)
    thread = reader.start(source)
    with open(envoy, "wb") as stream:
        stream.write(http(200) * 50)
    thread.join()
    os.close(sink)
    page = reader.exposition().decode()
    assert value(page, "ambient_waypoint_log_lines_dropped_total") == 50
    assert re.search(r'^istio_requests_total\{.*response_code="200".*\} 50$', page, re.MULTILINE)


def test_the_last_line_counts_though_nothing_ends_it() -> None:
    out, page = through(http(200) + http(403).rstrip())
    assert len(out.splitlines()) == 2
    assert value(page, 'ambient_waypoint_security_signals_total{signal="denied"}') == 1
