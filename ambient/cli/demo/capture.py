"""What went over a node's wire: tcpdump on every interface of a node, and questions to its file.

TCP payloads are put together per direction by sequence number before they are searched, so that text cut in two by a
segment is found as well; packets themselves are searched too.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from ambient.cli.demo.stage import Broken, until
from ambient.lab.names import NETNS_DIR, Names
from ambient.netns import entered

_COOKED2: Final = 276
_ETHERNET: Final = 1
_DISCARD: Final = 9
_DROPPED: Final = re.compile(rb"(\d+) packets? dropped by (kernel|interface)")
_TLS_RECORDS: Final = frozenset({20, 21, 22, 23})


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP packet: "ip" texts and ports, its sequence number and payload."""

    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    sequence: int
    payload: bytes


class Capture:
    """`with Capture(lab, node) as capture: ...`, then ask it. Raises Broken when tcpdump does not start."""

    def __init__(self, lab: str, node: str) -> None:
        self._netns = NETNS_DIR / Names(lab).node(node)
        self._process: subprocess.Popen[bytes] | None = None
        self._raw = b""

    def __enter__(self) -> Capture:
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(prefix="ambient-demo-", suffix=".pcap")
        # -Z: tcpdump would become a user who may not write our file. In immediate mode every packet takes a slot of
        # the full length in the buffer: -s and -B make it a thousand.
        options = ["-Z", "root", "-i", "any", "--immediate-mode", "-U", "-s", "65600", "-B", "65536"]
        wanted = ["-w", self._file.name, "tcp or udp dst port 9"]
        argv = ["nsenter", f"--net={self._netns}", "tcpdump", *options, *wanted]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        said = b""
        for line in self._process.stderr:
            said += line
            if b"listening on" in line:
                return self
        raise Broken("tcpdump does not start", self._netns.name, said.decode(errors="replace").strip())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        try:
            if kind is None:
                self._flush()
        finally:
            self._process.terminate()
            _, said = self._process.communicate(timeout=10)
            self._raw = Path(self._file.name).read_bytes()
            self._file.close()
        if kind is None and (lost := _DROPPED.search(said)) and int(lost[1]):
            raise Broken("the capture has holes", self._netns.name, lost[0].decode())

    def _flush(self) -> None:
        """Send datagrams of our own through the node until one is in the file: then so is all that came before it."""
        sentinel = secrets.token_bytes(24)
        fd = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with entered(fd):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            os.close(fd)

        def arrived() -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(sentinel, ("127.0.0.1", _DISCARD))
            return sentinel in Path(self._file.name).read_bytes()

        with sender:
            until(f"tcpdump sees what passes {self._netns.name}", arrived)

    def segments(self) -> Iterator[Segment]:
        yield from segments(self._raw)

    def shows(self, marker: bytes) -> bool:
        """Whether the marker went by in clear, in one packet or across several."""
        return marker in self._raw or any(marker in stream for stream in streams(self.segments()).values())

    def tls_on(self, port: int, address: str = "") -> bool:
        """Whether there was traffic to the port (of that address), and every byte of it that begins a stream is a TLS
        record."""
        only = ip_address(address).packed if address else b""
        seen = streams(self.segments()).items()
        found = [data for (_, to), data in seen if to[1] == port and data and (not only or to[0] == only)]
        return bool(found) and all(data[0] in _TLS_RECORDS and data[1] == 3 for data in found)

    def ports_from(self, addresses: Iterable[str]) -> set[int]:
        """Ports to which any of these addresses sent payload."""
        senders = {ip_address(text).packed for text in addresses}
        return {s.destination[1] for s in self.segments() if s.payload and s.source[0] in senders}


def streams(packets: Iterator[Segment]) -> dict[tuple[tuple[bytes, int], tuple[bytes, int]], bytes]:
    """(source, destination) -> payload in order of sequence numbers, as far as it is without holes."""
    pieces: dict[tuple[tuple[bytes, int], tuple[bytes, int]], dict[int, bytes]] = defaultdict(dict)
    for packet in packets:
        if packet.payload:
            known = pieces[packet.source, packet.destination]
            if len(packet.payload) > len(known.get(packet.sequence, b"")):
                known[packet.sequence] = packet.payload
    return {ends: b"".join(known[sequence] for sequence in sorted(known)) for ends, known in pieces.items()}


def segments(pcap: bytes) -> Iterator[Segment]:
    """The TCP segments of a pcap file (Ethernet or Linux cooked v2); raises Broken for any other."""
    if len(pcap) < 24 or pcap[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        raise Broken("not a capture", "", f"{len(pcap)} bytes")
    kind = int.from_bytes(pcap[20:24], "little")
    offset = 24
    while offset + 16 <= len(pcap):
        length = int.from_bytes(pcap[offset + 8 : offset + 12], "little")
        packet = pcap[offset + 16 : offset + 16 + length]
        offset += 16 + length
        if kind == _COOKED2:
            segment = _segment(int.from_bytes(packet[0:2], "big"), packet[20:])
        elif kind == _ETHERNET:
            segment = _segment(int.from_bytes(packet[12:14], "big"), packet[14:])
        else:
            raise Broken("not a capture we can read", "", f"link type {kind}")
        if segment is not None:
            yield segment


def _segment(ethertype: int, body: bytes) -> Segment | None:
    if ethertype == 0x0800 and len(body) >= 20 and body[9] == 6:
        header, total = (body[0] & 15) * 4, int.from_bytes(body[2:4], "big")
        source, destination, tcp = body[12:16], body[16:20], body[header:total]
    elif ethertype == 0x86DD and len(body) >= 40 and body[6] == 6:
        source, destination, tcp = body[8:24], body[24:40], body[40 : 40 + int.from_bytes(body[4:6], "big")]
    else:
        return None
    if len(tcp) < 20:
        return None
    return Segment(
        (source, int.from_bytes(tcp[0:2], "big")),
        (destination, int.from_bytes(tcp[2:4], "big")),
        int.from_bytes(tcp[4:8], "big"),
        tcp[(tcp[12] >> 4) * 4 :],
    )
