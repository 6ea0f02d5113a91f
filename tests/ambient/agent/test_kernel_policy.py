"""The kernel's rows follow policies and pods, stay whole, and are nobody's when their pod is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest

from ambient.agent import kernel_policy
from ambient.agent.enrol import PodTarget
from ambient.agent.kernel_policy import LEASE_S, KernelPolicy, Pods
from ambient.datapath.deny import Table
from ambient.datapath.layout import Side
from ambient.errors import KernelError
from ambient.model.address import IpAddress
from ambient.model.deny import Guarded
from ambient.model.outcome import Denied, DryRun, Effect, Reason
from ambient.model.policy import Action, Authorization, Match, PolicyScope
from ambient.model.workload import Workload
from tests.support.agent_fakes import target, until
from tests.support.deny_tables import FakeLease, FakeTables

WEB = target("web", addresses=(ip_address("10.0.0.5"),))
TILL = target("till", addresses=(ip_address("10.0.0.6"),))
WEB_IP, TILL_IP, OUTSIDE = ip_address("10.0.0.5"), ip_address("10.0.0.6"), ip_address("10.9.9.9")


def deny(port: int, name: str = "no", *, dry_run: bool = False) -> Authorization:
    rule = ((Match(destination_ports=(port,)),),)
    return Authorization(
        name=name,
        namespace="shop",
        scope=PolicyScope.NAMESPACE,
        action=Action.DENY,
        rules=(rule,),
        dry_run=dry_run,
    )


@dataclass
class Scene:
    """What discovery and enrolment say, to be changed by a test, which then calls `rows.refresh`."""

    threads: ThreadPoolExecutor
    captured: list[PodTarget] = field(default_factory=lambda: [WEB, TILL])
    others: list[PodTarget] = field(default_factory=list)
    policies: tuple[Authorization, ...] = ()
    unknown: set[str] = field(default_factory=set)
    tables: FakeTables = field(default_factory=FakeTables)
    current: bool = True

    def __post_init__(self) -> None:
        pods = lambda: Pods(tuple(self.captured), tuple(self.others))  # noqa: E731
        self.lease = FakeLease()
        self.rows = KernelPolicy(self.tables, self.tables.sets, self.lease, self, pods, self.threads)

    def guarded(self, pod: PodTarget, /) -> tuple[Workload, Guarded] | None:
        if pod.name in self.unknown:
            return None
        workload = Workload(uid=pod.uid, name=pod.name, namespace="shop", service_account=pod.name)
        return workload, Guarded(workload.identity, self.policies)

    def tunnels_to(self, source: Workload, address: IpAddress, /) -> bool:
        return True

    def refused(self, port: int) -> tuple[bool, bool]:
        """Plain text to web; what till opens to web."""
        arriving = self.tables.refuses(WEB_IP, Side.IN, port, OUTSIDE)
        return arriving, self.tables.refuses(TILL_IP, Side.OUT, port, WEB_IP)

    def refusing(self) -> set[int]:
        """The numbers of what plain text to web is refused by."""
        return {row.rule for row in self.tables.kept[WEB_IP, Side.IN] if row.rule}


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ThreadPoolExecutor(1) as threads:
        yield Scene(threads)


def test_rows_are_vouched_for_only_while_it_is_known_what_policy_says(scene: Scene) -> None:
    scene.current = False
    scene.rows.refresh()
    assert scene.lease.renewed == []
    scene.current = True
    scene.rows.refresh()
    assert scene.lease.renewed == [LEASE_S]


def test_rows_follow_the_policies_in_both_directions(scene: Scene) -> None:
    scene.policies = (deny(80),)
    scene.rows.refresh()
    assert scene.refused(80) == (True, True)
    assert scene.refused(81) == (False, False)
    assert scene.rows.rows > 0
    scene.policies = (deny(81),)
    scene.rows.refresh()
    assert scene.refused(80) == (False, False)
    assert scene.refused(81) == (True, True)
    scene.policies = ()
    scene.rows.refresh()
    assert scene.refused(81) == (False, False)


def test_nothing_is_written_when_nothing_changed(scene: Scene) -> None:
    scene.policies = (deny(80),)
    scene.rows.refresh()
    before = scene.tables.replaced
    scene.rows.refresh()
    assert scene.tables.replaced == before


def test_rows_of_a_pod_that_leaves_go_and_nobody_refuses_what_goes_to_its_address(scene: Scene) -> None:
    scene.policies = (deny(80),)
    scene.rows.refresh()
    scene.captured = [TILL]
    scene.rows.refresh()
    assert scene.refused(80) == (False, False)
    assert not [key for key in scene.tables.kept if key[0] == WEB_IP]


def test_a_pod_on_its_way_or_not_known_keeps_the_rows_it_has(scene: Scene) -> None:
    scene.policies = (deny(80),)
    scene.rows.refresh()
    scene.captured, scene.others = [TILL], [WEB]
    scene.rows.refresh()
    assert scene.refused(80)[0]
    scene.captured, scene.others, scene.unknown = [WEB, TILL], [], {"web"}
    scene.rows.refresh()
    assert scene.refused(80)[0]


def test_what_the_kernel_does_not_take_leaves_the_last_rows_and_says_so(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.policies = (deny(80),)
    scene.rows.refresh()
    scene.tables.full, scene.policies = True, (deny(81),)
    scene.rows.refresh()
    scene.rows.refresh()
    assert scene.refused(80) == (True, True)
    assert len(scene.rows.stale) == 4
    assert caplog.text.count("the last complete rows of policy stay") == 4
    scene.tables.full = False
    scene.rows.refresh()
    assert scene.refused(81) == (True, True)
    assert not scene.rows.stale


def test_what_rows_of_an_agent_before_refuse_with_is_not_told_as_another_policys(scene: Scene) -> None:
    """Its rows are there until they are made again, and mean nothing to the next agent."""
    scene.policies = (deny(80),)
    scene.rows.refresh()
    (number,) = scene.refusing()
    assert scene.rows.denial(number) == Denied(Reason.DENIED_BY, "shop/no")
    again = Scene(scene.threads, captured=[TILL], others=[WEB], policies=(deny(80, "other"),), tables=scene.tables)
    again.rows.refresh()
    assert again.refusing() == {number}, "not made again yet"
    assert again.rows.denial(number) is None


def test_many_policies_are_made_into_rows_in_a_thread(scene: Scene) -> None:
    async def play() -> None:
        running = asyncio.create_task(scene.rows.run())
        scene.policies = tuple(deny(port, f"p{port}") for port in range(1, kernel_policy._AT_ONCE))
        scene.rows.refresh()
        assert scene.refused(80) == (False, False)
        await until(lambda: scene.refused(80) == (True, True))
        scene.policies = (deny(7777), *scene.policies[1:])
        scene.rows.refresh()
        scene.policies = (deny(8888), *scene.policies[1:])
        scene.rows.refresh()
        await until(lambda: scene.refused(8888) == (True, True))
        assert scene.refused(7777) == (False, False)
        running.cancel()

    asyncio.run(play())


@pytest.mark.parametrize("by_address", [True, False])
def test_pods_that_are_alike_share_their_rows_unless_rules_ask_for_addresses(scene: Scene, by_address: bool) -> None:
    """The last of many policies refuses what comes to web's own address, or from till's, or everything."""
    match = Match(destination_ips=(ip_network("10.0.0.5/32"),)) if by_address else Match(destination_ports=(80,))

    async def play() -> None:
        running = asyncio.create_task(scene.rows.run())
        many = tuple(deny(port, f"p{port}") for port in range(1000, 1000 + kernel_policy._AT_ONCE))
        scene.policies = (*many, replace(deny(80), rules=(((match,),),)))
        scene.rows.refresh()
        await until(lambda: not scene.rows._due)
        arriving = [scene.tables.refuses(ip, Side.IN, 80, OUTSIDE) for ip in (WEB_IP, TILL_IP)]
        leaving = (
            scene.tables.refuses(TILL_IP, Side.OUT, 80, WEB_IP),
            scene.tables.refuses(WEB_IP, Side.OUT, 80, TILL_IP),
        )
        assert arriving == [True, not by_address]
        assert leaving == (True, not by_address)
        running.cancel()

    asyncio.run(play())


def test_while_many_are_made_no_row_speaks_of_a_pod_that_is_gone(scene: Scene) -> None:
    async def play() -> None:
        running = asyncio.create_task(scene.rows.run())
        scene.policies = tuple(deny(port, f"p{port}") for port in range(1, kernel_policy._AT_ONCE))
        scene.rows.refresh()
        await until(lambda: scene.refused(80) == (True, True))
        scene.captured = [TILL]
        scene.policies = (*scene.policies, deny(9999))
        scene.rows.refresh()
        assert scene.refused(80) == (False, False)
        running.cancel()

    asyncio.run(play())


def test_an_agent_that_starts_leaves_what_is_enforced_and_begins_to_count_anew(scene: Scene) -> None:
    scene.policies = (deny(80), deny(81, "later", dry_run=True))
    scene.rows.refresh()
    (number,) = scene.refusing()
    assert scene.rows.denial(number) == Denied(Reason.DENIED_BY, "shop/no")
    scene.tables.sets.counts |= dict.fromkeys(scene.tables.sets.counts, 5)
    assert scene.rows.counts() == {
        Denied(Reason.DENIED_BY, "shop/no"): 5,
        DryRun("shop/later", Effect.WOULD_DENY): 5,
    }
    again = Scene(scene.threads, captured=[], others=[WEB, TILL], tables=scene.tables)
    again.rows.refresh()
    assert again.refused(80) == (True, True)
    again.captured, again.others, again.unknown = [WEB, TILL], [], {"web", "till"}
    again.rows.refresh()
    assert again.refused(80) == (True, True), "captured again, and no control plane has told anything yet"
    assert not [side for _, side in scene.tables.kept if side in (Side.SHADOW_IN, Side.SHADOW_OUT)]
    assert again.rows.counts() == {}


def test_an_address_beside_another_of_its_family_is_not_told_what_to_open(scene: Scene) -> None:
    scene.captured = [WEB, target("till", addresses=(TILL_IP, ip_address("10.0.0.7")))]
    scene.policies = (deny(80),)
    scene.rows.refresh()
    assert scene.refused(80) == (True, False)


def test_whatever_the_kernel_says_the_teller_of_a_change_does_not_suffer(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[Table]:
        raise KernelError("the kernel refuses a map operation", "deny", "gone")

    scene.tables.tables = broken  # type: ignore[method-assign]
    scene.rows.refresh()
    assert scene.rows.failures == 1
    assert "the kernel refuses a map operation" in caplog.text


def test_a_pod_without_policies_has_no_table_of_its_own(scene: Scene) -> None:
    scene.rows.refresh()
    assert scene.tables.kept == {}
