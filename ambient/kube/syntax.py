"""Kubernetes' rules for names, labels, ports and addresses. Each check returns a complaint, or "" when fine.

What thousands of objects have in common is checked once (the caches are bounded).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_FILE_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_HEADER_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def words(text: str) -> tuple[str, ...]:
    """The blank-separated names in `text`, in order."""
    return tuple(text.split())


def dns_label(value: str) -> str:
    """RFC 1123 label: namespaces, containers."""
    if len(value) > 63:
        return f"{value[:20]!r}... is longer than 63 characters"
    return (
        "" if _LABEL.fullmatch(value) else f"{value!r} is not a DNS label (a-z, 0-9 and '-', alphanumeric at both ends)"
    )


def dns_label_1035(value: str) -> str:
    """RFC 1035 label: Services."""
    if len(value) > 63:
        return f"{value[:20]!r}... is longer than 63 characters"
    return "" if _LABEL_1035.fullmatch(value) else f"{value!r} is not a DNS label that starts with a letter"


@lru_cache(maxsize=16_384)
def dns_subdomain(value: str) -> str:
    """RFC 1123 subdomain: most object names."""
    if len(value) > 253:
        return f"{value[:20]!r}... is longer than 253 characters"
    if all(_LABEL.fullmatch(part) for part in value.split(".")):
        return ""
    return f"{value!r} is not a DNS name (labels of a-z, 0-9 and '-', joined by dots)"


@lru_cache(maxsize=4_096)
def qualified_name(key: str) -> str:
    """Key of a label or annotation: [prefix/]name."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or dns_subdomain(prefix)):
        return f"{key!r}: the prefix before '/' is not a DNS name"
    if not name or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return f"{key!r} is not a valid key (1..63 of letters, digits, '-', '_', '.', alphanumeric at both ends)"
    return ""


@lru_cache(maxsize=16_384)
def label(key: str, value: str) -> str:
    complaint = qualified_name(key)
    if complaint:
        return complaint
    if len(value) > 63:
        return f"the value is longer than 63 characters ({len(value)})"
    if value and not _QUALIFIED.fullmatch(value):
        return f"{value!r} is not a label value (letters, digits, '-', '_', '.', alphanumeric at both ends)"
    return ""


def annotation(key: str, value: str) -> str:
    return qualified_name(key.lower())


def file_key(value: str) -> str:
    """Key of a ConfigMap: what can be a file's name."""
    if _FILE_KEY.fullmatch(value) and len(value) <= 253 and value != "." and not value.startswith(".."):
        return ""
    return f"{value!r} is not a key (1..253 of letters, digits, '-', '_' and '.')"


def port_name(value: str) -> str:
    """IANA service name, as container and target ports use."""
    if not 1 <= len(value) <= 15:
        return f"{value!r} is not a port name (1..15 characters)"
    if not _PORT_NAME.fullmatch(value) or "--" in value or not any(c.isalpha() for c in value):
        return f"{value!r} is not a port name (a-z, 0-9, single '-', at least one letter)"
    return ""


def env_name(value: str) -> str:
    return "" if _ENV_NAME.fullmatch(value) else f"{value!r} is not a name of an environment variable"


def ip(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        return f"{value!r} is not an IP address"
    return ""


def ip_block(value: str) -> str:
    """An address or a CIDR; host bits beyond the prefix are allowed, as Istio allows them."""
    if "%" in value:
        return f"{value!r}: a scoped address is not allowed"
    if "/" in value and not value.rpartition("/")[2].isdigit():
        return f"{value!r}: the prefix length must be a number"
    try:
        ip_network(value, strict=False)
    except ValueError:
        return f"{value!r} is not an IP address or CIDR"
    return ""


def header_name(value: str) -> str:
    return "" if _HEADER_NAME.fullmatch(value) else f"{value!r} is not an HTTP header name"


def header_value(value: str) -> str:
    return "a header value may not hold line breaks" if "\r" in value or "\n" in value else ""
