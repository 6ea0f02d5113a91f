"""A node's CNI configuration: which file the runtime uses, and our plugin in it and out of it. Pure: bytes to bytes.

Follows what containerd and CRI-O do: the first file in lexical order whose name ends in .conf, .conflist or .json and
that is a network configuration (CNI specification 1.1.0, section 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ambient.errors import InvalidInput

PLUGIN: Final = "ambient-cni"
BACKUP: Final = ".before-ambient"
"""Added to a file's name: as it was before we were in it. No runtime reads such a name."""
_SUFFIXES: Final = (".conf", ".conflist", ".json")
_OLDEST: Final = (0, 3, 0)
_VERSION: Final = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Our plugin's configuration: the agent's socket, the namespaces whose pods start without an agent, and how long
    the plugin waits."""

    socket: str
    pass_namespaces: tuple[str, ...]
    timeout_s: int

    def as_json(self) -> dict[str, Any]:
        return {
            "type": PLUGIN,
            "ambient": {
                "socket": self.socket,
                "passNamespaces": list(self.pass_namespaces),
                "timeoutSeconds": self.timeout_s,
            },
        }


@dataclass(frozen=True, slots=True)
class Chained:
    """`name` is the file that has to hold `content`; it differs from the one read when that was a single plugin's
    configuration, which has to make way (`replaces`)."""

    name: str
    content: bytes
    replaces: str = ""


def candidates(names: Iterable[str]) -> list[str]:
    """Those that a runtime looks at, in its order."""
    return sorted(name for name in names if name.endswith(_SUFFIXES))


def read(name: str, content: bytes) -> dict[str, Any]:
    """A configuration as a list (a single plugin's is wrapped as the runtime does it). Raises InvalidInput when the
    runtime could not use it, or when our plugin cannot work in it."""
    try:
        value = json.loads(content.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("CNI configuration", name, f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("CNI configuration", name, "is not an object")
    network = value.get("name")
    if not isinstance(network, str) or not _NAME.fullmatch(network):
        raise InvalidInput("CNI configuration", name, "has no name that a network may have")
    if not name.endswith(".conflist"):
        _check_plugin(name, value)
        version = {"cniVersion": value["cniVersion"]} if "cniVersion" in value else {}
        value = {**version, "name": network, "plugins": [value]}
    plugins = value.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidInput("CNI configuration", name, "has no plugins")
    for plugin in plugins:
        _check_plugin(name, plugin)
    if [plugin["type"] for plugin in plugins] == ["loopback"]:
        raise InvalidInput("CNI configuration", name, "is that of the loopback interface")
    if plugins[0]["type"] == PLUGIN:
        raise InvalidInput(
            "CNI configuration", name, f"{PLUGIN} is its first plugin: nothing before it makes a network"
        )
    _check_version(name, value)
    return value


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")


def _check_plugin(name: str, plugin: object) -> None:
    if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str) or not plugin["type"]:
        raise InvalidInput("CNI configuration", name, "has a plugin without a type")


def _check_version(name: str, value: Mapping[str, Any]) -> None:
    """Below 0.3.0 a result has another form, and nothing is chained with it."""
    several = value.get("cniVersions", [])
    given = [value["cniVersion"]] if "cniVersion" in value else several if isinstance(several, list) else []
    matches = [_VERSION.fullmatch(version) if isinstance(version, str) else None for version in given]
    if not matches or None in matches:
        raise InvalidInput("CNI configuration", name, "cniVersion is missing or is none; a chain needs 0.3.0 or later")
    if max(tuple(int(part) for part in match.groups()) for match in matches if match) < _OLDEST:
        raise InvalidInput("CNI configuration", name, f"cniVersion {given[0]} is too old; a chain needs 0.3.0 or later")


def chain(name: str, content: bytes, entry: Entry) -> Chained | None:
    """The configuration with our plugin as its last; None when that is how it is. Raises InvalidInput."""
    value = read(name, content)
    wanted = entry.as_json()
    ours = [plugin for plugin in value["plugins"] if plugin["type"] == PLUGIN]
    if ours == [wanted]:
        return None
    value["plugins"] = [plugin for plugin in value["plugins"] if plugin["type"] != PLUGIN] + [wanted]
    if name.endswith(".conflist"):
        return Chained(name, _write(value))
    return Chained(name.rpartition(".")[0] + ".conflist", _write(value), replaces=name)


def has_ours(content: bytes) -> bool:
    """Whether our plugin is in it, valid or not."""
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError):
        return False
    plugins = value.get("plugins") if isinstance(value, dict) else None
    return isinstance(plugins, list) and any(isinstance(p, dict) and p.get("type") == PLUGIN for p in plugins)


def unchain(content: bytes) -> bytes:
    """The same without our plugin; only for what `has_ours`."""
    value = json.loads(content.decode())
    value["plugins"] = [p for p in value["plugins"] if not isinstance(p, dict) or p.get("type") != PLUGIN]
    return _write(value)


def same(name: str, before: bytes, now: bytes) -> bool:
    """Whether `now` (a list) is what we made of `before`, the file `name`, but for our plugin."""
    try:
        original = read(name, before)
        return bool(json.loads(unchain(now) if has_ours(now) else now) == json.loads(_write(original)))
    except (InvalidInput, ValueError, KeyError, RecursionError):
        return False


def multus(value: Mapping[str, Any]) -> bool:
    """Multus is first: it calls the cluster's plugins itself, ours comes behind all of them."""
    return bool(value["plugins"][0]["type"] in ("multus", "multus-shim"))


def cilium(value: Mapping[str, Any]) -> bool:
    """Cilium's: its agent rewrites it and, unless told `cni.exclusive=false`, puts every other file aside."""
    return any(plugin["type"] == "cilium-cni" for plugin in value["plugins"])


def _write(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
