"""Scale: judging one connection against few and many policies, and the memory of a node that knows many workloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from time import perf_counter_ns, thread_time_ns
from typing import Any, Final

from ambient.kube.objects import Record, parse_object
from ambient.lab.sync import wait_acknowledged
from ambient.model.decide import PolicyIndex
from ambient.model.identity import Identity
from ambient.model.outcome import Allowed, Connection
from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from bench.process import memory, role
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import World

FEW: Final = 10
MANY: Final = 10_000
RULES: Final = 10
WORKLOADS: Final = 10_000
_BATCH: Final = 20_000
_PER_NODE: Final = 100


def policies(count: int) -> list[Authorization]:
    """`count` policies of ten rules: one in ten refuses by address range and port, the others allow principals."""
    found = []
    for number in range(count):
        deny = number % 10 == 0
        rules = []
        for rule in range(RULES):
            at = number * RULES + rule
            if deny:
                network = ip_network(f"172.{16 + at // 65536 % 16}.{at // 256 % 256}.{at % 256}/32")
                match = Match(source_ips=(network,), destination_ports=(1 + at % 60_000,))
            else:
                name = f"cluster.local/ns/team-{at % 500}/sa/app-{at}"
                match = Match(principals=(StringMatch(StringMatchKind.EXACT, name),), destination_ports=(8080,))
            rules.append(((match,),))
        action = Action.DENY if deny else Action.ALLOW
        scope = PolicyScope.WORKLOAD_SELECTOR
        found.append(Authorization(name=f"p{number}", namespace="shop", scope=scope, action=action, rules=tuple(rules)))
    return found


def connections(count: int) -> dict[str, Connection]:
    """One that the last policy allows, one that nothing allows, one without identity."""
    source, destination = ip_address("10.1.2.3"), ip_address("10.1.2.4")
    last = count * RULES - 1
    allowed = Identity("cluster.local", f"team-{last % 500}", f"app-{last}")
    return {
        "allowed by the last": Connection(source, destination, 8080, allowed),
        "allowed by none": Connection(source, destination, 8080, Identity("cluster.local", "other", "stranger")),
        "without identity": Connection(source, destination, 8080, None),
    }


@dataclass(frozen=True, slots=True)
class Judging:
    """Microseconds per judgement against FEW and MANY policies, and MANY over FEW."""

    connection: str
    few_us: float
    many_us: float
    ratio: Ratio


def judging(rounds: int) -> list[Judging]:
    """Alternates between the two indexes, `rounds` times for each kind of connection."""
    few, many = PolicyIndex(policies(FEW)), PolicyIndex(policies(MANY))
    found = []
    for kind, of_few in connections(FEW).items():
        of_many = connections(MANY)[kind]
        assert isinstance(few.judge(of_few), Allowed) == isinstance(many.judge(of_many), Allowed)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds + 1):
            times[0].append(_time(few.judge, of_few))
            times[1].append(_time(many.judge, of_many))
        few_us, many_us = times[0][1:], times[1][1:]
        found.append(Judging(kind, middle_of(few_us), middle_of(many_us), paired_ratio(many_us, few_us)))
    return found


def _time(judge: Callable[[Connection], object], connection: Connection) -> float:
    begun = thread_time_ns()
    for _ in range(_BATCH):
        judge(connection)
    return (thread_time_ns() - begun) / _BATCH / 1000


def pods(count: int) -> list[Record]:
    """Running, enrolled pods on nodes that exist on paper only."""
    found = []
    for number in range(count):
        ip = f"100.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
        raw: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"app-{number}",
                "namespace": "paper",
                "uid": f"paper-{number}",
                "labels": {"app": f"app-{number % 1000}", "version": "v1"},
                "annotations": {"ambient.istio.io/redirection": "enabled"},
            },
            "spec": {
                "nodeName": f"paper-{number // _PER_NODE}",
                "serviceAccountName": "default",
                "containers": [{"name": "main", "command": ["true"]}],
            },
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "100.127.0.1"},
        }
        found.append(parse_object(raw, "bench"))
    return found


def knowing(world: World, count: int = WORKLOADS) -> dict[str, Any]:
    """PSS of every process of the mesh before and after `count` workloads became known to it, in KiB, by role."""
    before = _sizes(world)
    raw = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "paper", "labels": {"istio.io/dataplane-mode": "ambient"}},
    }
    begun = perf_counter_ns()
    with world.lab.locked():
        world.lab.folder.put([parse_object(raw, "bench"), *pods(count)])
    wait_acknowledged(world.lab, 120.0)
    seconds = (perf_counter_ns() - begun) / 1e9
    return {"workloads": count, "seconds": round(seconds, 1), "before": before, "after": _sizes(world)}


def _sizes(world: World) -> dict[str, int]:
    found: dict[str, int] = {}
    for pid in [*world.ztunnel_pids(), *world.agent_pids()]:
        size = memory(pid)
        if size is not None:
            found[role(pid)] = max(found.get(role(pid), 0), size.pss)
    return found
