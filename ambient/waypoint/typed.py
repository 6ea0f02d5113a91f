"""How Envoy's messages are written here: as proto3 JSON in plain dicts, with these few shorthands."""

from __future__ import annotations

from typing import Any, Final

Message = dict[str, Any]

Named = tuple[str, str, Message]
"""Of a resource: type URL, name, content."""

PREFIX: Final = "type.googleapis.com/"
CLUSTER_TYPE: Final = f"{PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE: Final = f"{PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE: Final = f"{PREFIX}envoy.config.listener.v3.Listener"
ROUTE_TYPE: Final = f"{PREFIX}envoy.config.route.v3.RouteConfiguration"
SECRET_TYPE: Final = f"{PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"

HASHABLE: Final = "envoy.hashable_string"
"""The kind that strings of filter state must be of: only hashable ones keep connections of different peers apart."""
ADS: Final[Message] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def typed(name: str, message: str, **fields: Any) -> Message:
    """A named extension with its configuration; `message` is the full name, less "envoy.extensions." at its head."""
    return {"name": name, "typed_config": any_of(f"envoy.extensions.{message}", **fields)}


def any_of(message: str, **fields: Any) -> Message:
    return {"@type": PREFIX + message, **fields}


def http_protocol(**fields: Any) -> Message:
    """What HTTP a cluster speaks, as a field of it."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"typed_extension_protocol_options": {name: any_of(name, **fields)}}


def filter_state(key: str, value: str, *, factory: str = "", shared: str = "ONCE") -> Message:
    """One object for a set_filter_state filter, made of a format string; nothing is set when that gives nothing.

    `shared`: how far it travels through internal listeners.
    """
    format_string = {"text_format_source": {"inline_string": value}, "omit_empty_values": True}
    entry: Message = {"object_key": key, "format_string": format_string, "skip_if_empty": True}
    if factory:
        entry["factory_key"] = factory
    if shared:
        entry["shared_with_upstream"] = shared
    return entry


def file_log(**fields: str) -> Message:
    """An access log of one JSON object per line on standard output."""
    return typed(
        "envoy.access_loggers.file",
        "access_loggers.file.v3.FileAccessLog",
        path="/dev/stdout",
        log_format={"json_format": fields},
    )


def verbatim(text: str) -> str:
    """The format string that says this text: a % of the user's is doubled, so it stays one and reads nothing of the
    proxy's. With a single one Envoy refuses the whole table."""
    return text.replace("%", "%%")


def seconds(milliseconds: int) -> str:
    """A duration."""
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"
