"""Envoy's messages from dicts to bytes, with the classes of the `xds-protos` package; unknown fields are refused.

The classes live in protobuf's default pool; `ambient.xds.wire` has a pool of its own, so both have their messages.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory

from ambient.errors import InvalidInput
from ambient.waypoint.typed import PREFIX, Message
from ambient.xds.codec import Resource


def version_of(content: Message) -> str:
    """16 hex digits that depend on the content alone: the bytes of nested messages need not be the same every time."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def encode(type_url: str, name: str, content: Message) -> Resource:
    """The resource that carries `content`; raises InvalidInput when it is no message of that type."""
    try:
        wire = _parsed(type_url, content)
    except (json_format.ParseError, KeyError, TypeError):
        # Once everything that it may need is imported, it is what it is.
        try:
            for url in {type_url, *_types(content)}:
                _load(url.removeprefix(PREFIX).rpartition(".")[0])
            wire = _parsed(type_url, content)
        except (json_format.ParseError, KeyError, ImportError) as error:
            raise InvalidInput("Envoy resource", name, str(error)) from None
    return Resource(type_url, name, version_of(content), wire.SerializeToString())


def _parsed(type_url: str, content: Message) -> Any:
    wire = _class(type_url.removeprefix(PREFIX))()
    json_format.ParseDict(content, wire)
    return wire


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


@functools.cache
def _load(package: str) -> None:
    """Every module of a protobuf package: only what was imported can be found by its name."""
    if package.startswith("google.protobuf"):
        importlib.import_module("google.protobuf.wrappers_pb2")
        return
    folder = importlib.import_module(package)
    for found in pkgutil.iter_modules(folder.__path__):
        if found.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{found.name}")


def _class(full_name: str) -> Any:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))
