"""The kernel path's tables, knowledge and sockets without a kernel, for unit tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import Capture, PodTarget
from ambient.datapath.direct import Call, Ends, Tuple, Way
from ambient.datapath.layout import WayFlag
from ambient.errors import KernelError
from ambient.model.address import Endpoint, IpAddress
from ambient.model.outcome import Allowed, Connection, Forward, Hop, Plan, Reason, Verdict
from ambient.model.workload import Workload

CLIENT, SERVER = ip_address("10.0.0.4"), ip_address("10.0.0.5")
CALL = Call(CLIENT, Endpoint(SERVER, 80))
ONE = Tuple(Endpoint(CLIENT, 40_000), CALL.dialled)
ENDS = Ends(ONE, 1.0, 0, 0)


def pod(name: str, ip: IpAddress, *, direct: bool = True, state: State = State.ENROLLED) -> Tracked:
    target = PodTarget(
        uid=name, namespace="shop", name=name, service_account=name, addresses=(ip,), capture=Capture(direct=direct)
    )
    return Tracked(target, state)


@dataclass
class FakeDirect:
    """direct.h in memory."""

    granted: dict[Call, Endpoint] = field(default_factory=dict)
    asked: list[Call] = field(default_factory=list)
    lease_s: float = 0.0
    found: dict[Tuple, Way] = field(default_factory=dict)
    refuse_revoking: bool = False
    began: dict[IpAddress, int] = field(default_factory=dict)
    room: dict[IpAddress, int] = field(default_factory=dict)

    def grant(self, call: Call, server: Endpoint) -> None:
        self.granted[call] = server

    def revoke(self, calls: Collection[Call]) -> None:
        if self.refuse_revoking:
            raise KernelError("the kernel refuses a map operation", "direct_grants")
        for call in calls:
            self.granted.pop(call, None)

    def grants(self) -> list[Call]:
        return [*self.granted]

    def take_asks(self) -> list[Call]:
        asked, self.asked = self.asked, []
        return asked

    def renew(self, seconds: float) -> None:
        self.lease_s = seconds

    def ways(self) -> Mapping[Tuple, Way]:
        return dict(self.found)

    def cut(self, tuples: Collection[Tuple]) -> None:
        for one in tuples:
            self.found[one] = self.found[one]._replace(flags=self.found[one].flags | WayFlag.CUT)

    def forget(self, tuples: Collection[Tuple]) -> None:
        for one in tuples:
            self.found.pop(one, None)

    def made(self) -> Mapping[IpAddress, int]:
        return dict(self.began)

    def give_room(self, room: Mapping[IpAddress, int]) -> None:
        for ip, until in room.items():
            self.began.setdefault(ip, 0)
            self.room[ip] = until

    def take_room(self, clients: Collection[IpAddress]) -> None:
        for ip in clients:
            del self.began[ip], self.room[ip]

    def pass_by(self, one: Tuple = ONE, *, at: float, there: int = 0, back: int = 0, flags: int = 0) -> None:
        """The connection as the programs have it at some moment: so many bytes so far, these flags in both ways."""
        opened = self.found[one].opened_s if one in self.found else at
        self.found[one] = Way(opened, at, there, 1, WayFlag.CLIENT | flags)
        self.found[one.reverse] = Way(opened, at, back, 1, flags)


@dataclass
class FakeKnowledge:
    """Everybody is known, and reaches everybody in a tunnel, as long as nothing is changed here."""

    current: bool = True
    known: bool = True
    plan: Plan | None = None
    expected: tuple[str, ...] = ("spiffe://cluster.local/ns/shop/sa/server",)
    verdict: Verdict = field(default_factory=lambda: Allowed(Reason.NO_ALLOW_POLICY))
    judged: list[Connection] = field(default_factory=list)
    workload: Workload = field(default_factory=lambda: Workload(uid="", name="", namespace="shop", service_account=""))

    def workload_of(self, pod: PodTarget) -> Workload | None:
        found = replace(self.workload, uid=pod.uid, name=pod.name, service_account=pod.service_account)
        return found if self.known else None

    def plan_of(self, pod: PodTarget, dialled: Endpoint) -> tuple[Workload, Plan] | None:
        workload = self.workload_of(pod)
        plan = self.plan or Forward((Hop(str(dialled.ip), 15008, str(dialled), self.expected),))
        return None if workload is None else (workload, plan)

    def judge_of(self, _pod: PodTarget) -> Callable[[Connection], Verdict] | None:
        return self._judge if self.known else None

    def _judge(self, connection: Connection) -> Verdict:
        self.judged.append(connection)
        return self.verdict


@dataclass
class FakeSockets:
    """`there`: the connections whose sockets live on however often they are ended."""

    there: set[Tuple] = field(default_factory=set)
    ended: list[Tuple] = field(default_factory=list)
    forgotten: list[Tuple] = field(default_factory=list)

    def end(self, ends: Ends) -> bool:
        self.ended.append(ends.tuple)
        return ends.tuple not in self.there

    def gone(self, ends: Ends) -> bool:
        return ends.tuple not in self.there

    def forget(self, one: Tuple) -> None:
        self.forgotten.append(one)
