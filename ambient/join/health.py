"""Whether the workload is well: its group's readiness probe, tried against its address or by a command.

A probe runs on the machine, not in the workload's namespace; commands too, as root: so whoever may change the group
would rule the machine. They are run only where the machine's owner has said so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube.objects import Pod, Probe, parse_object
from ambient.lab.kubelet.probe import Verdict, attempt
from ambient.model.address import IpAddress

UNPROBED: Final = "was not probed yet"
NO_COMMANDS: Final = "its group's probe is a command, which this machine does not run (--allow-probe-commands)"

_log = logging.getLogger("ambient.join.health")


def read_probe(raw: Mapping[str, Any]) -> tuple[Probe, tuple[str, ...]] | None:
    """The probe of a WorkloadGroup, and the command of an `exec` one; None where there is none. Raises InvalidInput."""
    if not raw:
        return None
    command: tuple[str, ...] = ()
    if "exec" in raw:
        words = (raw["exec"] or {}).get("command") if isinstance(raw["exec"], Mapping) else None
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise InvalidInput("probe", "exec.command", "expected a list of words")
        command = tuple(words)
        raw = {**{key: value for key, value in raw.items() if key != "exec"}, "tcpSocket": {"port": 1}}
    container = {"name": "workload", "readinessProbe": dict(raw)}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "workload"}, "spec": {"containers": [container]}}
    record = parse_object(pod, "probe")
    assert isinstance(record, Pod)
    probe = record.containers[0].readiness
    assert probe is not None
    return probe, command


class Health:
    """`why` is "" while the workload is well. `changed` is called at each change."""

    def __init__(
        self, raw: Mapping[str, Any], ip: IpAddress, changed: Callable[[], None], *, commands: bool = False
    ) -> None:
        """`commands`: a probe may be one. Where it may not the workload is not well, and says why."""
        self._probe = read_probe(raw)
        self._commands = commands
        self._ip = ip
        self._changed = changed
        self.why = UNPROBED if self._probe else ""

    async def run(self) -> None:
        """Probe until cancelled; returns at once where there is no probe: then it counts as well."""
        if self._probe is None:
            return
        probe, command = self._probe
        if command and not self._commands:
            self.why = NO_COMMANDS
            _log.error("the workload counts as not well: %s", NO_COMMANDS)
            self._changed()
            return
        verdict = Verdict(False)
        await asyncio.sleep(probe.initial_delay_s)
        while True:
            failure = await (_run(command, probe.timeout_s) if command else attempt(probe, self._ip))
            verdict = verdict.after(not failure, probe)
            why = "" if verdict.passed else failure or self.why
            if why != self.why:
                self.why = why
                _log.info("the workload is %s", f"not well: {why}" if why else "well")
                self._changed()
            await asyncio.sleep(probe.period_s)


async def _run(command: tuple[str, ...], timeout_s: float) -> str:
    """ "" when it ends with 0 in time, else why not."""
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{command[0]}: did not end within {timeout_s:g} s"
    return f"{command[0]}: exit code {code}" if code else ""
