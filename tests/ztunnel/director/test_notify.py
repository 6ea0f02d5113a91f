"""What the director tells whoever started ztunnel, read from a real socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ztunnel.director.notify import say_stopping


@pytest.mark.parametrize("abstract", [False, True])
def test_whoever_started_us_hears_which_process_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@ambient-test{tmp_path}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        say_stopping(17)
        assert sock.recv(100) == b"STOPPING=1\nMAINPID=17\n"


@pytest.mark.parametrize("name", ["", "relative", "/nobody/listens"])
def test_where_nobody_wants_to_know_nothing_happens(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    say_stopping(17)
