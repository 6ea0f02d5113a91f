"""A lab for tests: made with a name of its own, taken down by construction, checked to leave nothing.

    with lab_under_test("fail") as lab:            # or the fixture `make_lab` of tests/lab and others
        lab.up(YAML)
        assert lab.exec("shop/client", "curl", "-s", "http://web.shop/").stdout == "hello"

Drives the command line as users do; reads state in-process.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ambient.kube.objects import Pod
from ambient.lab.lab import Lab
from ambient.lab.names import Names, lab_name
from ambient.lab.status import status
from ambient.lab.teardown import down, remains

T = TypeVar("T")
Done = subprocess.CompletedProcess[str]
_POLL_S = 0.02
PATIENCE_S = 100.0
"""How long something is waited for: also on a slow machine that does much else. Who waits in vain is rare."""


def until(what: str, probe: Callable[[], T], timeout_s: float = PATIENCE_S) -> T:
    """The first true value of `probe`; AssertionError naming `what` and the last value when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what} (last: {value!r})"
        time.sleep(_POLL_S)


class LabUnderTest:
    """The verbs of one lab. Those that have no reason to fail in a test raise when they do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names = Names(lab_name(name))

    @property
    def lab(self) -> Lab:
        return Lab(self.names)

    def run(self, verb: str, *args: str, text: str = "", timeout_s: float = 200) -> Done:
        """`ambient lab VERB --name N ARGS`, whatever comes of it. `text` is its standard input."""
        return subprocess.run(
            [sys.executable, "-m", "ambient", "lab", verb, "--name", self.name, *args],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def must(self, verb: str, *args: str, text: str = "", timeout_s: float = 200) -> str:
        """Its output; AssertionError with everything it said when it fails."""
        done = self.run(verb, *args, text=text, timeout_s=timeout_s)
        assert done.returncode == 0, f"lab {verb} {' '.join(args)}: {done.stdout}{done.stderr}{self.tails()}"
        return done.stdout

    def up(self, text: str = "", *, mesh: bool = False, env: Mapping[str, str] | None = None) -> None:
        """Make the lab, with these objects."""
        options = ["--timeout", str(PATIENCE_S)] + ([] if mesh else ["--no-mesh"])
        options += [f"--env={key}={value}" for key, value in (env or {}).items()]
        self.must("up", *options)
        if text:
            self.apply(text)

    def apply(self, text: str) -> str:
        return self.must("apply", "--timeout", str(PATIENCE_S), "-f", "-", text=text)

    def delete(self, text: str) -> str:
        return self.must("delete", "--timeout", str(PATIENCE_S), "-f", "-", text=text)

    def label(self, namespace: str, *changes: str) -> str:
        return self.must("label", "namespace", namespace, *changes, "--overwrite", "--timeout", str(PATIENCE_S))

    def exec(self, pod: str, *command: str, text: str = "", timeout_s: float = 200) -> Done:
        return self.run("exec", pod, "--", *command, text=text, timeout_s=timeout_s)

    def start(self, pod: str, *command: str) -> subprocess.Popen[str]:
        """A command in a pod that goes on; its three streams are pipes. Ends with the lab at the latest."""
        return subprocess.Popen(
            [sys.executable, "-m", "ambient", "lab", "exec", "--name", self.name, pod, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def status(self) -> dict[str, Any]:
        return status(self.lab)

    def status_of(self, pod: str) -> dict[str, Any]:
        """The pod's entry in `status -o json`."""
        pods: list[dict[str, Any]] = self.status()["pods"]
        return next(entry for entry in pods if f"{entry['namespace']}/{entry['name']}" == pod)

    def signal(self, pid: int, name: str) -> None:
        """Send SIG<name> to a process, which must be the lab's, or be gone: with one go those that belonged to it."""
        with suppress(FileNotFoundError, ProcessLookupError):
            assert self.names.prefix in Path(f"/proc/{pid}/cgroup").read_text(), f"{pid} is not of {self.name}"
            os.kill(pid, signal.Signals[f"SIG{name}"])

    def pod(self, text: str) -> Pod:
        return self.lab.pod(text)

    def ip(self, pod: str, version: int = 4) -> str:
        """The pod's address of that family, as text."""
        return next(str(ip) for ip in self.pod(pod).ips if ip.version == version)

    def wait_ready(self, *pods: str, timeout_s: float = PATIENCE_S) -> None:
        """Until these pods are ready; all pods of the lab without arguments."""

        def ready() -> bool:
            found = {f"{p.namespace}/{p.name}": p.ready for p in self.lab.records().of(Pod)}
            return all(found.get(name, False) for name in pods or found)

        until(f"ready: {', '.join(pods) or 'all pods'}", ready, timeout_s)

    def component(self, node: str, name: str) -> dict[str, Any]:
        """{"running", "pid", "pids"} of kubelet, agent or ztunnel of a node."""
        nodes: list[dict[str, Any]] = self.status()["nodes"]
        found: dict[str, Any] = next(n for n in nodes if n["name"] == node)["components"][name]
        return found

    def tails(self, lines: int = 15) -> str:
        """The ends of all logs of components, for messages of failures."""
        parts = []
        for path in sorted((self.names.folder / "logs").rglob("*.log")):
            if "pods" not in path.parts:
                parts.append("\n".join([f"\n== {path.name} ({path.parent.name})", *_last(path, lines)]))
        return "".join(parts)


def _last(path: Path, lines: int) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-lines:]


@contextmanager
def lab_under_test(hint: str = "t") -> Iterator[LabUnderTest]:
    """A lab that does not exist yet. Whatever happens inside, it is down afterwards, and that is checked."""
    lab = LabUnderTest(f"{hint}-{secrets.token_hex(3)}")
    try:
        yield lab
    finally:
        down(lab.names)
        left = remains(lab.names)
        assert not left, left


def pod_yaml(pod: str, command: list[str], *, node: str = "", **fields: Any) -> str:
    """A one-container pod NAMESPACE/NAME as a YAML document. `fields`: account, labels, probe, port, restart, ips, ...

    Recognised: account, labels, annotations, readiness, liveness, ports, env, restart, grace, security.
    """
    namespace, _, name = pod.partition("/")
    container: dict[str, Any] = {"name": "main", "command": command}
    for ours, theirs in (
        *(("readiness", "readinessProbe"), ("liveness", "livenessProbe"), ("startup", "startupProbe")),
        *(("ports", "ports"), ("env", "env"), ("security", "securityContext")),
    ):
        if ours in fields:
            container[theirs] = fields[ours]
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": fields.get("grace", 1)}
    if node:
        spec["nodeName"] = node
    for ours, theirs in (("account", "serviceAccountName"), ("restart", "restartPolicy"), ("host", "hostNetwork")):
        if ours in fields:
            spec[theirs] = fields[ours]
    metadata = {"name": name, "namespace": namespace}
    metadata |= {key: fields[key] for key in ("labels", "annotations") if key in fields}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}) + "\n---\n"


def object_yaml(version: str, kind: str, name: str, namespace: str = "", **fields: Any) -> str:
    """Any object as a YAML document. `fields` are top-level fields; `labels` and `annotations` go into metadata."""
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata |= {key: fields.pop(key) for key in ("labels", "annotations") if key in fields}
    return json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, **fields}) + "\n---\n"


def namespace_yaml(name: str, **labels: str) -> str:
    return object_yaml("v1", "Namespace", name, labels=labels)


SLEEP = ["sleep", "infinity"]
"""A command for pods that are only entered."""
