"""`ambient waypoint` against an API server; against a lab, see tests/lab/test_waypoint_command.py."""

from __future__ import annotations

import argparse
import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import yaml

from ambient.cli.env import Env, Exit
from ambient.cli.main import parser_of
from ambient.cli.waypoint import in_cluster
from ambient.errors import Refused, Unavailable
from ambient.kube.api.client import ApiClient
from tests.support.cli import FakeMesh, ambient
from tests.support.kube_api import FakeApi

READY = {"conditions": [{"type": name, "status": "True", "reason": name} for name in ("Accepted", "Programmed")]}


def _parsed(*words: str) -> argparse.Namespace:
    return parser_of("waypoint").parse_args(list(words))


class Cluster:
    """An API server with a namespace, and the command against it."""

    def __init__(self, api: FakeApi, client: ApiClient) -> None:
        self.api, self._client, self._said = api, client, io.StringIO()

    async def __call__(self, *words: str) -> tuple[int, str]:
        def unused(*_: Any) -> Any:
            raise AssertionError

        clock = iter(range(1000))
        env = Env(self._said, self._said, {}, lambda: float(next(clock)), unused, unused, unused)
        code = await in_cluster(env, _parsed(*words), self._client)
        said = self._said.getvalue()
        self._said.truncate(0)
        self._said.seek(0)
        return code, said


def _against(scenario: Callable[[Cluster], Awaitable[None]]) -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access()) as client:
            api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
            await scenario(Cluster(api, client))

    asyncio.run(run())


def test_what_is_generated_is_a_gateway_as_istioctl_makes_it() -> None:
    ran = ambient(FakeMesh(), "waypoint", "generate", "-n", "shop", "--name", "w", "--for", "all")
    assert (ran.code, yaml.safe_load(ran.out)) == (
        Exit.OK,
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "w", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all"}},
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        },
    )


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "--namespace", "A"),
        ("apply", "--name", "1"),
        ("apply", "w"),
        ("apply", "--enroll-namespace", "--for", "none"),
        ("delete", "--all", "w"),
        ("apply", "--for", "everything"),
    ],
)
def test_slips_are_told_as_such(words: tuple[str, ...]) -> None:
    assert ambient(FakeMesh(), "waypoint", *words).code == Exit.USAGE


def test_apply_makes_it_and_enrols_the_namespace_unless_that_uses_another() -> None:
    async def scenario(run: Cluster) -> None:
        assert (await run("apply", "-n", "shop", "--enroll-namespace"))[0] == Exit.OK
        space = run.api.stored("Namespace", "shop")
        assert space is not None
        assert space["metadata"]["labels"]["istio.io/use-waypoint"] == "waypoint"
        assert run.api.stored("Gateway", "waypoint", "shop") is not None
        with pytest.raises(Refused, match="--overwrite"):
            await run("apply", "-n", "shop", "--name", "w", "--enroll-namespace")
        assert (await run("apply", "-n", "shop", "--name", "w", "--enroll-namespace", "--overwrite"))[0] == Exit.OK
        with pytest.raises(Refused, match="not found"):
            await run("apply", "-n", "nowhere")

    _against(scenario)


def test_a_namespace_is_enrolled_once_its_waypoint_serves_when_that_is_waited_for() -> None:
    async def scenario(run: Cluster) -> None:
        words = ("apply", "-n", "shop", "--enroll-namespace", "--wait", "--timeout", "3")
        with pytest.raises(Unavailable, match="not programmed"):
            await run(*words)
        space = run.api.stored("Namespace", "shop")
        assert space is not None
        assert "istio.io/use-waypoint" not in space["metadata"].get("labels", {})
        made = run.api.stored("Gateway", "waypoint", "shop")
        assert made is not None
        run.api.put({**made, "status": READY})
        assert (await run(*words))[0] == Exit.OK
        space = run.api.stored("Namespace", "shop")
        assert space is not None
        assert space["metadata"]["labels"]["istio.io/use-waypoint"] == "waypoint"

    _against(scenario)


def test_status_says_no_until_it_is_programmed_and_delete_takes_only_waypoints() -> None:
    async def scenario(run: Cluster) -> None:
        other = {"gatewayClassName": "istio", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}
        run.api.put(_gateway("ingress", other))
        await run("apply", "-n", "shop")
        code, said = await run("status", "-A")
        assert (code, "nobody has looked" in said, "ingress" in said) == (Exit.NEGATIVE, True, False)
        with pytest.raises(Unavailable, match="not programmed"):
            await run("apply", "-n", "shop", "--wait", "--timeout", "0")
        spec = (run.api.stored("Gateway", "waypoint", "shop") or {})["spec"]
        run.api.put({**_gateway("waypoint", spec), "status": READY})
        assert (await run("status", "-n", "shop"))[0] == Exit.OK
        assert (await run("apply", "-n", "shop", "--wait"))[0] == Exit.OK
        with pytest.raises(Refused, match='"ingress" not found'):
            await run("delete", "ingress", "-n", "shop")
        assert (await run("delete", "-n", "shop", "--all"))[0] == Exit.OK
        assert run.api.stored("Gateway", "waypoint", "shop") is None
        assert run.api.stored("Gateway", "ingress", "shop") is not None

    _against(scenario)


def _gateway(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec}
