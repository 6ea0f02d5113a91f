"""Settings of a process: a mapping of strings (the environment) parsed once into a frozen dataclass.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ZtunnelSettings:
        node: str = setting("NODE_NAME", text)
        ttl_s: float = setting("SECRET_TTL", duration, "24h")

    settings = read_settings(ZtunnelSettings, os.environ)

Each parser takes the text and returns a value or raises ValueError; the error becomes InvalidInput that names the
variable. Nothing here reads the environment or the disk by itself.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from ambient.errors import InvalidInput
from ambient.model.address import Endpoint, IpAddress, parse_endpoint, parse_ip

T = TypeVar("T")

_REQUIRED: Final = "\0required"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(Ki|Mi|Gi|k|M|G|)B?")
_BYTES: Final = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def setting(variable: str, parse: Callable[[str], Any], default: str = _REQUIRED) -> Any:
    """A field that is read from `variable`. `default` is text and goes through `parse`; without it it is required."""
    return dataclasses.field(metadata={"variable": variable, "parse": parse, "default": default})


def read_settings(
    kind: type[T], environment: Mapping[str, str], *, closed: Sequence[str] = (), foreign: Collection[str] = ()
) -> T:
    """Build `kind` from `environment`; raises InvalidInput naming the variable and why.

    Set but empty counts as not set. Variables that begin with a prefix in `closed` must be fields of `kind` or in
    `foreign` (variables of other processes that share the environment): a misspelt name is refused, not ignored.
    """
    fields = [field for field in dataclasses.fields(kind) if "variable" in field.metadata]  # type: ignore[arg-type]
    known = {field.metadata["variable"] for field in fields}
    for variable in environment:
        if variable.startswith(tuple(closed)) and closed and variable not in known and variable not in foreign:
            raise InvalidInput("unknown setting", variable)
    values: dict[str, Any] = {}
    for field in fields:
        variable = field.metadata["variable"]
        given = environment.get(variable) or field.metadata["default"]
        if given == _REQUIRED:
            raise InvalidInput("missing setting", variable)
        try:
            values[field.name] = field.metadata["parse"](given)
        except (ValueError, InvalidInput) as error:
            raise InvalidInput("invalid setting", variable, str(error)) from None
    return kind(**values)


def text(given: str) -> str:
    """Any text without control characters."""
    if not given.isprintable():
        raise ValueError("has control characters")
    return given


def boolean(given: str) -> bool:
    """Literally `true` or `false`."""
    if given not in ("true", "false"):
        raise ValueError(f"{given!r} is neither true nor false")
    return given == "true"


def integer(least: int, most: int) -> Callable[[str], int]:
    """A decimal number in least..most."""

    def parse(given: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", given) or not least <= int(given) <= most:
            raise ValueError(f"{given!r} is not a number from {least} to {most}")
        return int(given)

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(given: str) -> str:
        if given not in allowed:
            raise ValueError(f"{given!r} is not one of {', '.join(allowed)}")
        return given

    return parse


def duration(given: str) -> float:
    """Seconds (> 0) from suffix form: `10s`, `1m30s`, `24h`, `250ms`. A bare number counts as seconds."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", given):
        seconds = float(given)
    elif _DURATION.sub("", given) == "":
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(given))
    else:
        raise ValueError(f"{given!r} is not a duration such as 10s, 5m or 24h")
    if not 0 < seconds < 1e10:
        raise ValueError(f"{given!r} is not between 0 and 300 years")
    return seconds


def size(given: str) -> int:
    """Bytes: `4194304`, `64k`, `4Mi`, `1GiB`."""
    match = _SIZE.fullmatch(given)
    if match is None:
        raise ValueError(f"{given!r} is not a size such as 65536, 64Ki or 4Mi")
    return int(match[1]) * _BYTES[match[2]]


def address(given: str) -> IpAddress:
    return parse_ip(given)


def endpoint(given: str) -> Endpoint:
    """`ip:port`, `[ip6]:port`, or `:port` for every address of both families; port 0 lets the kernel choose."""
    full = f"[::]{given}" if given.startswith(":") else given
    host, _, port = full.rpartition(":")
    return Endpoint(parse_endpoint(f"{host}:1").ip, 0) if port == "0" else parse_endpoint(full)


def optional_endpoint(given: str) -> Endpoint | None:
    """An endpoint, or None for `none`."""
    return None if given == "none" else endpoint(given)


def target(given: str) -> str:
    """`host:port` of a server we connect to over TLS, from `https://host:port` or bare; the path must be empty."""
    rest = given.removeprefix("https://").rstrip("/")
    if "://" in rest or "/" in rest or not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", rest):
        raise ValueError(f"{given!r} is not https://host:port")
    return rest


def path(given: str) -> Path:
    return Path(text(given))


def optional_path(given: str) -> Path | None:
    """A path, or None for `none`."""
    return None if given == "none" else path(given)
