from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ambient.agent.leaving import OwnDaemonSet
from ambient.kube.api.client import ApiClient
from tests.support.agent_fakes import until
from tests.support.kube_api import Answer, FakeApi, status_body

PATH = "/apis/apps/v1/namespaces/ambient-system/daemonsets/ambient-agent"
THERE = Answer(200, json.dumps({"metadata": {"name": "ambient-agent"}}).encode())
GOING = Answer(200, json.dumps({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}).encode())
GONE = Answer(404, status_body(404, "NotFound", "no such daemonset"))
FORBIDDEN = Answer(403, status_body(403, "Forbidden", "no"))
UNKNOWN = Answer(401, status_body(401, "Unauthorized", "no"))
AWAY = Answer(503, status_body(503, "ServiceUnavailable", "later"))

CASES: dict[str, tuple[list[Answer], bool]] = {
    "replaced": ([THERE, THERE], False),
    "deleted": ([THERE, GONE, GONE], True),
    "being deleted": ([THERE, GOING, GONE], True),
    "deleted before it was ever seen": ([AWAY, GONE, GONE], True),
    "made again in between": ([THERE, GONE, THERE], False),
    "our rights went with it": ([THERE, FORBIDDEN, FORBIDDEN], True),
    "our account went with it": ([THERE, UNKNOWN, UNKNOWN], True),
    "we never had the right": ([FORBIDDEN, FORBIDDEN, FORBIDDEN], False),
    "a right lost for a moment": ([THERE, FORBIDDEN, THERE], False),
    "the server is away": ([THERE, AWAY], False),
}


@pytest.mark.parametrize("case", CASES)
def test_only_a_daemon_set_that_went_means_to_go_with_it(case: str) -> None:
    answers, expected = CASES[case]

    async def run() -> bool:
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=5) as client:
            api.say(PATH, *answers)
            own = OwnDaemonSet(client, "ambient-agent", "ambient-system", again_s=0.01)
            watching: asyncio.Task[Any] = asyncio.create_task(own.watch_over())
            await until(lambda: api.asked("GET", PATH))
            await asyncio.wait({watching}, timeout=0.2)
            watching.cancel()
            return await own.gone()

    assert asyncio.run(run()) is expected
