"""What /config_dump and /connections gather from the workers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from tests.support.director_world import ALICE, ALICE_WORKLOAD, World, scenario
from tests.support.fake_worker import own_netns
from ztunnel.director.dumping import config_dump, connections
from ztunnel.director.local import read_local
from ztunnel.ipc.messages import LiveConnection, Report, ReportAsk

OUT = LiveConnection(
    direction="outbound",
    src="10.0.0.1:5",
    original_dst="10.96.0.1:80",
    actual_dst="10.0.1.1:15008",
    protocol="HBONE",
    peer="spiffe://cluster.local/ns/shop/sa/bob-sa",
    opened_unix=1_000.0,
)
IN = LiveConnection(
    direction="inbound", src="10.0.1.1:6", original_dst="", actual_dst="10.0.0.1:80", protocol="TCP", opened_unix=900.5
)


@scenario
async def test_connections_show_both_directions_with_their_age_and_the_oldest_first(world: World) -> None:
    async with world.director() as director:
        world.known(ALICE_WORKLOAD)
        worker = world.worker()
        await director.add(ALICE, own_netns())
        asking = asyncio.ensure_future(connections(director, 1_010.0))
        ask = await worker.hears(ReportAsk)
        worker.say(Report(ask=ask.ask, connections={ALICE.uid: [OUT, IN]}))
        first, second = json.loads(await asking)
    assert (first["direction"], first["src"], first["ageSeconds"], first["peer"]) == (
        *("inbound", "10.0.1.1:6", 109.5),
        None,
    )
    assert second == {
        "namespace": "shop",
        "pod": "alice",
        "direction": "outbound",
        "src": "10.0.0.1:5",
        "originalDst": "10.96.0.1:80",
        "actualDst": "10.0.1.1:15008",
        "protocol": "HBONE",
        "peer": "spiffe://cluster.local/ns/shop/sa/bob-sa",
        "openedAt": "1970-01-01T00:16:40.000+00:00",
        "ageSeconds": 10.0,
    }


@scenario
async def test_the_dump_has_the_keys_of_a_real_one_and_the_connections_of_every_worker(world: World) -> None:
    async with world.director() as director:
        workers = [world.worker(0, 1000), world.worker(1, 1001)]
        await director.add(ALICE, own_netns())
        asking = asyncio.ensure_future(config_dump(director))
        for worker, live in zip(workers, (OUT, IN), strict=True):
            ask = await worker.hears(ReportAsk)
            worker.say(Report(ask=ask.ask, connections={ALICE.uid: [live]}))
        dump = json.loads(await asking)
    assert list(dump) == sorted(
        [
            *("workloads", "services", "policies", "certificates", "workloadState"),
            *("stagedServices", "staticConfig", "version", "config"),
        ]
    )
    state = dump["workloadState"][ALICE.uid]
    assert state["state"] == "Up"
    assert [one["protocol"] for one in state["connections"]["outbound"]] == ["HBONE"]
    assert [one["originalDst"] for one in state["connections"]["inbound"]] == [None]


@scenario
async def test_the_settings_have_the_names_and_forms_of_a_real_dump_and_ours_stand_beside_them(world: World) -> None:
    golden = json.loads((Path(__file__).parents[2] / "golden" / "ztunnel-config_dump-n1.json").read_text())
    async with world.director() as director:
        dump = json.loads(await config_dump(director))
    ours, theirs = dump["config"], golden["config"]
    assert ours.keys() - theirs.keys() == {"trustDomain", "metricsSeries", "registryOnly", "onlyWaypoints"}
    for key in ours.keys() & theirs.keys():
        if None not in (ours[key], theirs[key]):
            assert type(ours[key]) is type(theirs[key]), key
            if isinstance(ours[key], dict):
                assert ours[key].keys() == theirs[key].keys(), key
    for key in ("adminAddr", "inboundAddr", "illegalPorts", "packetMark", "proxyMode", "secretTtl", "statsAddr"):
        assert ours[key] == theirs[key]
    assert golden["version"].keys() <= dump["version"].keys()


@scenario
async def test_a_local_file_is_shown_in_the_form_in_which_it_is_read(world: World) -> None:
    text = """
workloads:
- {uid: u, name: bob, namespace: shop, workloadIps: [10.0.1.1], protocol: HBONE, services: {shop/web.example: {80: 81}}}
services:
- {name: web, namespace: shop, hostname: web.example, vips: [/10.96.0.1], ports: {80: 8080}}
policies:
- {name: deny, namespace: shop, scope: Namespace, action: Deny, rules: [[[{notDestinationPorts: [80]}]]]}
"""
    async with world.director() as director:
        assert json.loads(await config_dump(director))["staticConfig"] == {
            "workloads": [],
            "services": [],
            "policies": [],
        }
    world.config = replace(world.config, local_xds=text)
    async with world.director() as director:
        shown = json.loads(await config_dump(director))["staticConfig"]
    assert set(map(repr, read_local(json.dumps(shown), "dump"))) == set(map(repr, read_local(text, "text")))
    assert len(shown["workloads"]) == len(shown["services"]) == len(shown["policies"]) == 1
