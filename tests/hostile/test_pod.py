"""A hostile pod against a mesh under STRICT: what it may try with the powers of a container, and what it gets.

The capture programs have their own evasion tests in tests/bpf; here the whole mesh is in place, ztunnel included.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ambient.cli.demo.capture import Capture
from ambient.cli.demo.stage import PYTHON, Result
from tests.support.journey import FAR, HTTP, LINES, OUTSIDE, WEB, Journey, account, journey, policy, strict
from tests.support.lab import SLEEP, pod_yaml

EVIL = "shop/evil"
"""In the mesh, with an identity that the policy does not let in, and with CAP_NET_RAW and CAP_NET_ADMIN."""

PROLOGUE = r"""
import socket, ssl, sys
def say(s, data=b"GET /id HTTP/1.0\r\n\r\n"):
    s.settimeout(3)
    try:
        s.sendall(data)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
        print("answer" if got else "nothing", got[:300])
    except OSError as error:
        print("refused", error)
def dial(host, port, **options):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(3)
    for (level, name), value in options.get("set", {}).items():
        s.setsockopt(level, name, value)
    try:
        if "bind" in options:
            s.bind(options["bind"])
        s.connect((host, port))
    except OSError as error:
        print("refused", error)
        sys.exit()
    return s
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    """Under STRICT, and far open to web only."""
    powers = {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}
    only_web = policy("only-web", "ALLOW", [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}])
    with journey("evil") as found:
        found.lab.apply(account("evil") + pod_yaml(EVIL, SLEEP, node="n1", account="evil", security=powers))
        found.lab.apply(strict() + only_web)
        yield found


def run(mesh: Journey, pod: str, program: str, *arguments: str) -> Result:
    return mesh.stage.exec(pod, PYTHON, "-c", PROLOGUE + program, *arguments)


def assert_got_nothing(result: Result) -> None:
    assert result.code == 0, result.err
    assert result.out.startswith(("refused", "nothing")), result.out


@pytest.mark.parametrize("version", [4, 6])
def test_whom_the_policy_names_gets_in_so_that_the_refusals_here_mean_something(mesh: Journey, version: int) -> None:
    answered = run(mesh, WEB, "say(dial(sys.argv[1], int(sys.argv[2])))", mesh.host(FAR, version), str(HTTP))
    assert answered.out.startswith("answer"), answered.out + answered.err


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mark", [0x539, 0x53A, 0x111])
def test_a_forged_mark_gets_nobody_past_ztunnel(mesh: Journey, mark: int, version: int) -> None:
    """SO_MARK of ztunnel's own sockets, of its loop, and Istio's probe mark."""
    secret = f"secret-marked-{mark:x}-{version}"
    program = f"""
s = dial(sys.argv[1], int(sys.argv[2]), set={{(socket.SOL_SOCKET, 36): {mark}}})
say(s, b"POST / HTTP/1.0\\r\\nContent-Length: {len(secret)}\\r\\n\\r\\n{secret}")
"""
    with Capture(mesh.lab.name, "n2") as capture:
        assert_got_nothing(run(mesh, EVIL, program, mesh.host(FAR, version), str(HTTP)))
    assert not capture.shows(secret.encode())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [EVIL, OUTSIDE])
@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_the_proxys_ports_of_another_pod_give_a_stranger_nothing(
    mesh: Journey, pod: str, port: int, version: int
) -> None:
    assert_got_nothing(run(mesh, pod, "say(dial(sys.argv[1], int(sys.argv[2])))", mesh.host(FAR, version), str(port)))


@pytest.mark.parametrize("certificate", ["none", "self-signed"])
def test_a_tunnel_without_a_certificate_of_the_mesh_is_refused(mesh: Journey, certificate: str) -> None:
    program = """
import os, subprocess, tempfile
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
if sys.argv[3] == "self-signed":
    d = tempfile.mkdtemp(dir="/dev/shm")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", d + "/k", "-out", d + "/c", "-days", "1", "-subj", "/O=x",
        "-addext", "subjectAltName=URI:spiffe://cluster.local/ns/shop/sa/web"], check=True, capture_output=True)
    context.load_cert_chain(d + "/c", d + "/k")
    subprocess.run(["rm", "-r", d])
try:
    s = context.wrap_socket(dial(sys.argv[1], int(sys.argv[2])))
    # TLS 1.3 tells the client of a refused certificate with the first read. A CONNECT follows in any case.
    block = bytes([0x02, 0x07]) + b"CONNECT" + bytes([0x01, len(sys.argv[4])]) + sys.argv[4].encode()
    frames = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(9)[:3] + bytes([4, 0, 0, 0, 0, 0])
    s.sendall(frames + len(block).to_bytes(3, "big") + bytes([1, 4, 0, 0, 0, 1]) + block)
    s.settimeout(3)
    got = b""
    while chunk := s.recv(65536):
        got += chunk
    print("answer" if b"200" in got or bytes([0x88]) in got else "nothing", got)
except OSError as error:
    print("refused", error)
"""
    host = mesh.host(FAR, 4)
    assert_got_nothing(run(mesh, OUTSIDE, program, host, "15008", certificate, f"{host}:{HTTP}"))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [EVIL, OUTSIDE])
