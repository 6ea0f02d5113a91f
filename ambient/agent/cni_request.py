"""What the CNI plugin asks the agent, and the answer: framing and parsing, at the border.

The frame is described in `daemonset/cni/ambient-cni.c`. Fields come from the container runtime as CNI's specification
(1.1.0, "Section 2: Execution Protocol") has them. Does no I/O.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.model.address import IpAddress, parse_ip

MAGIC: Final = b"AMBCNI1\n"
FIELDS: Final = 6
LARGEST_FIELD: Final = 4 << 20
LONGEST_MESSAGE: Final = 4000
GO_ON: Final = 0
TRY_AGAIN_LATER: Final = 11
NOT_AS_IT_SHOULD_BE: Final = 101
DEFAULT_TIMEOUT_S: Final = 30.0

_COMMANDS: Final = frozenset({"ADD", "DEL", "CHECK"})


@dataclass(frozen=True, slots=True)
class PodName:
    """The pod as the runtime names it. `uid` "" when the runtime does not tell it."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`pod` is None for containers that are not Kubernetes'. `addresses`: what the plugins before gave `interface` in
    the pod. `timeout_s`: how long the plugin waits for an answer."""

    command: str
    container: str
    netns: str
    interface: str
    pod: PodName | None
    addresses: tuple[IpAddress, ...] = ()
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Answer:
    """`code` is a CNI error code, GO_ON for none."""

    code: int
    message: str = ""


PASS: Final = Answer(GO_ON)


def encode_answer(answer: Answer) -> bytes:
    message = answer.message.encode("ascii", "replace")[:LONGEST_MESSAGE]
    return struct.pack("!II", answer.code, len(message)) + message


def parse_request(fields: tuple[bytes, ...]) -> Request:
    """Raises InvalidInput naming the field."""
    if len(fields) != FIELDS:
        raise InvalidInput("CNI request", "", f"{len(fields)} fields instead of {FIELDS}")
    command, container, netns, interface, arguments = (_text(i, field) for i, field in enumerate(fields[:-1]))
    if command not in _COMMANDS:
        raise InvalidInput("CNI request", "CNI_COMMAND", f"{command[:20]!r} is none of {', '.join(sorted(_COMMANDS))}")
    if not container or (not netns and command != "DEL") or not interface:
        raise InvalidInput("CNI request", command, "CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME are needed")
    configuration = _json(fields[-1])
    return Request(
        command=command,
        container=container,
        netns=netns,
        interface=interface,
        pod=_pod(arguments),
        addresses=_addresses(configuration.get("prevResult"), interface),
        timeout_s=_timeout(configuration.get("ambient")),
    )


def _text(index: int, field: bytes) -> str:
    name = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS")[index]
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise InvalidInput("CNI request", name, "is not UTF-8") from None
    if not text.isprintable():
        raise InvalidInput("CNI request", name, "has control characters")
    return text


def _json(field: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(field)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("CNI request", "configuration", f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("CNI request", "configuration", "is not an object")
    return value


def _pod(arguments: str) -> PodName | None:
    """From CNI_ARGS ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;..."). Raises InvalidInput when a name is there twice: whose
    pod it is must not depend on who reads it."""
    values: dict[str, str] = {}
    for pair in arguments.split(";"):
        name, _, value = pair.partition("=")
        if name in values and name.startswith("K8S_POD_"):
            raise InvalidInput("CNI request", "CNI_ARGS", f"{name} is there twice")
        values[name] = value
    namespace, pod = values.get("K8S_POD_NAMESPACE", ""), values.get("K8S_POD_NAME", "")
    if not namespace and not pod:
        return None
    if not namespace or not pod:
        raise InvalidInput("CNI request", "CNI_ARGS", "only one of K8S_POD_NAMESPACE and K8S_POD_NAME is there")
    uid = values.get("K8S_POD_UID", "")
    if "/" in uid or uid.startswith("."):
        raise InvalidInput("CNI request", "CNI_ARGS", "K8S_POD_UID is no uid")
    return PodName(namespace, pod, uid)


def _addresses(result: object, interface: str) -> tuple[IpAddress, ...]:
    """The addresses of `interface` in the pod, IPv4-mapped ones refused by the parser."""
    if result is None:
        return ()
    if not isinstance(result, dict):
        raise InvalidInput("CNI request", "prevResult", "is not an object")
    interfaces = _list(result, "interfaces")
    found = []
    for entry in _list(result, "ips"):
        if not isinstance(entry, dict) or not isinstance(entry.get("address"), str):
            raise InvalidInput("CNI request", "prevResult.ips", "an entry has no address")
        number = entry.get("interface")
        if number is not None:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(interfaces):
                raise InvalidInput("CNI request", "prevResult.ips", f"interface {number!r} is not in the list")
            other = interfaces[number]
            if not isinstance(other, dict):
                raise InvalidInput("CNI request", "prevResult.interfaces", "an entry is not an object")
            if other.get("name") != interface or not other.get("sandbox"):
                continue
        found.append(parse_ip(entry["address"].partition("/")[0]))
    return tuple(dict.fromkeys(found))


def _list(result: Mapping[str, Any], name: str) -> list[Any]:
    value = result.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput("CNI request", f"prevResult.{name}", "is not a list")
    return value


def _timeout(ours: object) -> float:
    seconds = ours.get("timeoutSeconds", DEFAULT_TIMEOUT_S) if isinstance(ours, dict) else DEFAULT_TIMEOUT_S
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 600:
        raise InvalidInput("CNI request", "ambient.timeoutSeconds", f"{seconds!r} is not from 1 to 600")
    return float(seconds)
