"""What travels between the nodes of a cluster: tcpdump on the bridge that joins them.

A datagram of our own to a discard port marks the end: when it is in the file, so is everything before it.
"""

from __future__ import annotations

import re
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import until

HBONE = 15008
DISCARD = 9
_LINE = re.compile(r"IP6? (\S+)\.(\d+) > (\S+)\.(\d+): ")
_DROPPED = re.compile(r"(\d+) packets? dropped by kernel")


@dataclass(frozen=True)
class Packet:
    source: str
    source_port: int
    destination: str
    destination_port: int

    @property
    def tunnelled(self) -> bool:
        return HBONE in (self.source_port, self.destination_port)


class Bridge:
    """`with Bridge(interface, network) as wire: ...`, then ask. TCP only; nothing may have been dropped."""

    def __init__(self, interface: str, network: str, marker: str) -> None:
        """`marker`: an address behind the bridge."""
        self._interface, self._marker = interface, marker
        self._filter = f"(tcp and net {network}) or udp dst port {DISCARD}"
        self._packets: list[Packet] = []
        self.raw = b""

    def __enter__(self) -> Self:
        self._file = tempfile.NamedTemporaryFile(prefix="amb-bridge-", suffix=".pcap")
        options = ["-Z", "root", "-i", self._interface, "--immediate-mode", "-U", "-s", "2000", "-B", "65536"]
        argv = ["tcpdump", *options, "-w", self._file.name]
        self._process = subprocess.Popen([*argv, self._filter], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "listening on" in line:
                return self
        raise AssertionError("tcpdump does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=30)
        dropped = _DROPPED.search(said)
        assert kind is not None or (dropped is not None and dropped[1] == "0"), said
        read = subprocess.run(["tcpdump", "-nn", "-r", self._file.name], capture_output=True, text=True, check=False)
        self._packets = [
            Packet(found[1], int(found[2]), found[3], int(found[4]))
            for found in map(_LINE.search, read.stdout.splitlines())
            if found is not None
        ]
        self.raw = Path(self._file.name).read_bytes()
        self._file.close()

    def _flush(self) -> None:
        word = secrets.token_hex(16).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(word, (self._marker, DISCARD))
        until(lambda: word in Path(self._file.name).read_bytes(), "for the capture")

    def between(self, pods: Iterable[str]) -> list[Packet]:
        """Packets from one of these addresses to another."""
        wanted = frozenset(pods)
        return [packet for packet in self._packets if {packet.source, packet.destination} <= wanted]

    def plain(self, pods: Iterable[str]) -> list[Packet]:
        """Those of them that are in no tunnel."""
        return [packet for packet in self.between(pods) if not packet.tunnelled]

    def tunnelled(self, pods: Iterable[str]) -> list[Packet]:
        return [packet for packet in self.between(pods) if packet.tunnelled]
