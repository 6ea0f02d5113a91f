"""Messages to bytes and back: a closed registry of dataclasses over MessagePack.

Every dataclass travels as [class name, field, field, ...]; enums as their value, addresses as 4 or 16 bytes,
networks as address plus prefix length. `decode` builds only registered classes and checks every field's type;
trailing fields may be absent when they have defaults, so that a newer process reads an older one. No I/O here.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, Union, cast

import msgspec

from ambient.errors import InvalidInput
from ztunnel.ipc import handover, messages

_Code = Callable[[Any], Any]
_SCALARS: Final = (str, int, float, bool, bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class _Pair:
    """How one type is written and read; `encode` None means "as it is"."""

    encode: _Code | None
    decode: _Code


class Codec:
    """Encoder and decoder for a closed set of dataclasses (and the dataclasses that their fields name)."""

    def __init__(self, roots: Iterable[type]) -> None:
        self._classes: dict[str, _Pair] = {}
        self._roots = frozenset(self._register(root) for root in roots)

    def encode(self, message: object) -> bytes:
        """Bytes of a registered message; raises InvalidInput for any other class and for integers over 64 bits."""
        name = type(message).__name__
        if name not in self._roots:
            raise InvalidInput("not a message of this channel", name)
        try:
            return msgspec.msgpack.encode(cast(_Code, self._classes[name].encode)(message))
        except (OverflowError, ValueError, TypeError, AttributeError) as error:
            raise InvalidInput("message cannot be written", name, str(error)) from None

    def decode(self, data: bytes | memoryview) -> object:
        """The message in `data`; raises InvalidInput for anything but exactly one well-formed known message."""
        try:
            raw = msgspec.msgpack.decode(data)
            if type(raw) is not list or not raw or raw[0] not in self._roots:
                raise InvalidInput("not a message of this channel", repr(raw)[:80])
            return self._classes[raw[0]].decode(raw)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput("unreadable message", "", str(error)) from None

    def _register(self, cls: type) -> str:
        name = cls.__name__
        if name not in self._classes:
            # Filled in below: placing the pair first lets classes refer to each other.
            self._classes[name] = _Pair(None, _refuse)
            self._classes[name] = self._dataclass(cls)
        return name

    def _dataclass(self, cls: type) -> _Pair:
        name = cls.__name__
        hints = typing.get_type_hints(cls)
        members = dataclasses.fields(cls)
        names = tuple(member.name for member in members)
        pairs = tuple(self._type(hints[member.name]) for member in members)
        encoders = tuple(zip(names, (pair.encode for pair in pairs), strict=True))
        decoders = tuple(zip(names, (pair.decode for pair in pairs), strict=True))

        def encode(value: Any) -> list[Any]:
            out: list[Any] = [name]
            for attribute, code in encoders:
                part = getattr(value, attribute)
                out.append(part if code is None else code(part))
            return out

        def decode(raw: Any) -> Any:
            if type(raw) is not list or not raw or raw[0] != name or len(raw) > len(decoders) + 1:
                raise InvalidInput("unreadable message", name, "wrong class or too many fields")
            return cls(**{key: code(part) for (key, code), part in zip(decoders, raw[1:], strict=False)})

        return _Pair(encode, decode)

    def _type(self, hint: Any) -> _Pair:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint in _SCALARS:
            return _Pair(None, _scalar(hint))
        if origin is frozenset:
            return self._set(self._type(args[0]))
        if origin in (tuple, list):
            if origin is tuple and (len(args) != 2 or args[1] is not Ellipsis):
                return self._row(args)
            return self._sequence(origin, self._type(args[0]))
        if origin is dict:
            return self._mapping(self._type(args[0]), self._type(args[1]))
        if origin in (Union, types.UnionType):
            return self._union(args)
        if isinstance(hint, type):
            if issubclass(hint, Enum):
                return _Pair(lambda member: member.value, hint)
            if hint in (IPv4Address, IPv6Address, IPv4Network, IPv6Network):
                return self._union((hint,))
            if dataclasses.is_dataclass(hint):
                name = self._register(hint)
                return _Pair(
                    lambda value: cast(_Code, self._classes[name].encode)(value),
                    lambda raw: self._classes[name].decode(raw),
                )
        raise TypeError(f"no wire form for {hint!r}")

    def _row(self, args: tuple[Any, ...]) -> _Pair:
        pairs = tuple(self._type(arg) for arg in args)

        def encode(value: Any) -> list[Any]:
            return [v if p.encode is None else p.encode(v) for p, v in zip(pairs, value, strict=True)]

        def decode(raw: Any) -> tuple[Any, ...]:
            return tuple(p.decode(v) for p, v in zip(pairs, _listed(raw), strict=True))

        return _Pair(encode, decode)

    def _sequence(self, kind: type, item: _Pair) -> _Pair:
        write, read = item.encode, item.decode

        def decode(raw: Any) -> Any:
            return kind([read(part) for part in _listed(raw)]) if raw else kind(_listed(raw))

        if write is None:
            return _Pair(None, decode)
        return _Pair(lambda value: [write(part) for part in value] if value else (), decode)

    def _set(self, item: _Pair) -> _Pair:
        """In order, so that equal sets are equal bytes."""
        write, listed = item.encode, self._sequence(frozenset, item)
        return _Pair(lambda value: sorted(value if write is None else map(write, value)), listed.decode)

    def _mapping(self, key: _Pair, value: _Pair) -> _Pair:
        write = value.encode

        def decode(raw: Any) -> dict[Any, Any]:
            if type(raw) is not dict:
                raise InvalidInput("unreadable message", "", "expected a map")
            return {key.decode(k): value.decode(v) for k, v in raw.items()}

        if write is None:
            return _Pair(None, decode)
        return _Pair(lambda mapping: {k: write(v) for k, v in mapping.items()}, decode)

    def _union(self, args: tuple[Any, ...]) -> _Pair:
        optional = type(None) in args
        kinds = frozenset(arg for arg in args if arg is not type(None))
        if kinds <= {IPv4Address, IPv6Address}:
            return _nullable(_Pair(lambda ip: ip.packed, _address(kinds)), optional)
        if kinds <= {IPv4Network, IPv6Network}:
            return _nullable(_Pair(_network_bytes, _network(kinds)), optional)
        if len(kinds) == 1:
            return _nullable(self._type(next(iter(kinds))), optional)
        names = frozenset(self._register(kind) for kind in kinds)

        def encode(value: Any) -> Any:
            return cast(_Code, self._classes[type(value).__name__].encode)(value)

        def decode(raw: Any) -> Any:
            if type(raw) is not list or not raw or raw[0] not in names:
                raise InvalidInput("unreadable message", "", f"expected one of {', '.join(sorted(names))}")
            return self._classes[raw[0]].decode(raw)

        return _nullable(_Pair(encode, decode), optional)


def _refuse(_raw: Any) -> Any:
    raise InvalidInput("unreadable message", "", "class is not registered yet")


def _listed(raw: Any) -> list[Any]:
    if type(raw) is not list:
        raise InvalidInput("unreadable message", "", "expected a list")
    return raw


def _scalar(kind: type) -> _Code:
    accepted = (float, int) if kind is float else (kind,)

    def decode(raw: Any) -> Any:
        if type(raw) not in accepted:
            raise InvalidInput("unreadable message", "", f"expected {kind.__name__}, got {type(raw).__name__}")
        return float(raw) if kind is float else raw

    return decode


def _nullable(pair: _Pair, optional: bool) -> _Pair:
    if not optional:
        return pair
    write, read = pair.encode, pair.decode
    encode = None if write is None else (lambda value: None if value is None else write(value))
    return _Pair(encode, lambda raw: None if raw is None else read(raw))


def _address(kinds: frozenset[Any]) -> _Code:
    def decode(raw: Any) -> Any:
        kind = IPv4Address if len(_packed(raw)) == 4 else IPv6Address
        if kind not in kinds:
            raise InvalidInput("unreadable message", "", "wrong address family")
        return kind(raw)

    return decode


def _network_bytes(network: IPv4Network | IPv6Network) -> bytes:
    return network.network_address.packed + bytes((network.prefixlen,))


def _network(kinds: frozenset[Any]) -> _Code:
    def decode(raw: Any) -> Any:
        kind = IPv4Network if len(_packed(raw)) == 5 else IPv6Network
        if kind not in kinds:
            raise InvalidInput("unreadable message", "", "wrong address family")
        return kind((raw[:-1], raw[-1]))

    return decode


def _packed(raw: Any) -> bytes:
    if type(raw) is not bytes:
        raise InvalidInput("unreadable message", "", "expected bytes")
    return raw


_CODEC: Final = Codec(
    (
        *typing.get_args(messages.ToDirector),
        *typing.get_args(messages.ToWorker),
        *typing.get_args(handover.BetweenZtunnels),
    )
)


def encode(message: object) -> bytes:
    """Bytes of one message between director and worker; raises InvalidInput for any other object."""
    return _CODEC.encode(message)


def decode(data: bytes | memoryview) -> object:
    """One message between director and worker; raises InvalidInput for anything else."""
    return _CODEC.decode(data)
