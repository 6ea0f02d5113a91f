"""Two ztunnels of one node beside a node agent that knows nothing of keys: ZDS as it is, several connections at once,
the newest gets the pods. The one that leaves costs nobody a connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from ambient.agent.ztunnels import Ztunnels
from tests.support.agent_fakes import nobody
from tests.support.waiting import eventually
from tests.support.ztunnel_bench import Ztunnel, ZtunnelBench, ztunnel_bench

Scenario = Callable[[ZtunnelBench, Ztunnels, Ztunnel], Awaitable[None]]


def beside(number: int, **second: str) -> Callable[[Scenario], Callable[[Path], None]]:
    """A bench whose agent takes several connections; another ztunnel is ready to be started, its settings changed."""

    def decorate(test: Scenario) -> Callable[[Path], None]:
        def run(tmp_path: Path) -> None:
            async def body() -> None:
                prefix = f"amb-two-{os.getpid() % 100000}-{number}"
                path = tmp_path / "plain.sock"
                environment = {
                    "INPOD_UDS": str(path),
                    "AMBIENT_CUSTODY_UDS": "",
                    "CONNECTION_TERMINATION_DEADLINE": "60s",
                }
                async with ztunnel_bench(tmp_path, prefix, number, **environment) as made:
                    agent = Ztunnels(nobody, lambda _peer: None)
                    for pod in (made.a, made.b):
                        agent.add(pod.workload, pod.descriptor)
                    serving = asyncio.ensure_future(agent.serve(path))
                    changed = {name: value.format(folder=tmp_path) for name, value in second.items()}
                    other = made.ztunnel.another(tmp_path / "other", **changed)
                    try:
                        await eventually(lambda: agent.settled, "the first one serves")
                        await made.ztunnel.ready()
                        await test(made, agent, other)
                    except BaseException:
                        print(made.ztunnel.log.read_text()[-6000:], other.log.read_text()[-6000:])
                        raise
                    finally:
                        other.kill_everything()
                        serving.cancel()
                        await asyncio.gather(serving, return_exceptions=True)

            asyncio.run(body())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


class Asking:
    """Connections from a to b, one after the other, for as long as it is open; the first that fails is raised."""

    def __init__(self, one: ZtunnelBench) -> None:
        self._one = one
        self._over = False
        self.count = 0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while not self._over:
            answer = await self._one.a.ask(self._one.b.ip, 8080, timeout_s=60)
            assert answer == f"{self._one.a.ip} hello".encode()
            self.count += 1

    async def more(self, count: int = 20) -> None:
        """Until so many more have come back."""
        goal = self.count + count
        await eventually(lambda: self.count >= goal or self._task.done(), "for answers")
        if self._task.done():
            self._task.result()

    async def end(self) -> None:
        self._over = True
        await self._task


@beside(41)
async def test_the_next_ztunnel_takes_the_same_sockets_and_the_pods_that_come_later(
    one: ZtunnelBench, agent: Ztunnels, second: Ztunnel
) -> None:
    asking = Asking(one)
    await asking.more()
    second.start()
    await eventually(lambda: agent.count == 2 and agent.settled, "both are connected and the newest serves all")
    await eventually(lambda: "took over 2 pods" in second.log.read_text(), "the sockets changed hands")
    assert all(one.b.listening(port) == ["*"] for port in (15001, 15006, 15008))
    await asking.more()
    assert await asyncio.to_thread(one.ztunnel.stop) == 0
    assert "2 pods were handed over" in one.ztunnel.log.read_text()
    await eventually(lambda: agent.count == 1, "the agent has noticed")
    await asking.more()
    await asking.end()
    await second.ready()


@beside(42, AMBIENT_RUN_DIR="{folder}/apart")
async def test_without_a_common_folder_each_binds_its_own_and_no_connection_fails_either(
    one: ZtunnelBench, agent: Ztunnels, second: Ztunnel
) -> None:
    asking = Asking(one)
    await asking.more()
    second.start()
    await eventually(lambda: agent.count == 2 and agent.settled, "both are connected and the newest serves all")
    assert len(one.b.listening(15008)) == 2
    await asking.more()
    assert await asyncio.to_thread(one.ztunnel.stop) == 0
    assert "0 pods were handed over" in one.ztunnel.log.read_text()
    await asking.more()
    await asking.end()
    await eventually(lambda: len(one.b.listening(15008)) == 1, "what the first one held is closed")
