"""Where a kind lives in the Kubernetes API: group, version, plural, and the paths made of them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from ambient.errors import InvalidInput
from ambient.kube.records import record_key

_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]*")


@dataclass(frozen=True, slots=True)
class Resource:
    """`group_version` is what objects have as apiVersion ("v1", "security.istio.io/v1")."""

    group_version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """ "" for the core group."""
        return self.group_version.rpartition("/")[0]

    def at(self, group_version: str) -> Resource:
        """The same in another version."""
        return replace(self, group_version=group_version)

    @property
    def discovery(self) -> str:
        """Path that lists what the server has of this group and version."""
        return f"/apis/{self.group_version}" if self.group else f"/api/{self.group_version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Path of the collection, of one object (`name`), or of a part of it ("status").

        No namespace: the whole cluster. Raises InvalidInput for names that are none: a path must not lead elsewhere.
        """
        parts = [self.discovery]
        if namespace and self.namespaced:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name:
            parts.append(_segment(name))
            if subresource:
                parts.append(_segment(subresource))
        return "/".join(parts)


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """One object, which may or may not be there."""

    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> str:
        """As its record has it."""
        return record_key(self.kind, self.namespace, self.name)


def _segment(name: str) -> str:
    if not _SEGMENT.fullmatch(name):
        raise InvalidInput("not the name of an object", repr(name))
    return quote(name)
