"""Who may join, what is kept of him, and how he goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from ambient.ca.token import Caller
from ambient.control.join import entry_of
from ambient.control.tenancies import tenancy_of
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.kube.joined import REDIRECTION, SESSION, UNHEALTHY, joined_node
from ambient.kube.networking import WorkloadGroup
from ambient.kube.objects import Records, parse_object
from ambient.model.address import parse_ip
from tests.support.joining import ADDRESS, GRACE_S, Joining, token_of

ENTRY = "ledger-192-0-2-7"
EXTERNAL: Mapping[str, object] = {
    "hosts": ["db.example.com"], "resolution": "DNS", "ports": [{"number": 1, "name": "tcp"}],
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Joining:
    made = Joining(tmp_path)
    made.group()
    return made


def _refused(work: Callable[[], Awaitable[object]]) -> MeshError:
    with pytest.raises(MeshError) as error:
        asyncio.run(work())  # type: ignore[arg-type]
    return error.value


def test_a_ticket_makes_an_entry_from_the_groups_template(world: Joining) -> None:
    world.put(
        WorkloadGroup.kind,
        "ledger",
        {
            "metadata": {"labels": {"app": "ledger"}, "annotations": {"a": "b"}},
            "template": {"serviceAccount": "ledger", "labels": {"version": "v3"}, "ports": {"http": 8080}, "weight": 2},
            "probe": {"tcpSocket": {"port": 8080}},
        },
    )
    answer = asyncio.run(world.join(world.ticket()))
    entry = world.entries()[ENTRY]
    assert (entry.endpoint.address, entry.endpoint.service_account) == (ADDRESS, "ledger")
    assert (dict(entry.endpoint.ports), entry.endpoint.weight) == ({"http": 8080}, 2)
    assert entry.merged_labels == {"app": "ledger", "version": "v3"}
    assert entry.annotations["a"] == "b"
    assert entry.annotations[UNHEALTHY], "nobody is sent to it before it said that it is well"
    assert (answer["entry"], answer["serviceAccount"]) == (ENTRY, "ledger")
    assert answer["probe"] == {"tcpSocket": {"port": 8080}}
    assert str(answer["session"]) not in str(entry.raw)


def test_a_ticket_is_spent_once_even_where_its_note_comes_back(world: Joining) -> None:
    ticket = world.ticket()
    note = world.folder.stored("WorkloadGroup/shop/ledger")
    assert note is not None
    asyncio.run(world.join(ticket))
    assert "no such ticket" in str(_refused(lambda: world.join(ticket, "192.0.2.8")))
    world.folder.put([parse_object(note, "an apply that knew the older object")])
    assert "no such ticket" in str(_refused(lambda: world.join(ticket, "192.0.2.8")))
    assert list(world.entries()) == [ENTRY]


def test_of_two_replicas_that_are_shown_one_ticket_only_one_takes_it(world: Joining) -> None:
    ticket = world.ticket()

    async def twice() -> None:
        await world.join(ticket)
        world.joins = world.control_plane()
        await world.join(ticket, "192.0.2.8")

    assert "no such ticket" in str(_refused(twice))


def test_an_expired_ticket_is_refused_and_cleared_away_by_the_next(world: Joining) -> None:
    old = world.ticket(life_s=5)
    world.now += 6
    assert "expired" in str(_refused(lambda: world.join(old)))
    asyncio.run(world.join(world.ticket()))
    raw = world.folder.stored("WorkloadGroup/shop/ledger")
    assert raw is not None
    assert "tickets.ambient.mesh" not in str(raw)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"group": "till"}, "no such ticket"),
        ({"group": "nowhere"}, "no such ticket"),
        ({"namespace": "elsewhere"}, "no such ticket"),
        ({"secret": "x" * 43}, "no such ticket"),
        ({"number": "0" * 16}, "no such ticket"),
        ({"secret": "x"}, "expected form"),
        ({"group": "../ledger"}, "expected form"),
    ],
)
def test_a_ticket_for_something_else_is_refused_and_stays_good(world: Joining, other: dict[str, str], why: str) -> None:
    world.group("till")
    ticket = world.ticket()
    assert why in str(_refused(lambda: world.join(ticket, **other)))
    assert not world.entries()
    asyncio.run(world.join(ticket))


@pytest.mark.parametrize(
    ("kind", "spec", "status"),
    [
        ("Pod", {"containers": [{"name": "c"}]}, {"phase": "Running", "podIPs": [{"ip": ADDRESS}]}),
        ("Service", {"clusterIP": ADDRESS, "clusterIPs": [ADDRESS], "ports": [{"port": 80}]}, {}),
        ("Node", {}, {"addresses": [{"type": "InternalIP", "address": ADDRESS}]}),
        ("WorkloadEntry", {"address": ADDRESS}, {}),
        ("ServiceEntry", {**EXTERNAL, "addresses": [ADDRESS]}, {}),
        ("ServiceEntry", {**EXTERNAL, "resolution": "STATIC", "endpoints": [{"address": ADDRESS}]}, {}),
        ("ServiceEntry", EXTERNAL, {"addresses": [{"host": "db.example.com", "value": ADDRESS}]}),
    ],
)
def test_nobody_joins_with_an_address_of_somebody_else(
    world: Joining, kind: str, spec: dict[str, object], status: dict[str, object]
) -> None:
    world.put(kind, "owner", spec, status=status)
    ticket = world.ticket()
    error = _refused(lambda: world.join(ticket))
    assert isinstance(error, Refused)
    assert f"is that of {kind}/" in str(error)
    asyncio.run(world.join(ticket, "192.0.2.8"))


def test_of_two_that_join_with_one_address_at_once_only_one_does(world: Joining) -> None:
    """Neither is among the objects yet when the other is looked at."""
    world.group("till")
    tickets = [world.ticket(), world.ticket("till")]

    async def both() -> None:
        world.hear = lambda: None  # type: ignore[method-assign]
        for ticket in tickets:
            await world.join(ticket)

    assert f"is that of WorkloadEntry/shop/{ENTRY}" in str(_refused(both))
    assert list(world.entries()) == [ENTRY]
    world.now += GRACE_S + 1
    asyncio.run(world.join(tickets[1]))  # the first never came, so nobody has the address


def test_the_younger_of_two_that_two_replicas_let_in_with_one_address_goes(world: Joining) -> None:
    async def scenario() -> None:
        world.group("till")
        token = token_of(await world.join(world.ticket()))
        other = world.control_plane()
        ticket = world.ticket("till")
        parts = {"namespace": "shop", "group": "till", "number": ticket.number, "secret": ticket.secret}
        world.members.records = Records()  # what a replica knows that is behind
        await other.join({**parts, "address": ADDRESS})
        world.hear()
        assert len(world.entries()) == 2
        await world.joins.sweep()
        assert list(world.entries()) == [ENTRY]
        await world.joins.beat(token, why="", captured=True)

    asyncio.run(scenario())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "169.254.1.1", "ff02::1", "::1", "host", ""])
def test_an_address_that_others_cannot_reach_is_refused(world: Joining, address: str) -> None:
    ticket = world.ticket()
    assert isinstance(_refused(lambda: world.join(ticket, address)), InvalidInput)


def test_its_token_is_its_own_nodes_until_its_entry_goes(world: Joining) -> None:
    async def scenario() -> None:
        answer = await world.join(world.ticket())
        caller = await world.members.verify(token_of(answer, "ztunnel"))
        assert caller == Caller(joined_node("shop", ENTRY), "_join", "ztunnel")
        assert (await world.members.verify("node:n1")).node == "n1"
        with pytest.raises(Refused, match="no member"):
            await world.members.verify(token_of(answer | {"session": "x" * 43}))
        await world.joins.leave(token_of(answer))
        world.hear()
        with pytest.raises(Refused, match="no member"):
            await world.members.verify(token_of(answer, "ztunnel"))

    asyncio.run(scenario())


def test_no_node_of_a_cluster_passes_for_a_machine(world: Joining) -> None:
    assert "no node of a cluster may be called" in str(
        _refused(lambda: world.members.verify(f"node:{joined_node('shop', ENTRY)}"))
    )


def test_a_machine_may_have_its_own_account_only(world: Joining) -> None:
    asyncio.run(world.join(world.ticket()))
    world.put("WorkloadEntry", "by-hand", {"address": "192.0.2.9", "serviceAccount": "other"})
    tenancies = {tenancy_of(one) for one in world.entries().values()} - {None}
    assert {(t.node, t.namespace, t.service_account) for t in tenancies} == {
        (joined_node("shop", ENTRY), "shop", "ledger")
    }


def test_signs_of_life_say_how_it_is_and_cost_a_write_only_when_that_changes_or_now_and_then(world: Joining) -> None:
    async def scenario() -> None:
        token = token_of(await world.join(world.ticket()))
        await world.joins.beat(token, why="", captured=True)
        assert UNHEALTHY not in world.entries()[ENTRY].annotations
        assert world.entries()[ENTRY].annotations[REDIRECTION] == "enabled"
        revision = world.folder.records().revision
        world.now += GRACE_S / 3
        await world.joins.beat(token, why="", captured=True)
        assert world.folder.records().revision == revision
        world.now += 1
        await world.joins.beat(token, why="", captured=True)
        assert world.folder.records().revision == revision + 1
        await world.joins.beat(token, why="HTTP status 503", captured=True)
        assert world.entries()[ENTRY].annotations[UNHEALTHY] == "HTTP status 503"

    asyncio.run(scenario())


def test_a_machine_that_says_something_else_all_the_time_costs_few_writes_and_few_reads(
    world: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        token = token_of(await world.join(world.ticket()))
        revision, read, reads = world.folder.records().revision, world.store.read, [0]

        async def counted(kind: str, namespace: str, name: str) -> dict[str, object] | None:
            reads[0] += 1
            return await read(kind, namespace, name)

        monkeypatch.setattr(world.store, "read", counted)
        refused = 0
        for number in range(6000):
            world.now += 0.01
            try:
                await world.joins.beat(token, why=f"reason {number}", captured=True)
            except Unavailable:
                refused += 1
        assert world.folder.records().revision - revision <= 12, "in a minute"
        assert reads[0] == 6000 - refused <= 50
        world.now += GRACE_S
        await world.joins.beat(token, why="the last", captured=True)
        assert world.entries()[ENTRY].annotations[UNHEALTHY] == "the last", "and what he says at last is written"

    asyncio.run(scenario())


@pytest.mark.parametrize("token", ["", "node:n1", "ambient-join:join:shop:ledger-192-0-2-7:" + "x" * 43])
def test_who_is_no_member_can_neither_live_nor_leave(world: Joining, token: str) -> None:
    asyncio.run(world.join(world.ticket()))
    assert isinstance(_refused(lambda: world.joins.beat(token, why="", captured=True)), Refused)
    assert isinstance(_refused(lambda: world.joins.leave(token)), Refused)
    assert list(world.entries()) == [ENTRY]


def test_a_flood_of_strangers_reaches_the_store_a_few_at_a_time_and_members_are_heard(
    world: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        token = token_of(await world.join(world.ticket()))
        read, asked, answering = world.store.read, [0], asyncio.Event()

        async def slow(kind: str, namespace: str, name: str) -> dict[str, object] | None:
            if name == ENTRY:
                return await read(kind, namespace, name)
            asked[0] += 1
            await answering.wait()
            return None

        monkeypatch.setattr(world.store, "read", slow)
        unknown = "ambient-join:join:shop:nobody:" + "x" * 43
        flood = [asyncio.create_task(world.joins.beat(unknown, why="", captured=True)) for _ in range(100)]
        await asyncio.sleep(0)
        await world.joins.beat(token, why="", captured=True)
        assert 0 < asked[0] < 20
        answering.set()
        assert all(isinstance(one, Refused) for one in await asyncio.gather(*flood, return_exceptions=True))
        assert asked[0] == 100

    asyncio.run(scenario())


def test_a_silent_machine_is_removed_after_the_grace_and_one_that_speaks_is_not(world: Joining) -> None:
    async def scenario() -> None:
        token = token_of(await world.join(world.ticket()))
        await world.join(world.ticket(), "192.0.2.8")
        world.now += GRACE_S - 1
        await world.joins.beat(token, why="", captured=True)
        world.now += 2
        world.hear()
        await world.joins.sweep()
        assert list(world.entries()) == [ENTRY]

    asyncio.run(scenario())


def test_a_control_plane_that_was_away_waits_for_signs_of_life_before_it_judges(world: Joining) -> None:
    async def scenario() -> None:
        await world.join(world.ticket())
        world.now += 10 * GRACE_S
        world.joins = world.control_plane()
        await world.joins.sweep()
        assert list(world.entries()) == [ENTRY]
        world.now += GRACE_S
        await world.joins.sweep()
        assert not world.entries()

    asyncio.run(scenario())


@pytest.mark.parametrize("who_notices", ["the sweep", "a sign of life"])
def test_while_the_store_was_away_nobody_was_silent(
    world: Joining, monkeypatch: pytest.MonkeyPatch, who_notices: str
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("the store", why="is away")

    async def scenario() -> None:
        token = token_of(await world.join(world.ticket()))
        world.now += 10 * GRACE_S
        noticing = world.joins.sweep() if who_notices == "the sweep" else world.joins.beat(token, why="", captured=True)
        with monkeypatch.context() as outage:
            outage.setattr(world.store, "read", away)
            with pytest.raises(Unavailable):
                await noticing
        world.now += GRACE_S - 1
        await world.joins.sweep()
        assert list(world.entries()) == [ENTRY], "its sign of life is on its way"
        world.now += 1
        await world.joins.sweep()
        assert not world.entries(), "silent although it could be heard"

    asyncio.run(scenario())


def test_what_is_no_digest_admits_nobody(world: Joining) -> None:
    answer = asyncio.run(world.join(world.ticket()))
    raw = world.folder.stored(f"WorkloadEntry/shop/{ENTRY}")
    assert raw is not None
    annotations = {**raw["metadata"]["annotations"], SESSION: "ü"}
    world.folder.put([parse_object({**raw, "metadata": {**raw["metadata"], "annotations": annotations}}, "test")])
    world.hear()
    assert isinstance(_refused(lambda: world.joins.beat(token_of(answer), why="", captured=True)), Refused)
    assert isinstance(_refused(lambda: world.members.verify(token_of(answer, "ztunnel"))), Refused)


def test_what_a_sweep_read_late_is_looked_at_again_before_it_is_removed(world: Joining) -> None:
    async def scenario() -> None:
        token = token_of(await world.join(world.ticket()))
        world.now += GRACE_S + 1
        await world.joins.beat(token, why="", captured=True)
        await world.joins.sweep()  # knows the objects from before
        assert list(world.entries()) == [ENTRY]

    asyncio.run(scenario())


def test_entries_made_by_hand_are_never_removed(world: Joining) -> None:
    world.put("WorkloadEntry", "by-hand", {"address": "192.0.2.9"})
    world.now += 100 * GRACE_S
    asyncio.run(world.joins.sweep())
    assert list(world.entries()) == ["by-hand"]


def test_an_ipv6_address_makes_a_name_too() -> None:
    raw = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "spec": {"template": {}}}
    group = parse_object({**raw, "metadata": {"name": "g", "namespace": "shop", "uid": "u"}}, "test")
    assert isinstance(group, WorkloadGroup)
    entry = entry_of(group, parse_ip("2001:db8::7"), "s" * 43, 0)
    assert entry["metadata"]["name"] == "g-2001-db8-7"
    assert entry["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert entry["spec"]["serviceAccount"] == "default"
    assert SESSION in entry["metadata"]["annotations"]
    parse_object(entry, "test")
