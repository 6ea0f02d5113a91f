"""Probes: what counts as success, when a threshold is passed, and the HTTP or TCP attempt itself.

`Verdict` is pure. `attempt` runs in the node's network namespace, so a probe comes from the node's address.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ambient.kube.objects import HttpGet, Probe, TcpSocket
from ambient.model.address import IpAddress

_MAX_HEAD: Final = 16384


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a probe stands: `passed` is the current state, `streak` counts equal results that contradict it."""

    passed: bool
    streak: int = 0

    def after(self, success: bool, probe: Probe) -> Verdict:
        """The state after one more result: it flips when enough results in a row say so."""
        if success == self.passed:
            return Verdict(self.passed)
        needed = probe.success_threshold if success else probe.failure_threshold
        if self.streak + 1 >= needed:
            return Verdict(success)
        return Verdict(self.passed, self.streak + 1)


async def attempt(probe: Probe, ip: IpAddress) -> str:
    """One try; "" is success, else the reason of the failure."""
    action = probe.action
    host = action.host or str(ip)
    try:
        async with asyncio.timeout(probe.timeout_s):
            if isinstance(action, TcpSocket):
                _, writer = await asyncio.open_connection(host, action.port)
                await _close(writer)
                return ""
            return await _http(action, host)
    except TimeoutError:
        return f"no answer within {probe.timeout_s} s"
    except (OSError, ValueError, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
        return str(error) or type(error).__name__


async def _http(action: HttpGet, host: str) -> str:
    context = None
    if action.scheme == "HTTPS":
        # As the kubelet does: the certificate is not verified.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, action.port, ssl=context, limit=_MAX_HEAD)
    try:
        shown = f"[{host}]" if ":" in host else host
        headers = {"Host": f"{shown}:{action.port}", "User-Agent": "kube-probe/ambient", "Accept": "*/*"}
        named = {name.lower(): name for name in headers}
        for name, value in action.headers:
            headers[named.get(name.lower(), name)] = value
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {action.path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode("latin-1", "replace"))
        status = await reader.readuntil(b"\n")
        parts = status.split()
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            return "not an HTTP answer"
        code = int(parts[1])
        return "" if 200 <= code < 400 else f"HTTP status {code}"
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, asyncio.TimeoutError):
        await writer.wait_closed()
