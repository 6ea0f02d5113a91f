"""The CNI plugin against everything that a runtime, a configuration or an agent may give it; built with sanitizers."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import cni

SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MESH = cni.arguments("shop", "web", "u1")
SYSTEM = cni.arguments("kube-system", "dns", "u2")
RESULT = cni.result("10.1.0.2")
ROUNDS = int(os.environ.get("AMBIENT_CNI_ROUNDS", "400"))


def call(command: str, given: str | bytes, *, args: str = MESH, **environment: str) -> cni.Ended:
    """One run of the sanitized plugin. A variable that is "-" is not set."""
    settings = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": args,
        **environment,
    }
    done = subprocess.run(
        [cni.plugin(*SANITIZED)],
        env={name: value for name, value in settings.items() if value != "-"},
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b"", done.stderr.decode(errors="replace")
    assert done.returncode in (0, 1), done
    if done.returncode == 1:
        said = json.loads(done.stdout)
        assert isinstance(said["code"], int)
        assert isinstance(said["msg"], str)
    return cni.Ended(done.returncode, done.stdout.decode(errors="surrogateescape"))


@contextmanager
def agent(answer: bytes, *, hold: bool = False, read: bool = True) -> Iterator[tuple[Path, list[bytes]]]:
    """A socket that says `answer` to whoever asks, and then closes or holds on."""
    asked: list[bytes] = []
    release = threading.Event()
    with tempfile.TemporaryDirectory(prefix="amb-cni-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "s"
        listener.bind(str(path))
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if read:
                        asked.append(whole_request(connection))
                    try:
                        connection.sendall(answer)
                    except OSError:
                        continue
                    if hold:
                        release.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path, asked
        finally:
            release.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def whole_request(connection: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = connection.recv(size - len(data))
            if not part:
                return data
            data += part
        return data

    request = exactly(8)
    for _ in range(6):
        header = exactly(4)
        if len(header) < 4:
            break
        request += header + exactly(struct.unpack("!I", header)[0])
    return request


def said(code: int, message: bytes = b"") -> bytes:
    return struct.pack("!II", code, len(message)) + message


def test_a_yes_hands_the_result_on_octet_by_octet() -> None:
    raw = '{ "b" : [1.0e3,\t"\\u00e9é\\"}" ], "a":{} , "ips": [] }'
    with agent(said(0)) as (path, asked):
        given = cni.configuration(path)[:-1] + f', "prevResult"  :\n {raw} }}'
        answer = call("ADD", given)
    assert (answer.code, answer.output) == (0, raw + "\n")
    fields = asked[0]
    assert fields.startswith(b"AMBCNI1\n" + struct.pack("!I", 3) + b"ADD")
    assert fields.endswith(struct.pack("!I", len(given.encode())) + given.encode())


def test_a_no_is_an_error_with_the_agents_words() -> None:
    with agent(said(11, b'wait "a" moment\n\x01\\ \xff')) as (path, _):
        answer = call("ADD", cni.configuration(path, RESULT))
    assert answer.code == 1
    assert answer.json == {"cniVersion": "1.0.0", "code": 11, "msg": 'wait "a" moment  \\  '}


@pytest.mark.parametrize("answer", [said(0), said(11, b"no")])
def test_a_removal_never_fails(answer: bytes) -> None:
    with agent(answer) as (path, _):
        assert call("DEL", cni.configuration(path), CNI_NETNS="").output == ""
    assert call("DEL", cni.configuration("/nowhere")) == cni.Ended(0, "")


NO_AGENT = {
    "there is no socket": "/nonexistent/s",
    "it is a directory": "/",
    "it is a file": "/etc/hostname",
    "it is the longest name": "/" + "s" * 106,
}


@pytest.mark.parametrize("why", NO_AGENT)
def test_without_an_agent_only_the_named_namespaces_pass(why: str) -> None:
    given = cni.configuration(NO_AGENT[why], RESULT)
    held = call("ADD", given)
    assert (held.code, held.json["code"]) == (1, 11)
    assert "namespace shop is held back" in held.json["msg"]
    assert call("ADD", given, args=SYSTEM).json == RESULT
    assert call("CHECK", given, args=SYSTEM) == cni.Ended(0, "")


BAD_ANSWERS = {
    "nothing": b"",
    "half a header": b"\0\0\0",
    "a message that does not come": struct.pack("!II", 0, 10) + b"short",
    "a message too long": struct.pack("!II", 0, 4097) + b"x" * 4097,
    "a length of four thousand million": struct.pack("!II", 0, 0xFFFFFFFF),
    "a code too large": struct.pack("!II", 10_000, 0),
    "text": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_an_answer_that_is_none_holds_the_pod(what: str) -> None:
    with agent(BAD_ANSWERS[what]) as (path, _):
        held = call("ADD", cni.configuration(path, RESULT))
        assert (held.code, held.json["code"]) == (1, 11)
        assert call("ADD", cni.configuration(path, RESULT), args=SYSTEM).code == 0


@pytest.mark.parametrize("read", [True, False], ids=["after it was asked", "before it has read"])
def test_an_agent_that_says_nothing_is_waited_for_no_longer_than_told(read: bool) -> None:
    with agent(b"", hold=True, read=read) as (path, _):
        held = call("ADD", cni.configuration(path, {**RESULT, "pad": "x" * 3_000_000}, timeoutSeconds=1))
    assert "timed out" in held.json["msg"].lower()


HELD = {
    "a namespace that begins alike": cni.arguments("kube-system-2", "a", "u"),
    "a namespace that is a beginning": cni.arguments("kube", "a", "u"),
    "no namespace": "K8S_POD_NAMESPACE=;K8S_POD_NAME=a",
    "two namespaces": "K8S_POD_NAMESPACE=shop;K8S_POD_NAMESPACE=kube-system",
    "the same twice": "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAMESPACE=kube-system",
    "a quote": 'K8S_POD_NAMESPACE=kube-system"',
    "a very long one": "K8S_POD_NAMESPACE=" + "a" * 5000,
}


@pytest.mark.parametrize("what", HELD)
def test_who_is_not_exactly_in_the_list_is_held(what: str) -> None:
    assert call("ADD", cni.configuration("/nonexistent", RESULT), args=HELD[what]).code == 1


PASSED = {
    "no pod of Kubernetes": "IgnoreUnknown=1",
    "no arguments": "",
    "another name that ends so": "X_K8S_POD_NAMESPACE=shop",
    "separators only": ";;;",
}


@pytest.mark.parametrize("what", PASSED)
def test_what_is_no_pod_passes(what: str) -> None:
    assert call("ADD", cni.configuration("/nonexistent", RESULT), args=PASSED[what]).json == RESULT


def test_a_list_that_is_empty_or_odd_lets_nobody_pass() -> None:
    for names in ([], [1, "kube-system"], [["kube-system"]], ["kube\\u002dsystem"]):
        given = cni.configuration("/nonexistent", RESULT, passNamespaces=names).replace("\\\\u", "\\u")
        assert call("ADD", given, args=SYSTEM).code == 1, names


def changed(**top: Any) -> str:
    return json.dumps({**json.loads(cni.configuration("/nonexistent", RESULT)), **top})


GOOD = cni.configuration("/nonexistent", RESULT)
REFUSED: dict[str, tuple[str | bytes, int]] = {
    "nothing": ("", 6),
    "not JSON": ("{", 6),
    "a list": ("[]", 6),
    "two values": (GOOD + "{}", 6),
    "a trailing comma": (GOOD[:-1] + ",}", 6),
    "a comment": (GOOD + "// x", 6),
    "a control character in a string": (GOOD[:-1] + ',"x":"\x01"}', 6),
    "an unknown escape": (GOOD[:-1] + ',"x":"\\q"}', 6),
    "an escape at the end": (GOOD[:-1] + ',"x":"\\', 6),
    "a leading zero": (GOOD[:-1] + ',"x":01}', 6),
    "a bare minus": (GOOD[:-1] + ',"x":-}', 6),
    "a number without digits": (GOOD[:-1] + ',"x":1.}', 6),
    "an exponent without digits": (GOOD[:-1] + ',"x":1e}', 6),
    "a word": (GOOD[:-1] + ',"x":nul}', 6),
    "nested too deep": (GOOD[:-1] + ',"x":' + "[" * 100_000, 6),
    "zeros": (b"\0" * 100, 6),
    "a zero in the middle": (GOOD.replace("pods", "po\0ds"), 6),
    "too long": (" " * (4 << 20) + GOOD, 6),
    "a version twice": (GOOD[:-1] + ',"cniVersion":"0.4.0"}', 6),
    "a result twice": (GOOD[:-1] + ',"prevResult":{}}', 6),
    "a result that is none": (changed(prevResult="x"), 6),
    "ours that is none": (changed(ambient=[]), 6),
    "a socket that is none": (changed(ambient={"socket": 1}), 6),
    "a socket with an escape": (GOOD.replace("/nonexistent", "/none\\u0078istent"), 6),
    "a timeout that is text": (cni.configuration("/s", RESULT, timeoutSeconds="1"), 6),
    "no version": (json.dumps({k: v for k, v in json.loads(GOOD).items() if k != "cniVersion"}), 1),
    "version 0.2.0": (changed(cniVersion="0.2.0"), 1),
    "version 2.0.0": (changed(cniVersion="2.0.0"), 1),
    "an empty version": (changed(cniVersion=""), 1),
    "no result": (cni.configuration("/nonexistent"), 7),
    "nothing of ours": (json.dumps({k: v for k, v in json.loads(GOOD).items() if k != "ambient"}), 7),
    "no socket": (changed(ambient={}), 7),
    "an empty socket": (cni.configuration("", RESULT), 7),
    "a relative socket": (cni.configuration("s", RESULT), 7),
    "a socket too long": (cni.configuration("/" + "s" * 107, RESULT), 7),
    "a timeout of nothing": (cni.configuration("/s", RESULT, timeoutSeconds=0), 7),
    "a timeout of days": (cni.configuration("/s", RESULT, timeoutSeconds=100_000), 7),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_configuration_that_is_none_is_refused_with_its_code(what: str) -> None:
    given, code = REFUSED[what]
    answer = call("ADD", given, args=SYSTEM)
    assert (answer.code, answer.json["code"]) == (1, code)


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "no command": {"CNI_COMMAND": "-"},
    "an unknown command": {"CNI_COMMAND": "add"},
    "no container": {"CNI_CONTAINERID": ""},
    "no namespace": {"CNI_NETNS": "-"},
    "no interface": {"CNI_IFNAME": "-"},
    "arguments too long": {"CNI_ARGS": "a" * 70_000},
}


@pytest.mark.parametrize("what", ENVIRONMENTS)
def test_an_environment_that_is_none_is_refused(what: str) -> None:
    changed_environment = dict(ENVIRONMENTS[what])
    command = changed_environment.pop("CNI_COMMAND", "ADD")
    args = changed_environment.pop("CNI_ARGS", SYSTEM)
    answer = call(command, GOOD, args=args, **changed_environment)
    assert (answer.code, answer.json["code"]) == (1, 4)


def test_versions_are_told_and_every_one_of_them_works() -> None:
    told = call("VERSION", "{}").json
    assert told == {"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}
    for version in told["supportedVersions"]:
        assert call("ADD", changed(cniVersion=version), args=SYSTEM).json == RESULT
        assert call("ADD", changed(cniVersion=version)).json["cniVersion"] == version


def test_the_node_counts_as_ready_and_nothing_is_collected() -> None:
    assert call("STATUS", GOOD) == cni.Ended(0, "")
    assert call("GC", changed(**{"cni.dev/valid-attachments": []}), CNI_CONTAINERID="-", CNI_NETNS="-") == cni.Ended(
        0, ""
    )


def mutated(chance: random.Random) -> bytes:
    data = bytearray(GOOD.encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + chance.randint(1, 20)] = b""
            case 1:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 4)))
            case 2:
                data[at:at] = chance.choice([b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"-", b"1e9", b"null"])
            case 3:
                end = chance.randrange(at, len(data) + 1)
                data[at:at] = data[at:end]
            case 4:
                data = data[:at] or data
    return bytes(data)


def test_whatever_comes_it_ends_with_an_answer_and_never_lets_a_pod_of_the_mesh_pass() -> None:
    chance = random.Random(20261)
    refused = 0
    for _ in range(ROUNDS):
        given = mutated(chance)
        answer = call("ADD", given)
        assert answer.code == 1, given
        refused += answer.json["code"] != 11
    assert refused > ROUNDS / 3


def test_what_the_plugin_takes_for_json_python_does_too() -> None:
    chance = random.Random(7)
    for _ in range(ROUNDS // 3):
        given = mutated(chance)
        if call("ADD", given).json["code"] == 11:
            json.loads(given.decode(errors="replace"), strict=True)
