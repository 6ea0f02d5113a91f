"""How a command reaches the parts of the mesh: HTTP on loopback of each node, in a lab inside the node's namespace.
A real cluster's parts are reached by `ambient.cli.cluster`.

Only reads, but for `Reach.cut`. A part that does not answer is `Unavailable`, naming part, node and address.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from ambient.errors import Refused, Unavailable
from ambient.lab.names import NETNS_DIR, Names
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

    def controls(self, path: str) -> Sequence[Answer]:
        """GET from every replica of the control plane, at least one; raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Dial:
    """A way to a part: `where` names it for people, `opened` is a connection that is closed at the end."""

    where: str
    opened: Callable[[], AbstractContextManager[socket.socket]]


def here(netns: Path | None, host: str, port: int) -> Dial:
    """TCP from a network namespace (None: where we are)."""

    @contextmanager
    def opened() -> Iterator[socket.socket]:
        with _socket(netns, socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect((host, port))
            yield sock

    return Dial(f"{host}:{port}", opened)


@contextmanager
def _opened(
    part: str, dial: Dial, path: str, timeout_s: float, method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    try:
        with dial.opened() as sock:
            sock.settimeout(timeout_s)
            connection.sock = sock
            connection.request(method, path)
            yield connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or repr(error)
        raise Unavailable(f"{part} does not answer", f"{dial.where}{path}", why) from None
    finally:
        connection.close()


def ask(part: str, dial: Dial, path: str, method: str = "GET") -> Answer:
    """One request without a body. Raises Unavailable when nobody answers."""
    with _opened(part, dial, path, _TIMEOUT_S, method) as response:
        return Answer(response.status, response.read())


def cut_path(pod: str) -> str:
    """What an agent is asked with POST to end the older connections of NAMESPACE/POD."""
    return f"/cut?pod={quote(pod, safe='')}"


def stream(part: str, dial: Dial, path: str) -> Iterator[bytes]:
    """As `ask`, line by line; a silence of a minute counts as gone."""
    with _opened(part, dial, path, _SILENCE_S) as response:
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
        return ask(f"ztunnel of node {node}", here(self._node(node), "127.0.0.1", port), path)

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        return stream(f"ztunnel of node {node}", here(self._node(node), "127.0.0.1", ADMIN_PORT), path)

    def agent(self, node: str, path: str) -> Answer:
        return ask(f"agent of node {node}", here(self._node(node), "127.0.0.1", AGENT_PORT), path)

    def cut(self, node: str, pod: str) -> Answer:
        return ask(f"agent of node {node}", here(self._node(node), "127.0.0.1", AGENT_PORT), cut_path(pod), "POST")

    def controls(self, path: str) -> Sequence[Answer]:
        names = Names(self.lab)
        host = str(load(names).plan.control.v4)
        return [ask("control plane", here(NETNS_DIR / names.control, host, CONTROL_HTTP_PORT), path)]


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
        return ask("ztunnel", here(None, "127.0.0.1", port), path)

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        self._mine(node)
        return stream("ztunnel", here(None, "127.0.0.1", ADMIN_PORT), path)

    def agent(self, node: str, path: str) -> Answer:
        self._mine(node)
        return ask("agent", here(None, "127.0.0.1", AGENT_PORT), path)

    def cut(self, node: str, pod: str) -> Answer:
        self._mine(node)
        return ask("agent", here(None, "127.0.0.1", AGENT_PORT), cut_path(pod), "POST")

    def controls(self, path: str) -> Sequence[Answer]:
        return [ask("control plane", here(None, "127.0.0.1", CONTROL_HTTP_PORT), path)]

    def _mine(self, node: str) -> None:
        if node != self.node:
            raise Refused(f"no node {node!r}", self.label, f"this is {self.node}; for a lab give --name")
