"""Go's own HTTP/2 at the other end of a tunnel, in either role; only where a Go toolchain is on the machine."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.strangers.conftest import FOREIGN
from tests.support.arena import Arena
from tests.support.features import need
from tests.support.hostile_peer import dial
from tests.support.journey import BYTES, HTTP, OUTSIDE, WEB
from tests.support.mint import spiffe
from tests.support.peers import command_in, running

SOURCE = Path(__file__).with_name("peer.go")


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built program."""
    need("go toolchain")
    folder = tmp_path_factory.mktemp("go")
    env = {**os.environ, "GOFLAGS": "", "GO111MODULE": "off", "GOPROXY": "off", "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", folder / "peer", SOURCE], cwd=folder, env=env, check=True, timeout=110)
    return folder / "peer"


def _ask(
    place: Arena, peer: Path, folder: Path, authority: str, data: bytes, account: str = "web"
) -> tuple[bytes, str]:
    chain, key = place.mint.leaf(spiffe(account)).save(folder, account)
    argv = [str(peer), "client", f"{place.far}:15008", authority, str(chain), str(key)]
    done = subprocess.run(
        command_in(place.lab, OUTSIDE, *argv), input=data, capture_output=True, timeout=60, check=False
    )
    return done.stdout, done.stderr.decode()


def test_go_as_client_gets_an_answer_and_moves_megabytes(place: Arena, peer: Path, tmp_path: Path) -> None:
    got, told = _ask(place, peer, tmp_path, place.authority, b"GET /id HTTP/1.0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200"), told
    got, told = _ask(place, peer, tmp_path, f"{place.far}:{BYTES}", bytes(4 << 20))
    assert len(got) == 8 << 20, told


def test_go_as_client_is_told_what_policy_denies_and_what_is_not_here(place: Arena, peer: Path, tmp_path: Path) -> None:
    assert _ask(place, peer, tmp_path, place.authority, b"", "evil")[1].startswith("status 401")
    assert _ask(place, peer, tmp_path, "127.0.0.1:8080", b"")[1].startswith("status 400")
    assert _ask(place, peer, tmp_path, f"{place.far}:15008", b"")[1].startswith("status 503")


def test_go_as_server_gets_what_a_pod_of_the_mesh_sends(place: Arena, peer: Path, tmp_path: Path) -> None:
    host = place.mesh.host(FOREIGN, 4)
    chain, key = place.mint.leaf(spiffe("foreign", "plain")).save(tmp_path, "foreign")
    roots = tmp_path / "roots.pem"
    roots.write_text(place.mint.roots)
    log = tmp_path / "log"
    with running(place.lab, FOREIGN, [str(peer), "server", str(chain), str(key), str(roots)], 15008, log):
        with dial(place.lab, WEB, host, HTTP) as sock:
            sock.settimeout(30)
            blob = bytes(range(256)) * 8192
            writer = threading.Thread(target=lambda: (sock.sendall(blob), sock.shutdown(socket.SHUT_WR)))
            writer.start()
            got = sock.makefile("rb").read()
            writer.join()
        assert got == blob
    assert f"{spiffe('web')} CONNECT {host}:{HTTP} k8s.cluster.name=Kubernetes" in log.read_text()
