"""The stage the story plays on: a lab driven only through its own command line, as a user would drive it.

Every method either does what it says or raises `Broken`, with what the lab said.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from time import monotonic, sleep
from typing import IO, Any, Final

from ambient.cli.demo import app
from ambient.errors import MeshError

TIMEOUT_S: Final = 120.0
PYTHON: Final = "/usr/bin/python3"
"""The distribution's interpreter: what a pod finds without an environment of ours."""


class Broken(MeshError):
    """A line of the story does not hold, or the lab could not do what the story needs."""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


def manifest(name: str) -> str:
    """The text of a manifest of the story, the server's program put in."""
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text()
    return text.replace('"@SERVER@"', json.dumps(app.SERVER))


def until(what: str, condition: Callable[[], Any], within_s: float = 60.0) -> Any:
    """The first true value of `condition`, asked again and again; raises Broken when it stays false."""
    deadline = monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if monotonic() > deadline:
            raise Broken(what, f"not within {within_s:g} s")
        sleep(0.05)


class Conversation:
    """A connection kept open from inside a pod: lines out, lines back. Close it, or `with` it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.strip())
        self._lines.put("ended")

    def next(self, within_s: float = 60.0) -> str:
        """The next line: "got ...", "closed ...", "refused ..." or "ended"; "" when none comes in time."""
        try:
            return self._lines.get(timeout=within_s)
        except queue.Empty:
            return ""

    def echo(self, text: str) -> bool:
        """Whether the line comes back."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return self.next() == f"got {text}"

    def close(self) -> None:
        """End the process and with it the connection. May be called again."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # what the dead process did not read
            self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Stage:
    lab: str

    def command(self, *argv: str, text: str = "", timeout_s: float = TIMEOUT_S) -> Result:
        """Run `ambient ARGV...`; whatever the exit code."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ambient", *argv],
                input=text,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Broken(f"ambient {' '.join(argv)}", f"did not end within {timeout_s:g} s") from None
        return Result(done.returncode, done.stdout, done.stderr)

    def must(self, *argv: str, text: str = "", timeout_s: float = TIMEOUT_S) -> str:
        """As `command`, but raises Broken unless it exits with 0; gives its output."""
        result = self.command(*argv, text=text, timeout_s=timeout_s)
        if result.code:
            raise Broken(f"ambient {' '.join(argv)}", f"exit code {result.code}", (result.err or result.out).strip())
        return result.out

    def up(self) -> None:
        self.must("lab", "up", "--name", self.lab)

    def down(self) -> None:
        self.must("lab", "down", "--name", self.lab)

    def apply(self, text: str) -> None:
        self.must("lab", "apply", "--name", self.lab, "-f", "-", text=text)

    def label(self, namespace: str, change: str) -> None:
        self.must("lab", "label", "--name", self.lab, "namespace", namespace, change)

    def logs(self, node: str, part: str) -> str:
        return self.must("lab", "logs", "--name", self.lab, node, part)

    def status(self) -> Any:
        return json.loads(self.must("lab", "status", "--name", self.lab, "-o", "json"))

    def exec(self, pod: str, *argv: str, text: str = "", timeout_s: float = TIMEOUT_S) -> Result:
        """Run a command in a pod ("namespace/name")."""
        return self.command("lab", "exec", "--name", self.lab, pod, "--", *argv, text=text, timeout_s=timeout_s)

    def ask(self, pod: str, url: str, body: str = "") -> Result:
        """An HTTP request by curl, a fresh connection; the body goes by POST."""
        options = ["--data-binary", "@-", "-H", "Expect:"] if body else []
        return self.exec(pod, "curl", "-sS", "--fail", "--max-time", "15", *options, url, text=body)

    def talk(self, pod: str, host: str, port: int) -> Conversation:
        """A conversation with the lines port; check its first line."""
        argv = ["lab", "exec", "--name", self.lab, pod, "--", PYTHON, "-u", "-c", app.LINES, host, str(port)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ambient", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(os.environ, PYTHONUNBUFFERED="1"),
        )
        return Conversation(process)

    def move(self, pod: str, host: str, port: int, times: int, size: int) -> int:
        """So many connections of `size` bytes each; how many bytes came back in all. Raises Broken."""
        result = self.exec(pod, PYTHON, "-c", app.BYTES, host, str(port), str(times), str(size))
        if result.code:
            raise Broken(f"bytes from {pod} to {host}:{port}", "", result.err.strip())
        return int(result.out)
