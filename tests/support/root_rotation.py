"""The mesh changes its root under load, by the book: both are trusted before the new one signs, the old goes last."""

from __future__ import annotations

import base64
import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ambient.ca.roots import make_root
from ambient.cli.reach import LabReach
from ambient.model.address import ADMIN_PORT
from tests.support.journey import Journey, journey
from tests.support.lab import until
from tests.support.load import Scene, peers
from tests.support.load_restarts import Opening
from tests.support.survival import running

NODES: Final = ("n1", "n2")
LIFE: Final = "60s"


@contextmanager
def short_lives(hint: str) -> Iterator[Journey]:
    """The journeys' mesh with certificates that live a minute, and somebody to talk to."""
    with journey(hint, env={"ztunnel:SECRET_TTL": LIFE}) as mesh, peers(mesh):
        yield mesh


class Roots:
    """The files that the control plane signs with and every node trusts (the lab's nodes share them)."""

    def __init__(self, mesh: Journey, tried: Callable[[], None]) -> None:
        """`tried`: wait until connections were opened for a second."""
        self.mesh = mesh
        self.tried = tried
        self._folder: Path = mesh.lab.names.credentials
        self.old = (self._folder / "root-cert.pem").read_text()
        self._old_key = (self._folder / "root-key.pem").read_text()
        self.new, self._new_key = make_root(datetime.now(UTC))

    def both_with_the_old_signing(self) -> None:
        self._write(self.old + self.new, self._old_key)

    def both_with_the_new_signing(self) -> None:
        self._write(self.new + self.old, self._new_key)

    def only_the_new(self) -> None:
        self._write(self.new, self._new_key)

    def asked(self, step: str) -> None:
        """Let the control plane itself take a step ("begin", "next")."""
        (self._folder / "rotate").write_text(f"{step}@{uuid.uuid4()}")

    def others(self) -> str:
        """The root beside the old one that the control plane has made."""
        old = _of(self.old)
        found: list[x509.Certificate] = []

        def made() -> bool:
            text = (self._folder / "root-cert.pem").read_text()
            found[:] = [one for one in x509.load_pem_x509_certificates(text.encode()) if one != old]
            return bool(found)

        until("the control plane has made a root", made)
        return found[0].public_bytes(Encoding.PEM).decode()

    def _write(self, certificates: str, key: str) -> None:
        # In between the key does not fit, and the control plane goes on with what it had.
        for name, text in (("root-cert.pem", certificates), ("root-key.pem", key)):
            fresh = self._folder / f"{name}.new"
            fresh.write_text(text)
            fresh.chmod(0o600)
            fresh.replace(self._folder / name)

    def everywhere(self, signer: str, *trusted: str) -> None:
        """Until every certificate of every node is signed by `signer` and comes with exactly these roots."""
        self.on(NODES, signer, *trusted)

    def on(self, nodes: Sequence[str], signer: str, *trusted: str) -> None:
        until("the nodes have taken it over", lambda: all(self._taken(node, signer, trusted) for node in nodes), 200)

    def _taken(self, node: str, signer: str, trusted: tuple[str, ...]) -> bool:
        dump = json.loads(LabReach(self.mesh.lab.name).ztunnel(node, "/config_dump", ADMIN_PORT).text)
        found: list[dict[str, Any]] = dump["certificates"]
        roots = {_of(root) for root in trusted}
        return bool(found) and all(
            one["state"] == "Available" and _issued(one, signer) and {*map(_read, one["rootCerts"])} == roots
            for one in found
        )


def _issued(shown: dict[str, Any], signer: str) -> bool:
    if not shown["certChain"]:
        return False
    leaf, root = _read(shown["certChain"][0]), _of(signer)
    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return identifier == x509.SubjectKeyIdentifier.from_public_key(root.public_key()).digest


def _read(shown: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(shown["pem"]))


def _of(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _by_the_book(roots: Roots) -> str:
    """People change the files, step by step; gives the new root."""
    roots.both_with_the_old_signing()
    roots.everywhere(roots.old, roots.old, roots.new)
    roots.both_with_the_new_signing()
    roots.everywhere(roots.new, roots.old, roots.new)
    roots.only_the_new()
    return roots.new


def _at_once(roots: Roots) -> str:
    """As nobody should. One node learns of it a little later than the other: nothing promises that both do at once."""
    late = running(roots.mesh, NODES[1], "ztunnel.director")
    try:
        for pid in late:
            os.kill(pid, signal.SIGSTOP)
        roots.only_the_new()
        roots.on((NODES[0],), roots.new, roots.new)
        roots.tried()
    finally:
        for pid in late:
            os.kill(pid, signal.SIGCONT)
    return roots.new


def _by_request(roots: Roots) -> str:
    """The control plane does it, and is hurried on as soon as everybody knows."""
    roots.asked("begin")
    new = roots.others()
    roots.everywhere(roots.old, roots.old, new)
    roots.asked("next")
    roots.everywhere(new, roots.old, new)
    roots.asked("next")
    return new


WAYS: Final[Mapping[str, Callable[[Roots], str]]] = MappingProxyType(
    {"by the book": _by_the_book, "at once": _at_once, "by request": _by_request}
)


def rotated(mesh: Journey, way: str, *, per_second: float = 60.0) -> Scene:
    """Change the root while connections are opened, in one of `WAYS`."""
    scene = Scene(f"the root of the mesh is changed {way}")
    with ExitStack() as stack:
        opening = Opening(mesh, per_second)
        stack.callback(opening.close)

        def tried() -> None:
            after = opening.opened
            until("connections are opened", lambda: opening.opened > after + per_second)

        roots = Roots(mesh, tried)
        roots.everywhere(roots.old, roots.old)
        tried()
        new = WAYS[way](roots)
        roots.everywhere(new, new)
        tried()
        said = opening.end()
    scene.figures = {"new connections": said["opened"], "conversations": said["talked"], "p99 ms": said["p99_ms"]}
    scene.broken = [f"a connection failed: {why}" for _, why in said["failed"][:10]]
    scene.broken += [f"a conversation was cut {why}" for _, why in said["cut"][:10]]
    return scene
