"""How a command reaches the parts of the mesh: HTTP on loopback of each node, in a lab inside the node's namespace.

Only reads, but for `Reach.cut`. A part that does not answer is `Unavailable`, naming part, node and address.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from ambient.errors import InvalidInput, Refused, Unavailable
from ambient.lab.names import DEFAULT_LAB, NETNS_DIR, Names, lab_name
from ambient.lab.settings import load
from ambient.model.address import ADMIN_PORT, CONTROL_HTTP_PORT
from ambient.netns import entered

AGENT_PORT: Final = 15099
_TIMEOUT_S: Final = 10.0
_SILENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace").strip()


class Reach(Protocol):
    """A mesh seen from the command line."""

    @property
    def label(self) -> str:
        """What this is, for people: "lab demo" or "this node"."""
        ...

    def nodes(self) -> Sequence[str]: ...

    def ztunnel(self, node: str, path: str, port: int = ADMIN_PORT) -> Answer:
        """GET from a node's ztunnel; raises Unavailable."""
        ...

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        """GET from a node's ztunnel, line by line for as long as it sends; raises Unavailable."""
        ...

    def agent(self, node: str, path: str) -> Answer:
        """GET from a node's agent; raises Unavailable."""
        ...

    def cut(self, node: str, pod: str) -> Answer:
        """Have a node's agent end the connections of NAMESPACE/POD that are older than its enrolment; raises
        Unavailable."""
        ...

    def control(self, path: str) -> Answer:
        """GET from the control plane; raises Unavailable."""
        ...


@contextmanager
def _opened(
    part: str, netns: Path | None, host: str, port: int, path: str, timeout_s: float, method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        sock = _socket(netns, socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.settimeout(timeout_s)
        connection.sock = sock
        sock.connect((host, port))
        connection.request(method, path)
        yield connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or repr(error)
        raise Unavailable(f"{part} does not answer", f"{host}:{port}{path}", why) from None
    finally:
        connection.close()


def get(part: str, netns: Path | None, host: str, port: int, path: str) -> Answer:
    """One GET over a socket made in `netns` (None: where we are). Raises Unavailable when nobody answers."""
    with _opened(part, netns, host, port, path, _TIMEOUT_S) as response:
        return Answer(response.status, response.read())


def post(part: str, netns: Path | None, host: str, port: int, path: str) -> Answer:
    """As `get`, but a POST without a body."""
    with _opened(part, netns, host, port, path, _TIMEOUT_S, "POST") as response:
        return Answer(response.status, response.read())


def _cut(pod: str) -> str:
    return f"/cut?pod={quote(pod, safe='')}"


def stream(part: str, netns: Path | None, host: str, port: int, path: str) -> Iterator[bytes]:
    """As `get`, line by line; a silence of a minute counts as gone."""
    with _opened(part, netns, host, port, path, _SILENCE_S) as response:
        if response.status != 200:
            raise Unavailable(
                part, f"HTTP status {response.status}", response.read(200).decode(errors="replace").strip()
            )
        while line := response.readline():
            yield line


def _socket(netns: Path | None, family: int) -> socket.socket:
    """A TCP socket that belongs to a network namespace; it stays there whoever uses it."""
    if netns is None:
        return socket.socket(family, socket.SOCK_STREAM)
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            return socket.socket(family, socket.SOCK_STREAM)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class LabReach:
    """The nodes of a running lab."""

    lab: str

    @property
    def label(self) -> str:
        return f"lab {self.lab}"

    def nodes(self) -> Sequence[str]:
        prefix = Names(self.lab).node("")
        return sorted(entry.name.removeprefix(prefix) for entry in NETNS_DIR.glob(prefix + "*"))

    def _node(self, node: str) -> Path:
        place = NETNS_DIR / Names(self.lab).node(node)
        if not place.exists():
            raise Refused(f"no node {node!r}", self.label, f"it has {', '.join(self.nodes()) or 'none'}")
        return place

    def ztunnel(self, node: str, path: str, port: int = ADMIN_PORT) -> Answer:
        return get(f"ztunnel of node {node}", self._node(node), "127.0.0.1", port, path)

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        return stream(f"ztunnel of node {node}", self._node(node), "127.0.0.1", ADMIN_PORT, path)

    def agent(self, node: str, path: str) -> Answer:
        return get(f"agent of node {node}", self._node(node), "127.0.0.1", AGENT_PORT, path)

    def cut(self, node: str, pod: str) -> Answer:
        return post(f"agent of node {node}", self._node(node), "127.0.0.1", AGENT_PORT, _cut(pod))

    def control(self, path: str) -> Answer:
        names = Names(self.lab)
        host = str(load(names).plan.control.v4)
        return get("control plane", NETNS_DIR / names.control, host, CONTROL_HTTP_PORT, path)


@dataclass(frozen=True, slots=True)
class HostReach:
    """The node this command runs on."""

    node: str

    @property
    def label(self) -> str:
        return "this node"

    def nodes(self) -> Sequence[str]:
        return [self.node]

    def ztunnel(self, node: str, path: str, port: int = ADMIN_PORT) -> Answer:
        self._mine(node)
        return get("ztunnel", None, "127.0.0.1", port, path)

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        self._mine(node)
        return stream("ztunnel", None, "127.0.0.1", ADMIN_PORT, path)

    def agent(self, node: str, path: str) -> Answer:
        self._mine(node)
        return get("agent", None, "127.0.0.1", AGENT_PORT, path)

    def cut(self, node: str, pod: str) -> Answer:
        self._mine(node)
        return post("agent", None, "127.0.0.1", AGENT_PORT, _cut(pod))

    def control(self, path: str) -> Answer:
        return get("control plane", None, "127.0.0.1", CONTROL_HTTP_PORT, path)

    def _mine(self, node: str) -> None:
        if node != self.node:
            raise Refused(f"no node {node!r}", self.label, f"this is {self.node}; for a lab give --name")


def reach(name: str | None) -> Reach:
    """The lab called `name`; with None the default lab if it runs, else this machine. Raises InvalidInput, Refused."""
    if name is None:
        if Names(DEFAULT_LAB).folder.exists():
            return LabReach(DEFAULT_LAB)
        return HostReach(os.environ.get("NODE_NAME", socket.gethostname()))
    lab = Names(lab_name(name))
    if not lab.folder.exists():
        raise InvalidInput(f"no lab {name!r} runs here", "--name", "start one with: ambient lab up --name " + name)
    return LabReach(name)
