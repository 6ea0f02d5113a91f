"""Envoy's messages from dicts to bytes, with the classes of the `xds-protos` package; unknown fields are refused.

The classes live in protobuf's default pool; `ambient.xds.wire` has a pool of its own, so both have their messages.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Generator, Iterator
from typing import Any, Final

from google.protobuf import descriptor_pool, json_format, message_factory

from ambient.errors import InvalidInput
from ambient.waypoint.typed import PREFIX, ROUTE_TYPE, Message
from ambient.xds.codec import Resource
from ambient.xds.steps import finish

_HOSTS: Final = 20
"""Virtual hosts that are encoded in one go: a millisecond or two."""


def version_of(content: Message) -> str:
    """16 hex digits that depend on the content alone: the bytes of nested messages need not be the same every time."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def encode(type_url: str, name: str, content: Message) -> Resource:
    """The resource that carries `content`; raises InvalidInput when it is no message of that type."""
    return finish(encoding(type_url, name, content))


def encoding(type_url: str, name: str, content: Message) -> Generator[None, None, Resource]:
    """`encode` in small steps, however large a table of routes is, and however much has to be imported for it."""
    parts = []
    for number, part in enumerate(_parts(type_url, content)):
        if number:
            yield
        try:
            parts.append(_serialized(type_url, part))
        except (json_format.ParseError, KeyError, TypeError):
            # Once everything that it may need is imported, it is what it is.
            try:
                for url in {type_url, *_types(part)}:
                    yield from _loading(url.removeprefix(PREFIX).rpartition(".")[0])
                parts.append(_serialized(type_url, part))
            except (json_format.ParseError, KeyError, ImportError) as error:
                raise InvalidInput("Envoy resource", name, str(error)) from None
    return Resource(type_url, name, version_of(content), b"".join(parts))


def _parts(type_url: str, content: Message) -> Iterator[Message]:
    """Messages whose bytes one after the other are those of the whole: so protobuf merges repeated fields."""
    hosts = content.get("virtual_hosts")
    if type_url != ROUTE_TYPE or not isinstance(hosts, list) or len(hosts) <= _HOSTS:
        yield content
        return
    yield {key: value for key, value in content.items() if key != "virtual_hosts"}
    for start in range(0, len(hosts), _HOSTS):
        yield {"virtual_hosts": hosts[start : start + _HOSTS]}


def message_class(full_name: str) -> Any:
    """The class of a message of Envoy's, for who speaks with it otherwise than by discovery."""
    finish(_loading(full_name.rpartition(".")[0]))
    return _class(full_name)


def _serialized(type_url: str, content: Message) -> bytes:
    wire = _class(type_url.removeprefix(PREFIX))()
    json_format.ParseDict(content, wire)
    made: bytes = wire.SerializeToString()
    return made


def _types(value: Any) -> Iterator[str]:
    """Every @type within."""
    if isinstance(value, dict):
        if "@type" in value:
            yield value["@type"]
        for one in value.values():
            yield from _types(one)
    elif isinstance(value, list):
        for one in value:
            yield from _types(one)


def _loading(package: str) -> Generator[None, None, None]:
    """Every module of a protobuf package, one by one: only what was imported can be found by its name."""
    for module in _modules(package):
        if module not in sys.modules:
            importlib.import_module(module)
            yield


@functools.cache
def _modules(package: str) -> tuple[str, ...]:
    if package.startswith("google.protobuf"):
        return ("google.protobuf.wrappers_pb2",)
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return tuple(f"{package}.{one.name}" for one in found if one.name.endswith("_pb2"))


def _class(full_name: str) -> Any:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))