def test_no_source_port_opens_a_way(mesh: Journey, pod: str, version: int) -> None:
    """The proxy's ports as source ports are no disguise (in a pod of the mesh they are taken)."""
    for port in (15001, 15006, 15008, 53, 10250):
        program = f"say(dial(sys.argv[1], int(sys.argv[2]), bind=('', {port})))"
        assert_got_nothing(run(mesh, pod, program, mesh.host(FAR, version), str(HTTP)))


def test_a_foreign_source_address_is_no_identity(mesh: Journey) -> None:
    """A pod that gives itself the address of web, whom the policy lets in, still has its own certificate."""
    web = mesh.host(WEB, 4)
    program = f"""
import subprocess
subprocess.run(["ip", "address", "add", "{web}/32", "dev", "lo"], check=True)
try:
    say(dial(sys.argv[1], int(sys.argv[2]), bind=("{web}", 0)))
finally:
    subprocess.run(["ip", "address", "del", "{web}/32", "dev", "lo"], check=True)
"""
    assert_got_nothing(run(mesh, EVIL, program, mesh.host(FAR, 4), str(HTTP)))


@pytest.mark.parametrize("port", [15000, 15099])
def test_admin_of_the_node_is_not_reached_from_a_pod(mesh: Journey, port: int) -> None:
    node = next(n["addresses"][0] for n in mesh.lab.status()["nodes"] if n["name"] == "n1")
    for host in (node, "127.0.0.1"):
        assert_got_nothing(run(mesh, EVIL, "say(dial(sys.argv[1], int(sys.argv[2])))", host, str(port)))


def test_the_keys_of_the_lab_and_the_pins_are_not_seen_from_a_pod(mesh: Journey) -> None:
    for place in ("/run/ambient/labs", "/sys/fs/bpf/ambient"):
        listed = mesh.stage.exec(EVIL, "ls", place)
        assert listed.code != 0 or not listed.out.strip(), f"{place}: {listed.out}"


def test_flooding_a_closed_door_leaves_the_open_one_usable(mesh: Journey) -> None:
    flood = """
for _ in range(300):
    s = socket.socket(); s.setblocking(False)
    try: s.connect((sys.argv[1], int(sys.argv[2])))
    except OSError: pass
    s.close()
print("nothing")
"""
    assert_got_nothing(run(mesh, EVIL, flood, mesh.host(FAR, 4), str(HTTP)))
    assert mesh.reaches(WEB, FAR)


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\xff\xff" + b"\0" * 64, b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_garbage_at_the_tunnel_port_ends_that_connection_and_nothing_else(mesh: Journey, data: bytes) -> None:
    with mesh.stage.talk(WEB, mesh.host(FAR, 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        program = f"say(dial(sys.argv[1], int(sys.argv[2])), {data!r})"
        result = run(mesh, OUTSIDE, program, mesh.host(FAR, 4), "15008")
        assert result.code == 0, result.err
        assert not result.out.startswith("answer b'HTTP"), result.out
        assert talk.echo("unharmed")


def test_sabotage_without_strict_and_policy_the_same_pod_gets_an_answer(mesh: Journey) -> None:
    only_web = policy("only-web", "ALLOW", [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}])
    mesh.lab.delete(strict() + only_web)
    try:
        for pod in (EVIL, OUTSIDE):
            answered = run(mesh, pod, "say(dial(sys.argv[1], int(sys.argv[2])))", mesh.host(FAR, 4), str(HTTP))
            assert answered.out.startswith("answer"), answered.out
    finally:
        mesh.lab.apply(strict() + only_web)
