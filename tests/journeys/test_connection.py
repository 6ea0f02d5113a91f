"""A connection through the mesh: every family, near and far, whatever speaks first, whichever way the bytes go."""

from __future__ import annotations

import hashlib

import pytest

from ambient.cli.demo.capture import Capture
from ambient.cli.demo.stage import PYTHON
from tests.support.journey import BYTES, FAR, HTTP, LEGACY, LINES, NEAR, OUTSIDE, WEB, Journey

GIGABYTE = 1 << 30

BULK = r"""
import hashlib, socket, sys, threading
host, size = sys.argv[1], int(sys.argv[2])
s = socket.create_connection((host, 7002), 60)
s.settimeout(200)
def up():
    block, left, digest = bytes(range(256)) * 1024, size, hashlib.blake2b()
    while left:
        piece = block[: min(left, len(block))]
        s.sendall(piece); digest.update(piece); left -= len(piece)
    s.shutdown(socket.SHUT_WR)
    sent.append(digest.hexdigest())
sent = []
thread = threading.Thread(target=up); thread.start()
digest, count, buffer = hashlib.blake2b(), 0, bytearray(1 << 20)
tail = b""
while n := s.recv_into(buffer):
    data = tail + bytes(buffer[:n])
    tail = data[-128:]
    digest.update(data[:-128]); count += len(data) - len(tail)
thread.join()
print(count, digest.hexdigest(), sent[0], tail.decode())
"""
"""Sends and receives at once; the server's last 128 bytes are the digest of what it got."""

MIRROR = r"""
import hashlib, socket, threading
def serve(c, size):
    def down():
        block, left = bytes(reversed(range(256))) * 1024, size
        while left:
            piece = block[: min(left, len(block))]
            c.sendall(piece); left -= len(piece)
    thread = threading.Thread(target=down); thread.start()
    digest, buffer = hashlib.blake2b(), bytearray(1 << 20)
    while n := c.recv_into(buffer):
        digest.update(memoryview(buffer)[:n])
    thread.join()
    c.sendall(digest.hexdigest().encode()); c.close()
import sys
l = socket.socket(socket.AF_INET6); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(("::", 7002)); l.listen()
print("listening", flush=True)
while True:
    c, _ = l.accept()
    threading.Thread(target=serve, args=(c, int(sys.argv[1])), daemon=True).start()
"""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_the_server_sees_the_clients_own_address(mesh: Journey, pod: str, version: int) -> None:
    assert mesh.identify(WEB, mesh.url(pod, version))["peer"] == mesh.host(WEB, version)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_a_server_that_speaks_first_is_heard(mesh: Journey, pod: str, version: int) -> None:
    with mesh.stage.talk(WEB, mesh.host(pod, version), LINES) as talk:
        assert talk.next().startswith("got hello")
        assert talk.echo("and the client after it")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_a_direction_that_ended_leaves_the_other_open(mesh: Journey, pod: str, version: int) -> None:
    assert mesh.stage.move(WEB, mesh.host(pod, version), BYTES, 3, 70_000) == 3 * 2 * 70_000


@pytest.mark.parametrize("name", ["far", "far.shop", "far.shop.svc", "far.shop.svc.cluster.local", "headless.shop"])
def test_services_are_reached_by_every_form_of_their_names(mesh: Journey, name: str) -> None:
    assert mesh.identify(WEB, f"http://{name}:{HTTP}/id")["peer"] in {mesh.host(WEB, 4), mesh.host(WEB, 6)}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_wires_carry_tls_and_no_byte_of_what_was_said(mesh: Journey, pod: str, version: int) -> None:
    secret = f"secret-{pod.replace('/', '-')}-{version}"
    with Capture(mesh.lab.name, "n1") as first, Capture(mesh.lab.name, "n2") as second:
        assert mesh.stage.ask(WEB, mesh.url(pod, version, "/"), secret).out == secret
    assert first.tls_on(15008)
    for capture in (first, second):
        assert not capture.shows(secret.encode())
        assert capture.ports_from([mesh.host(WEB, version)]) <= {15008}


@pytest.mark.parametrize("version", [4, 6])
def test_sabotage_the_same_capture_shows_what_goes_to_a_pod_outside(mesh: Journey, version: int) -> None:
    secret = f"secret-outside-{version}"
    with Capture(mesh.lab.name, "n1") as capture:
        assert mesh.stage.ask(WEB, mesh.url(LEGACY, version, "/"), secret).out == secret
    assert capture.shows(secret.encode())
    assert not capture.tls_on(15008, mesh.host(LEGACY, version))


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_outside_reaches_the_mesh_while_nothing_forbids_it(mesh: Journey, version: int) -> None:
    assert mesh.identify(OUTSIDE, mesh.url(FAR, version))["peer"] == mesh.host(OUTSIDE, version)


@pytest.mark.parametrize("version", [4, 6])
def test_nobody_listening_is_an_end_and_not_a_hang(mesh: Journey, version: int) -> None:
    with mesh.stage.talk(WEB, mesh.host(FAR, version), 9) as talk:
        assert talk.next().startswith(("refused", "closed"))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_a_gigabyte_each_way_at_once_arrives_whole(mesh: Journey, pod: str, version: int) -> None:
    serving = mesh.lab.start(pod, PYTHON, "-c", MIRROR, str(GIGABYTE))
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "listening\n"
        ran = mesh.stage.exec(WEB, PYTHON, "-c", BULK, mesh.host(pod, version), str(GIGABYTE), timeout_s=400)
        assert ran.code == 0, ran.err
        count, received, sent, arrived = ran.out.split()
        assert int(count) == GIGABYTE
        assert arrived == sent, "what we sent is what the server got"
        assert received == _expected(), "what the server sent is what we got"
    finally:
        serving.kill()
        serving.communicate()


def _expected() -> str:
    block, digest = bytes(reversed(range(256))) * 1024, hashlib.blake2b()
    for _ in range(GIGABYTE // len(block)):
        digest.update(block)
    return digest.hexdigest()
