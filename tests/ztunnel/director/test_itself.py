"""ztunnel's own pod: served when it is named whole, left alone by the agent's snapshots, and not one of the node's."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.support.director_world import World
from tests.support.waiting import eventually
from ztunnel.config import read_config
from ztunnel.director.itself import UID, own_pod
from ztunnel.inpod import listeners

NAMED = {"POD_NAME": "ztunnel-abc", "POD_NAMESPACE": "ambient-system", "SERVICE_ACCOUNT": "ztunnel"}


def test_its_name_is_what_the_environment_says() -> None:
    pod = own_pod(read_config(NAMED))
    assert pod is not None
    assert (pod.name, pod.namespace, pod.service_account) == ("ztunnel-abc", "ambient-system", "ztunnel")


@pytest.mark.parametrize("missing", NAMED)
def test_without_one_of_its_names_it_serves_itself_not(missing: str) -> None:
    assert own_pod(read_config({key: value for key, value in NAMED.items() if key != missing})) is None


def test_it_is_served_as_its_own_identity_and_no_snapshot_of_the_agent_takes_it_away(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path, **NAMED)
        async with world.director() as director:
            worker = world.worker()
            await eventually(lambda: list(director.crew))
            await director.serve_itself()
            up = worker.pods[UID][0]
            assert up.own
            assert up.identity == "spiffe://cluster.local/ns/ambient-system/sa/ztunnel"
            assert set(director.served()) == set()
            assert director.pods.infos() == []
            assert director.pods.up(UID)
            director.snapshot_done()
            assert UID in worker.pods

    asyncio.run(run())


def test_where_nothing_is_captured_only_the_tunnel_port_is_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OUTBOUND_PORT", "PLAINTEXT_PORT", "HBONE_PORT", "DNS_PORT"):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            monkeypatch.setattr(listeners, name, sock.getsockname()[1])
    made = listeners.bind(os.open("/proc/self/ns/net", os.O_RDONLY), ipv6=False, dns=True, captured=False)
    hosts = []
    for fd in made.fds[1:]:
        with socket.socket(fileno=os.dup(fd)) as sock:
            hosts.append(sock.getsockname()[0])
    made.close()
    assert hosts == ["127.0.0.1", "127.0.0.1", "0.0.0.0", "127.0.0.1", "127.0.0.1"]
