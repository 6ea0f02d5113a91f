"""The agent's own DaemonSet on an API server, and what becomes of it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.kube_api import Answer, FakeApi, status_body

PATH = "/apis/apps/v1/namespaces/ambient-system/daemonsets/ambient-agent"
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
FORBIDDEN = Answer(403, status_body(403, "Forbidden", "no"))
AWAY = Answer(503, status_body(503, "ServiceUnavailable", "later"))


def daemon_set(**metadata: str) -> dict[str, Any]:
    named = {"name": "ambient-agent", "namespace": "ambient-system", **metadata}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": named}


def namespace(**metadata: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ambient-system", **metadata}}


def delete(api: FakeApi) -> None:
    api.delete("DaemonSet", "ambient-agent", "ambient-system")


def end_account(api: FakeApi) -> None:
    api.tokens = {"another"}


def end_rights(api: FakeApi) -> None:
    api.say(PATH, *[FORBIDDEN] * 100)


def all_of(*acts: Callable[[FakeApi], None]) -> Callable[[FakeApi], None]:
    def do(api: FakeApi) -> None:
        for act in acts:
            act(api)

    return do
