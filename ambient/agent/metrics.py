"""The agent's metrics: what the kernel counted, what the agent did, rendered as Prometheus text. No I/O of its own."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ambient.agent.flow_totals import FlowTotals
from ambient.datapath.layout import Counter
from ambient.model.outcome import Denied, DryRun

_FAMILIES: Final = (
    ("REFUSED_", "refused", "New connections and packets that the datapath refused, by reason."),
    (
        "PASSED_OPEN_",
        "passed_open",
        "New connections that went on directly because ztunnel did not listen, by direction.",
    ),
    (
        "CLEAR_",
        "clear_text",
        "Packets with data that passed a pod in the clear without leave. Should be 0.",
    ),
    ("EVENT_", "events_untold", "Events of single packets and flows that were not told; no total lacks them."),
    ("FLOW_", "flow_losses", "Times that the totals of flows lack something, by reason. Should be 0."),
    (
        "BEYOND_SHARE_",
        "beyond_share",
        "Times that a pod had used up its share: new connections that took the tunnel instead of the kernel path"
        " (direct), additions to totals without their other end (flows), talks kept apart from the others' (talks).",
    ),
    (
        "LAPSED_",
        "lapsed",
        "New connections that only ztunnel judged, as no agent had vouched for the kernel's rows for minutes.",
    ),
    (
        "LISTENER_",
        "listeners",
        "Listeners of ztunnel that found no place under a name (unnamed), and opening packets for which none was left"
        " to note whose they are (full): connections come late. Should be 0.",
    ),
    ("FORGED_", "forged", "Packets that carried a mark they had no right to; they were treated like any other."),
)
_CAPTURED: Final = ("captured", "New connections, name queries and probes that the datapath told apart, by kind.")


@dataclass(slots=True)
class Tally:
    """What this agent did since it started."""

    cut: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    cni: collections.Counter[str] = field(default_factory=collections.Counter)

    talks_untold: int = 0

    def count_cut(self, why: str, number: int) -> None:
        self.cut[why] = self.cut.get(why, 0) + number

    def count_repair(self, what: str) -> None:
        self.repairs[what] = self.repairs.get(what, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that is rendered, at one moment."""

    counters: Mapping[Counter, int]
    pods_by_state: Mapping[str, int]
    older: int
    proxies: int
    secrets: int
    policies_known: bool
    policy_rows: int
    policy_stale: int
    policy_failures: int
    judged: Mapping[Denied | DryRun, int]
    failures: int
    tally: Tally
    flows: FlowTotals


def datapath_series(counters: Mapping[Counter, int]) -> dict[str, dict[str, int]]:
    """Family ("refused", ...) -> reason -> count, of every counter there is: none where no programs run."""
    series: dict[str, dict[str, int]] = {_CAPTURED[0]: {}, **{family: {} for _, family, _ in _FAMILIES}}
    for counter in counters:
        family, reason = _CAPTURED[0], counter.name
        for prefix, name, _ in _FAMILIES:
            if counter.name.startswith(prefix):
                family, reason = name, counter.name.removeprefix(prefix)
        series[family][reason.lower()] = counters[counter]
    return series


def render(reading: Reading) -> str:
    lines: list[str] = []
    helps = {_CAPTURED[0]: _CAPTURED[1], **{family: text for _, family, text in _FAMILIES}}
    for family, by_reason in datapath_series(reading.counters).items():
        lines += _family(f"ambient_datapath_{family}_total", helps[family], "counter", "reason", by_reason)
    states = reading.pods_by_state
    lines += _family("ambient_agent_pods", "Pods of the node by enrolment state.", "gauge", "state", states)
    lines += _family(
        "ambient_agent_connections_cut_total",
        "Connections older than the enrolment that were ended.",
        "counter",
        "why",
        reading.tally.cut,
    )
    lines += _family(
        "ambient_agent_repairs_total",
        "Times that something of ours on the node was missing or changed and was put back.",
        "counter",
        "what",
        reading.tally.repairs,
    )
    lines += _judged(reading.judged)
    lines += _family(
        "ambient_agent_cni_answers_total",
        "What the container runtime's calls were answered, by command.",
        "counter",
        "answer",
        reading.tally.cni,
    )
    for name, text, kind, value in (
        ("ambient_agent_enrolment_failures_total", "Failed attempts to move a pod.", "counter", reading.failures),
        (
            "ambient_agent_older_connections",
            "Open connections older than their pod's enrolment.",
            "gauge",
            reading.older,
        ),
        ("ambient_agent_secrets_in_custody", "Key descriptors kept for ztunnel.", "gauge", reading.secrets),
        (
            "ambient_agent_policies_known",
            "1 when discovery has told the policies.",
            "gauge",
            int(reading.policies_known),
        ),
        ("ambient_agent_policy_rows", "Rows of policy that the kernel refuses by.", "gauge", reading.policy_rows),
        (
            "ambient_agent_policy_stale_tables",
            "Tables of policy that the kernel did not take: the last complete ones are in force. Should be 0.",
            "gauge",
            reading.policy_stale,
        ),
        (
            "ambient_agent_policy_failures_total",
            "Attempts to bring the kernel's rows of policy up to date that failed.",
            "counter",
            reading.policy_failures,
        ),
        (
            "ambient_agent_talks_untold_total",
            "Talks (UDP, ICMP) whose end is not told singly, as their pod had too many at once; the totals have them.",
            "counter",
            reading.tally.talks_untold,
        ),
        ("ztunnel_connected", "Number of connections to ztunnel.", "gauge", reading.proxies),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
    lines += reading.flows.series()
    return "\n".join(lines) + "\n"


def _judged(judged: Mapping[Denied | DryRun, int]) -> Iterable[str]:
    denials = {one: count for one, count in judged.items() if isinstance(one, Denied)}
    dry_runs = {one: count for one, count in judged.items() if isinstance(one, DryRun)}
    name = "ambient_policy_denials_total"
    yield f"# HELP {name} New connections that the kernel refused, by policy and reason."
    yield f"# TYPE {name} counter"
    yield from sorted(
        f'{name}{{policy="{one.policy}",reason="{one.reason}"}} {count}' for one, count in denials.items()
    )
    name = "ambient_policy_dry_runs_total"
    yield f"# HELP {name} New connections that the kernel judged and a dry-run policy matches, by what it would do."
    yield f"# TYPE {name} counter"
    yield from sorted(
        f'{name}{{policy="{one.policy}",effect="{one.effect}"}} {count}' for one, count in dry_runs.items()
    )


def _family(name: str, text: str, kind: str, label: str, values: Mapping[str, int]) -> Iterable[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for key, value in sorted(values.items()):
        yield f'{name}{{{label}="{key}"}} {value}'
