"""Running a command of the CLI against a mesh that is only answers: no process, no network."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ambient.cli.env import Env
from ambient.cli.main import dispatch
from ambient.cli.reach import Answer
from ambient.errors import Unavailable
from ambient.model.address import ADMIN_PORT, READY_PORT

GOLDEN = Path(__file__).parent.parent / "golden" / "ztunnel-config_dump-n1.json"
NOW = 1_795_255_200.0
"""2026-11-21 10:00:00 UTC, a moment within the validity of the golden certificates."""


@dataclass
class FakeMesh:
    """`answers`: (part, path) -> what it says; a part is "control", "n1/ztunnel", "n1/ready", "n1/agent".

    A value that is not bytes is sent as JSON; (status, text) as is; what is missing does not answer; a list is
    consumed one by one.
    """

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    names: Sequence[str] = ("n1",)
    label: str = "lab test"

    def nodes(self) -> Sequence[str]:
        return self.names

    def ztunnel(self, node: str, path: str, port: int = ADMIN_PORT) -> Answer:
        return self._answer(f"{node}/ready" if port == READY_PORT else f"{node}/ztunnel", path)

    def lines(self, node: str, path: str) -> Iterator[bytes]:
        yield from self._answer(f"{node}/ztunnel", path).body.splitlines(keepends=True)

    def agent(self, node: str, path: str) -> Answer:
        return self._answer(f"{node}/agent", path)

    def cut(self, node: str, pod: str) -> Answer:
        return self._answer(f"{node}/agent", f"POST /cut {pod}")

    def controls(self, path: str) -> Sequence[Answer]:
        return [self._answer("control", path)]

    def _answer(self, part: str, path: str) -> Answer:
        value = self.answers.get((part, path), self.answers.get((part, path.partition("?")[0])))
        if isinstance(value, list) and value and isinstance(value[0], Answer):
            value = value.pop(0)
        match value:
            case None:
                raise Unavailable(f"{part} does not answer", path, "Connection refused")
            case Answer():
                return value
            case bytes():
                return Answer(200, value)
            case (int() as status, str() as text):
                return Answer(status, text.encode())
            case _:
                return Answer(200, json.dumps(value).encode())


def healthy(*nodes: str) -> FakeMesh:
    """A mesh whose every node is healthy and holds the golden dump."""
    mesh = FakeMesh(names=nodes)
    clients = {}
    for node in nodes:
        mesh.answers[f"{node}/ztunnel", "/config_dump"] = GOLDEN.read_bytes()
        mesh.answers[f"{node}/ready", "/healthz/ready"] = (200, "ready")
        mesh.answers[f"{node}/agent", "/ready"] = (200, "ready")
        clients |= {f"{node}/ztunnel": {"acked": 7}, f"{node}/agent": {"acked": 7}}
    mesh.answers["control", "/ready"] = (200, "ready")
    mesh.answers["control", "/sync"] = {"observed": 7, "clients": clients}
    return mesh


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str
    became: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Became(SystemExit):
    """Thrown where the process would have become another."""


def ambient(mesh: FakeMesh, *argv: str, environ: Mapping[str, str] | None = None, now: float = NOW) -> Ran:
    """Run `ambient ARGV...` on `mesh`."""
    out, err = io.StringIO(), io.StringIO()
    became: list[str] = []

    def become(command: Sequence[str]) -> NoReturn:
        became.extend(command)
        raise Became(0)

    def nothing(_: float) -> None:
        return

    reach: Callable[[argparse.Namespace], FakeMesh] = lambda _: mesh  # noqa: E731
    env = Env(out, err, environ or {}, lambda: now, nothing, reach, become)
    code = dispatch(env, argv)
    return Ran(code, out.getvalue(), err.getvalue(), tuple(became))
