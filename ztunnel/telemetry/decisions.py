"""What policy decided about connections, as counters and log lines: verdicts, and what dry runs would have done."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ambient.model.outcome import Connection, Denied, DryRun, Effect, Verdict
from ztunnel.telemetry.fields import Field, bare
from ztunnel.telemetry.recorder import Recorder

SCOPE: Final = "rbac"
_SAFE: Final = re.compile(r"[\w./-]+", re.ASCII)


class Decisions:
    """`info()`: lines have level info instead of debug. Every counter and line is of a connection's first judgement;
    what a change of policy ends is in the access log."""

    __slots__ = ("_info", "_recorder")

    def __init__(self, recorder: Recorder, info: Callable[[], bool]) -> None:
        self._recorder = recorder
        self._info = info

    def tell(self, connection: Connection, verdict: Verdict, dry_runs: tuple[DryRun, ...]) -> None:
        """Of one connection."""
        counters, log = self._recorder.counters, self._recorder.log
        if isinstance(verdict, Denied):
            counters.count(f'policy_denials{{policy="{_label(verdict.policy)}",reason="{verdict.reason}"}}')
        for dry_run in dry_runs:
            counters.count(f'policy_dry_runs{{policy="{_label(dry_run.policy)}",effect="{dry_run.effect}"}}')
        level = "info" if self._info() else "debug"
        if not log.enabled(level, SCOPE):
            return
        fields = _fields(connection)
        for dry_run in dry_runs:
            word = "denied" if dry_run.effect is Effect.WOULD_DENY else "allowed"
            log.log(level, SCOPE, f"dry run: would be {word}", [*fields, ("policy", dry_run.policy)])
        decided: list[Field] = [("policy", verdict.policy)] if verdict.policy else []
        word = "denied" if isinstance(verdict, Denied) else "allowed"
        log.log(level, SCOPE, word, [*fields, *decided, ("reason", str(verdict.reason))])


def _fields(connection: Connection) -> list[Field]:
    fields: list[Field] = [("src.addr", bare(str(connection.source_ip)))]
    if connection.peer is not None:
        fields.append(("src.identity", str(connection.peer)))
    return [*fields, ("dst.addr", bare(str(connection.destination_ip))), ("dst.port", connection.destination_port)]


def _label(policy: str) -> str:
    """A name that cannot break out of the label; "" (no policy decided) says so."""
    return policy if _SAFE.fullmatch(policy) else "none" if not policy else "unprintable"
