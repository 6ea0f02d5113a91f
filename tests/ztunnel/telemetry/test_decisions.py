"""What policy decided is counted by policy and, when asked, logged."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from ambient.model.outcome import Allowed, Connection, Denied, DryRun, Effect, Reason
from tests.support.builders import connection
from ztunnel.telemetry.access_log import LogWriter
from ztunnel.telemetry.decisions import Decisions
from ztunnel.telemetry.recorder import Recorder

DENIED = Denied(Reason.DENIED_BY, "shop/no")
WOULD = (DryRun("shop/soon", Effect.WOULD_DENY), DryRun("shop/then", Effect.WOULD_ALLOW))


@dataclass
class Told:
    lines: list[str]
    recorder: Recorder


def tell(given: Connection, *verdicts: Allowed | Denied, info: bool = False, level: str = "info") -> Told:
    read, write = os.pipe()
    log = LogWriter(write, soon=lambda flush: None, later=lambda _, flush: None, clock=lambda: 0.0)
    log.set_level(level)
    recorder = Recorder(log)
    for verdict in verdicts:
        Decisions(recorder, lambda: info).tell(given, verdict, WOULD)
    log.flush()
    os.close(write)
    with os.fdopen(read) as lines:
        return Told(lines.read().splitlines(), recorder)


def test_denials_and_dry_runs_are_counted_by_policy() -> None:
    told = tell(connection(), DENIED, DENIED, Allowed(Reason.ALLOWED_BY, "shop/yes"))
    counters = told.recorder.counters
    assert counters.value('policy_denials{policy="shop/no",reason="denied-by"}') == 2
    assert counters.value('policy_dry_runs{policy="shop/soon",effect="would-deny"}') == 3
    assert counters.value('policy_dry_runs{policy="shop/then",effect="would-allow"}') == 3
    assert counters.value('policy_denials{policy="shop/yes",reason="allowed-by"}') == 0
    assert told.lines == []


@pytest.mark.parametrize(("policy", "label"), [("", "none"), ('x"} 1', "unprintable"), ("a,b=c", "unprintable")])
def test_a_name_cannot_break_out_of_its_label(policy: str, label: str) -> None:
    told = tell(connection(), Denied(Reason.NOT_ITS_WAYPOINT, policy))
    assert told.recorder.counters.value(f'policy_denials{{policy="{label}",reason="not-its-waypoint"}}') == 1


@pytest.mark.parametrize(("info", "level", "shown"), [(False, "info", 0), (False, "debug", 3), (True, "info", 3)])
def test_decisions_are_logged_at_debug_or_when_asked_at_info(info: bool, level: str, shown: int) -> None:
    assert len(tell(connection(), DENIED, info=info, level=level).lines) == shown


def test_a_line_names_both_ends_the_policy_and_the_reason() -> None:
    soon, then, decided = tell(connection(), DENIED, info=True).lines
    ends = (
        'src.addr=10.0.0.9 src.identity="spiffe://cluster.local/ns/default/sa/client" dst.addr=10.0.0.1 dst.port=8080'
    )
    assert soon.endswith(f'info\trbac\tdry run: would be denied\t{ends} policy="shop/soon"')
    assert then.endswith(f'dry run: would be allowed\t{ends} policy="shop/then"')
    assert decided.endswith(f'denied\t{ends} policy="shop/no" reason="denied-by"')
    plain = tell(connection(peer=None), Allowed(Reason.NO_ALLOW_POLICY), info=True).lines[-1]
    assert plain.endswith('allowed\tsrc.addr=10.0.0.9 dst.addr=10.0.0.1 dst.port=8080 reason="no-allow-policy"')
