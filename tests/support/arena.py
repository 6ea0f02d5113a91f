"""Where hostile peers meet the mesh: the journeys' mesh under STRICT, `far` open to `web` only, and a bystander.

The bystander is `web`, which talks with `far` all the time: over one old connection, and over a new one each time.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ambient.lab.names import NETNS_DIR
from tests.support.hostile_peer import NodeLog, Wire, dial
from tests.support.journey import FAR, HTTP, LINES, OUTSIDE, WEB, Journey, account, journey, policy, strict
from tests.support.lab import SLEEP, pod_yaml
from tests.support.mint import Leaf, Mint, client_context, spiffe

EVIL = "shop/evil"
"""In the mesh, with an identity that the policy does not let in, and with CAP_NET_RAW and CAP_NET_ADMIN."""
HBONE = 15008
ONLY_WEB = policy("only-web", "ALLOW", [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}])


class Bystander:
    """`web` talking with `far`."""

    def __init__(self, mesh: Journey) -> None:
        self._mesh = mesh
        self._old = dial(mesh.lab, WEB, mesh.host(FAR, 4), LINES)
        self._reader = self._old.makefile("rb")
        self._count = 0
        assert self._reader.readline().startswith(b"hello")

    def echo(self) -> float:
        """Seconds that one line takes there and back on the old connection."""
        self._count += 1
        line = b"unharmed %d\n" % self._count
        begin = time.monotonic()
        self._old.sendall(line)
        assert self._reader.readline() == line, "the bystander's old connection was harmed"
        return time.monotonic() - begin

    def request(self) -> float:
        """Seconds that a request on a new connection takes."""
        begin = time.monotonic()
        with dial(self._mesh.lab, WEB, self._mesh.host(FAR, 4), HTTP) as sock:
            sock.sendall(b"GET /id HTTP/1.0\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200"), "the bystander got no answer"
        return time.monotonic() - begin

    def close(self) -> None:
        self._reader.close()
        self._old.close()


class Arena:
    """The mesh, its authority's key in our hands, and shortcuts for peers of `far`."""

    def __init__(self, mesh: Journey) -> None:
        self.mesh = mesh
        self.lab = mesh.lab
        self.mint = Mint.of(mesh.lab.names.credentials)
        self.web = self.mint.leaf(spiffe("web"))
        self.far = mesh.host(FAR, 4)
        self.authority = f"{self.far}:{HTTP}"
        self.log = NodeLog(mesh.lab.names.log("n2", "ztunnel"))
        self.bystander = Bystander(mesh)

    def dial(self, port: int = HBONE, pod: str = OUTSIDE) -> socket.socket:
        """TCP to `far` from a pod outside the mesh."""
        return dial(self.lab, pod, self.far, port)

    def wire(self, leaf: Leaf | None = None, **options: object) -> Wire:
        """A tunnel's TLS connection to `far`, as `web` unless another certificate is given."""
        return Wire(self.dial(), client_context(leaf or self.web, **options))  # type: ignore[arg-type]

    def metrics(self, node: str = "n2") -> dict[str, float]:
        """Every sample of a node's ztunnel by its full name, as published now (up to a second old)."""
        netns = NETNS_DIR / self.lab.names.node(node)
        command = ["nsenter", f"--net={netns}", "curl", "-sS", "--fail", "http://127.0.0.1:15020/metrics"]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def unharmed(self) -> None:
        """AssertionError when the bystander suffered."""
        self.bystander.echo()
        self.bystander.request()


@contextmanager
def arena(hint: str) -> Iterator[Arena]:
    powers = {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}
    with journey(hint) as mesh:
        mesh.lab.apply(account("evil") + pod_yaml(EVIL, SLEEP, node="n1", account="evil", security=powers))
        mesh.lab.apply(strict() + ONLY_WEB)
        made = Arena(mesh)
        with contextlib.closing(made.bystander):
            made.unharmed()
            yield made
