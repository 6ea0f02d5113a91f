"""`ambient certs`: the certificates each node holds and how long they are good for."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from ambient.cli.env import Env, Exit
from ambient.cli.gather import chosen, dump_of, node_option
from ambient.cli.table import output_option, show

TITLES = ("NODE", "IDENTITY", "STATE", "TYPE", "SERIAL", "NOT BEFORE", "NOT AFTER", "LEFT")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
    rows: list[dict[str, object]] = []
    document = []
    for node in chosen(reach, args.node):
        for entry in dump_of(reach, node).entries("certificates"):
            document.append({"node": node, **entry})
            common = {"NODE": node, "IDENTITY": entry.get("identity"), "STATE": entry.get("state")}
            chain = [
                *(("leaf" if not n else "intermediate", c) for n, c in enumerate(entry.get("certChain") or [])),
                *(("root", c) for c in entry.get("rootCerts") or []),
            ]
            rows += [common | _row(env, kind, certificate) for kind, certificate in chain] or [common]
    show(env, args.output, TITLES, rows, document)
    return Exit.OK


def _row(env: Env, kind: str, certificate: dict[str, Any]) -> dict[str, object]:
    serial = str(certificate.get("serialNumber", ""))
    return {
        "TYPE": kind,
        "SERIAL": hexadecimal(serial),
        "NOT BEFORE": certificate.get("validFrom"),
        "NOT AFTER": certificate.get("expirationTime"),
        "LEFT": left(str(certificate.get("expirationTime", "")), env.now()),
    }


def hexadecimal(serial: str) -> str:
    """A decimal serial as other tools write it, for searching: whole octets, so with the zero of a small first one."""
    if not serial.isascii() or not serial.isdigit():
        return serial
    digits = f"{int(serial):x}"
    return digits.zfill(len(digits) + len(digits) % 2)


def left(not_after: str, now: float) -> str:
    """How long until an RFC 3339 instant, in its two largest units; "expired" when it is over."""
    try:
        seconds = int(datetime.fromisoformat(not_after.replace("Z", "+00:00")).astimezone(UTC).timestamp() - now)
    except ValueError:
        return ""
    if seconds <= 0:
        return "expired"
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{minutes}m" if hours else f"{minutes}m{seconds % 60}s"
