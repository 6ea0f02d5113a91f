"""What a route changes of a request on its way to a backend, where policies of the backend ask about just that. Pure.

Policies are judged by what was asked for. One of the backend's own would have been judged by what arrives there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def changes(route: Record) -> Mapping[BackendRef, Changes]:
    """Of the requests that a route sends to each of its backends, in one pass: there may be hundreds of them.

    Nothing is changed of what goes to any other, as of connections that are carried unread."""
    found: dict[BackendRef, set[Changes]] = {}
    for rule in _rules(route):
        made = _of(rule)
        for ref in (*rule.backends, *(one.backend for one in rule.mirrors)):
            found.setdefault(ref, set()).add(made)
    return {ref: _together(ref, each) for ref, each in found.items()}


def _of(rule: RouteRule) -> Changes:
    rewrite = rule.rewrite
    host, path = (bool(rewrite.hostname), rewrite.path is not None) if rewrite is not None else (False, False)
    return Changes(host, path, _edited(rule.request))


def _together(ref: BackendRef, each: set[Changes]) -> Changes:
    names = _edited(ref.request).union(*(one.headers for one in each))
    return Changes(any(one.host for one in each), any(one.path for one in each), names)


def _rules(route: Record) -> Iterator[RouteRule]:
    for one in (*getattr(route, "rules", ()), *getattr(route, "http", ())):
        found = getattr(one, "rule", one)
        if isinstance(found, RouteRule):
            yield found


def _edited(edit: HeaderEdit) -> frozenset[str]:
    return frozenset(name.lower() for name in (*(name for name, _ in (*edit.set, *edit.add)), *edit.remove))
