"""Whether an agent goes with its DaemonSet: only when that was seen to go, never because somebody refuses us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ambient.agent.leaving import OwnDaemonSet
from ambient.kube.api.client import ApiClient
from tests.support.agent_fakes import until
from tests.support.kube_api import FakeApi
from tests.support.own_daemon_set import (
    AWAY,
    GOING,
    PATH,
    all_of,
    daemon_set,
    delete,
    end_account,
    end_rights,
    namespace,
)  # fmt: skip

CASES: dict[str, tuple[Callable[[FakeApi], None], bool]] = {
    "replaced": (lambda api: None, False),
    "deleted": (delete, True),
    "being deleted": (lambda api: api.put(daemon_set(**GOING)) and None, True),
    "its namespace is being deleted": (lambda api: api.put(namespace(**GOING)) and None, True),
    "made again": (all_of(delete, lambda api: api.put(daemon_set()) and None), False),
    "deleted, and our account with it": (all_of(delete, end_account), True),
    "deleted after our account": (all_of(end_account, delete), True),
    "deleted, and our rights with it": (all_of(delete, end_rights), True),
    "being deleted, and our account with it": (
        all_of(lambda api: api.put(daemon_set(**GOING)) and None, end_account), True,
    ),
    "our pod was deleted by force, which ends its token": (end_account, False),
    "we lost the right to see it": (end_rights, False),
    "made again, and then refused": (all_of(delete, lambda api: api.put(daemon_set()) and None, end_account), False),
    "the server is away": (lambda api: api.say(PATH, AWAY), False),
    "deleted while the server is away": (all_of(delete, lambda api: api.say(PATH, AWAY)), False),
}  # fmt: skip


def answer(act: Callable[[FakeApi], None], *, watched: bool = True, patience_s: float = 0.3) -> bool:
    async def run() -> bool:
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=30) as client:
            api.put(namespace())
            api.put(daemon_set())
            own = OwnDaemonSet(client, "ambient-agent", "ambient-system", again_s=0.01, patience_s=patience_s)
            watching = asyncio.create_task(own.watch_over())
            if watched:
                await until(lambda: own._follower.core.synced)
            else:
                watching.cancel()
            act(api)
            try:
                return await own.gone()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    return asyncio.run(run())


@pytest.mark.parametrize("case", CASES)
def test_only_a_daemon_set_that_was_seen_to_go_means_to_go_with_it(case: str) -> None:
    act, expected = CASES[case]
    assert answer(act, patience_s=30 if expected else 0.3) is expected


def test_what_nobody_watched_is_taken_for_there_when_we_are_refused() -> None:
    assert answer(all_of(delete, end_account), watched=False) is False
    assert answer(delete, watched=False) is True
