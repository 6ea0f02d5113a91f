"""Policies come to a worker by number; what it was not told closes."""

from __future__ import annotations

from dataclasses import replace

from ambient.model.policy import Action, Authorization, PolicyScope
from tests.support.tunnel import application, echo, pair, run, talk, until, world
from ztunnel.ipc import messages as m


def test_policies_come_by_number_and_one_that_is_not_known_closes_the_pod() -> None:
    deny = Authorization(name="deny", namespace="test", scope=PolicyScope.NAMESPACE, action=Action.DENY, rules=((),))
    allow = replace(deny, name="allow", action=Action.ALLOW)

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)

            async def refused() -> bool:
                return await talk(client.outbound, b"x") != b"x"

            here.director.send(m.Policies(put=((1, allow), (2, deny))))
            here.update(server, numbers=(1,))
            assert not await refused()
            here.update(server, numbers=(1, 2))
            await until(lambda: len(here.workers[0]._pods[server.uid].pod.policy.policies) == 2)
            assert await refused()
            here.director.send(m.Policies(gone=(2,)))
            here.update(server, numbers=(1,))
            assert not await refused()
            here.update(server, numbers=(1, 2))
            assert await refused(), "what was meant by that may be what refuses"

    run(scenario)
