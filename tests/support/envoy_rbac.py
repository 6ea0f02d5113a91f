"""Envoy's RBAC as it is documented, read from our own output: what a rule set decides of one request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from ambient.waypoint.access import PEER


@dataclass(frozen=True)
class Request:
    """`claims`: of an accepted token. `method` "": a connection of which nothing else is known. `noted`: providers that
    were asked."""

    peer: str
    ip: str = "10.1.0.1"
    method: str = "GET"
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    noted: frozenset[str] = frozenset()


def allowed(filters: dict[str, Any], request: Request) -> bool:
    """Through every filter of a per-route configuration."""
    for config in filters.values():
        rules = config["rbac"].get("rules")
        if rules is None or rules["action"] == "LOG":
            continue
        hit = any(_policy(one, request) for one in rules["policies"].values())
        if hit is (rules["action"] == "DENY"):
            return False
    return True


def _policy(policy: dict[str, Any], request: Request) -> bool:
    return any(_holds(one, request) for one in policy["permissions"]) and any(
        _holds(one, request) for one in policy["principals"]
    )


def _holds(rule: dict[str, Any], request: Request) -> bool:
    ((kind, value),) = rule.items()
    match kind:
        case "any":
            return True
        case "and_rules" | "and_ids":
            return all(_holds(one, request) for one in value.get("rules", value.get("ids")))
        case "or_rules" | "or_ids":
            return any(_holds(one, request) for one in value.get("rules", value.get("ids")))
        case "not_rule" | "not_id":
            return not _holds(value, request)
        case "filter_state":
            if value["key"].startswith("ambient.asked."):
                assert value["string_match"] == {"exact": "1"}
                return value["key"].removeprefix("ambient.asked.") in request.noted
            assert value["key"] == PEER
            return _text(value["string_match"], request.peer)
        case "remote_ip":
            return ip_address(request.ip) in ip_network(f"{value['address_prefix']}/{value['prefix_len']}")
        case "url_path":
            return _text(value["path"], request.path)
        case "header":
            found = {":method": request.method, ":authority": request.headers.get("host")}
            text = found.get(value["name"], request.headers.get(value["name"]))
            if "present_match" in value:
                return text is not None
            return text is not None and _text(value["string_match"], text)
        case "sourced_metadata":
            return _metadata(value["metadata_matcher"], request)
    raise AssertionError(kind)


def _metadata(matcher: dict[str, Any], request: Request) -> bool:
    found: Any = {"payload": request.claims}
    for part in matcher["path"]:
        found = found.get(part["key"]) if isinstance(found, dict) else None
    value = matcher["value"]
    if "list_match" in value:
        return isinstance(found, list) and any(_text(value["list_match"]["one_of"]["string_match"], x) for x in found)
    return isinstance(found, str) and _text(value["string_match"], found)


def _text(match: dict[str, Any], text: str) -> bool:
    ((kind, value),) = match.items()
    match kind:
        case "exact":
            return bool(text == value)
        case "prefix":
            return text.startswith(value)
        case "suffix":
            return text.endswith(value)
        case "safe_regex":
            return re.fullmatch(value["regex"], text) is not None
    raise AssertionError(kind)
