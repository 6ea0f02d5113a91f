"""What a route changes of a request on its way to a backend, where policies of the backend ask about just that. Pure.

Policies are judged by what was asked for. One of the backend's own would have been judged by what arrives there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ambient.kube.policies import PolicyRule
from ambient.kube.records import Record
from ambient.kube.routing import BackendRef, HeaderEdit, RouteRule

_HOSTS = frozenset(("host", ":authority"))


@dataclass(frozen=True, slots=True)
class Changes:
    """`headers` in small letters."""

    host: bool = False
    path: bool = False
    headers: frozenset[str] = frozenset()

    def concern(self, rule: PolicyRule) -> bool:
        """Whether a rule asks about what is changed."""
        headers = self.headers | (_HOSTS if self.host else frozenset())
        return (
            (self.host and any(one.hosts or one.not_hosts for one in rule.operations))
            or (self.path and any(one.paths or one.not_paths for one in rule.operations))
            or any(when.key.lower() in {f"request.headers[{name}]" for name in headers} for when in rule.when)
            or (self.path and any(when.key.lower() == "request.headers[:path]" for when in rule.when))
        )


def changes(route: Record, ref: BackendRef) -> Changes:
    """Of the requests that a route sends to a backend."""
    rules = [rule for rule in _rules(route) if ref in rule.backends or any(ref == one.backend for one in rule.mirrors)]
    rewrites = [rule.rewrite for rule in rules if rule.rewrite is not None]
    names = {name.lower() for edit in (ref.request, *(rule.request for rule in rules)) for name in _edited(edit)}
    return Changes(
        any(one.hostname for one in rewrites), any(one.path is not None for one in rewrites), frozenset(names)
    )


def _rules(route: Record) -> Iterator[RouteRule]:
    for one in (*getattr(route, "rules", ()), *getattr(route, "http", ())):
        found = getattr(one, "rule", one)
        if isinstance(found, RouteRule):
            yield found


def _edited(edit: HeaderEdit) -> Iterator[str]:
    yield from (name for name, _ in (*edit.set, *edit.add))
    yield from edit.remove
