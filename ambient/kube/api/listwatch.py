"""What to ask an API server next so that one kind's objects are known, and what its answers change. No I/O, no clock.

The cycle: list everything (as a stream of initial events, else in pages), then watch from that version on; resume
after a lost connection; list again when the server has forgotten the version (410). Whatever happens in between, an
object counts as gone only when the server said so: by DELETED, by a complete list without it, or by answering several
times that the kind does not exist.

(Kubernetes API Concepts: "Efficient detection of changes", "Streaming lists", "Watch bookmarks", "410 Gone".)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec

from ambient.errors import MeshError, ProtocolError
from ambient.kube.api.failure import ApiInvalid, ApiUnavailable, Expired, Forbidden, NotThere, failure
from ambient.kube.records import record_key
from ambient.kube.resource import Resource

_END: Final = "k8s.io/initial-events-end"
_EVENTS: Final = ("ADDED", "MODIFIED", "DELETED")
_PAGE: Final = 250
_GARBAGE_LIMIT: Final = 3
_ABSENT_LIMIT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds. `watch_s`: how long the server is asked to keep one watch; `idle_s`: how long it may say nothing (its
    bookmarks come every minute); `start_idle_s`: the same before its initial events are complete; `absent_s`: how
    often to look for a kind that is not installed; `short_s`: a watch that ends sooner is a failure."""

    first_s: float = 0.1
    longest_s: float = 30.0
    watch_s: int = 300
    idle_s: float = 90.0
    start_idle_s: float = 20.0
    absent_s: float = 5.0
    short_s: float = 1.0


class Step(Enum):
    """What an `Ask` is."""

    STREAM = "stream"
    PAGE = "page"
    WATCH = "watch"
    FIND = "find"


@dataclass(frozen=True, slots=True)
class Ask:
    """The next request, to be made after `delay_s`. STREAM and WATCH give lines of events, the others one object."""

    step: Step
    path: str
    query: Mapping[str, str]
    delay_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """An object as it is now, or None when it is gone. `version` is its resourceVersion ("" when gone)."""

    key: str
    content: Mapping[str, Any] | None
    version: str = ""


class ListWatch:
    """One kind. `synced`: everything there is was known once. `trouble`: why it is not known now, "" when it is.

    `absent`: the kind is not installed. `forbidden`: we may not read it. `relists` and `stale` count lists after the
    first, and events that came twice or too late; `failures` those in a row.
    """

    def __init__(
        self,
        kind: str,
        places: tuple[Resource, ...],
        *,
        namespace: str = "",
        fields: str = "",
        labels: str = "",
        pace: Pace,
        random: Callable[[], float],
        streaming: bool = True,
    ) -> None:
        """`places`: versions to try, best first; `namespace`: only this one; `fields`, `labels`: selectors; `random`:
        0..1."""
        self.kind = kind
        self.synced = False
        self.absent = False
        self.forbidden = False
        self.trouble = "not asked yet"
        self.relists = 0
        self.stale = 0
        self._places = places
        self._place = 0
        self._namespace = namespace
        self._selectors = {"fieldSelector": fields, "labelSelector": labels}
        self._pace = pace
        self._random = random
        self._streaming = streaming
        self._step = Step.STREAM if streaming else Step.PAGE
        self._version = ""
        self._continue = ""
        self._paged = True
        self._known: dict[str, str] = {}
        self._seen: set[str] = set()
        self._trust_versions = True
        self.failures = 0
        self._garbage = 0
        self._denials = 0
        self._delay_s = 0.0

    # --- what to ask

    @property
    def place(self) -> Resource:
        return self._places[self._place]

    @property
    def idle_s(self) -> float:
        """How long to wait for the next octets of a stream."""
        return self._pace.start_idle_s if self._step is Step.STREAM else self._pace.idle_s

    def ask(self) -> Ask:
        """The next request. A list begins anew with each call."""
        delay, self._delay_s = self._delay_s, 0.0
        path, query = self.place.path(self._namespace), dict(self._selectors)
        match self._step:
            case Step.FIND:
                return Ask(self._step, self.place.discovery, {}, delay)
            case Step.PAGE:
                if not self._continue:
                    self._seen = set()
                page = {"limit": str(_PAGE) if self._paged else "", "continue": self._continue}
                return Ask(self._step, path, {**query, **page}, delay)
            case Step.STREAM:
                self._seen = set()
                query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            case Step.WATCH:
                query |= {"resourceVersion": self._version}
        seconds = str(int(self._pace.watch_s * (1 + self._random())))
        return Ask(
            self._step, path, {**query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": seconds}, delay
        )

    # --- what came

    def event(self, data: Any) -> list[Change]:
        """One line of a stream, decoded. Raises ProtocolError for what is no event, an API error for an ERROR event."""
        kind, content = (data.get("type"), data.get("object")) if isinstance(data, dict) else (None, None)
        if kind == "ERROR" and isinstance(content, dict):
            raise self._error(content)
        if not isinstance(content, dict) or (kind not in _EVENTS and kind != "BOOKMARK"):
            raise ProtocolError("watch", self.kind, f"not an event: {str(data)[:100]}")
        metadata = content.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or not isinstance(version, str) or not version:
            raise ProtocolError("watch", self.kind, "an event without resourceVersion")
        changes: list[Change] = []
        if kind == "BOOKMARK":
            annotations = metadata.get("annotations")
            if self._step is Step.STREAM:
                if not isinstance(annotations, dict) or annotations.get(_END) != "true":
                    return []
                changes = self._complete(version)
            else:
                self._advance(version)
        elif self._step is Step.WATCH and not _later(version, self._version):
            self.stale += 1
        else:
            changes = self._changed(kind == "DELETED", self._key(metadata), content, version)
            if self._step is Step.WATCH:
                self._version = version
        self._well()
        return changes

    def page(self, data: Mapping[str, Any]) -> list[Change]:
        """A page of a list, its items decoded. Raises ProtocolError."""
        metadata, items = data.get("metadata"), data.get("items")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or not isinstance(version, str) or not isinstance(items, list | type(None)):
            raise ProtocolError("list", self.kind, "not a list of objects")
        changes: list[Change] = []
        place = self.place
        for item in items or ():
            own = item.get("metadata") if isinstance(item, dict) else None
            if not isinstance(own, dict):
                raise ProtocolError("list", self.kind, "an item without metadata")
            # Items of a list do not repeat what kind they are.
            content = {**item, "apiVersion": place.group_version, "kind": self.kind}
            changes += self._changed(False, self._key(own), content, str(own.get("resourceVersion", "")))
        following = metadata.get("continue")
        self._continue = following if isinstance(following, str) else ""
        if not self._continue:
            changes += self._complete(version)
        self._well()
        return changes

    def found(self, data: Mapping[str, Any] | None) -> list[Change]:
        """The answer of discovery: the resources of this group and version; None: it does not exist."""
        listed = data.get("resources") if data is not None else []
        if not isinstance(listed, list):
            raise ProtocolError("discovery", self.place.discovery, "not a list of resources")
        if any(isinstance(entry, dict) and entry.get("name") == self.place.plural for entry in listed):
            self._denials = 0
            self.absent = False
            self._begin_list()
            return []
        if self._place + 1 < len(self._places):
            self._place += 1
            return []
        self._place = 0
        self._denials += 1
        self.failures = 0
        self._delay_s = self._pace.absent_s * (0.8 + 0.4 * self._random())
        if self._known and self._denials < _ABSENT_LIMIT:
            self.trouble = "not found although it was there before"
            return []
        gone = [Change(key, None) for key in self._known]
        self._known = {}
        self.absent = self.synced = True
        self.trouble = ""
        return gone

    def opened(self) -> None:
        """The server began to answer a STREAM or WATCH."""
        if self._step is Step.WATCH:
            self.trouble = ""
            self.forbidden = False

    def ended(self, lasted_s: float) -> None:
        """A stream ended without an error."""
        if self._step is Step.STREAM:
            self._fail("the list ended before it was complete")
        elif lasted_s < self._pace.short_s:
            self._fail("the watch ended at once")
        else:
            self.failures = 0

    def failed(self, error: MeshError) -> None:
        """A request failed, or a stream broke, or held what is none."""
        self.forbidden = isinstance(error, Forbidden)
        if isinstance(error, NotThere) and self._step is not Step.FIND:
            self._step, self._place = Step.FIND, 0
            self.trouble = str(error) if self._known else self.trouble
            self.failures += 1
            self._delay_s = self._backoff() if self.failures > 1 else 0.0
        elif isinstance(error, Expired):
            self._expired()
        elif self._step is Step.STREAM and isinstance(error, ApiInvalid):
            self._streaming = False
            self._begin_list()
        else:
            if isinstance(error, ProtocolError):
                self._garbage += 1
                if self._garbage >= _GARBAGE_LIMIT and self._step is Step.WATCH:
                    self._begin_list()
                self._continue = ""
            self._fail(str(error))
            if isinstance(error, ApiUnavailable) and error.retry_after_s:
                self._delay_s = max(self._delay_s, min(error.retry_after_s, self._pace.longest_s * 2))

    def silent(self) -> None:
        """Nothing came for `idle_s`."""
        if self._step is Step.STREAM:
            # A server that is too old to know streaming lists may take this for a plain watch and never say "complete".
            self._streaming = False
            self._begin_list()
        else:
            self._fail("silent for too long")

    # --- inside

    def _changed(self, gone: bool, key: str, content: Mapping[str, Any], version: str) -> list[Change]:
        self._seen.add(key)
        if gone:
            self._seen.discard(key)
            return [Change(key, None)] if self._known.pop(key, None) is not None else []
        if self._known.get(key) == version and self._trust_versions:
            return []
        self._known[key] = version
        return [Change(key, content, version)]

    def _complete(self, version: str) -> list[Change]:
        """The list is complete: what it did not hold is gone."""
        gone = [key for key in self._known if key not in self._seen]
        for key in gone:
            del self._known[key]
        self._seen = set()
        self._trust_versions = True
        if self._version and not _later(version, self._version, or_same=True):
            # The server's past is not ours (restored from a copy): the same version may mean something else now.
            self._trust_versions = False
            self._version = ""
            self._begin_list()
        else:
            self._version = version
            self._step = Step.WATCH
        self.relists += self.synced
        self.synced = True
        self.absent = False
        return [Change(key, None) for key in gone]

    def _begin_list(self) -> None:
        self._step = Step.STREAM if self._streaming else Step.PAGE
        self._continue = ""

    def _expired(self) -> None:
        if self._step is Step.PAGE:
            # Even a list whose pages grow too old between two of them has to end: the second time without pages.
            self._paged = self._paged and not self._continue
        self._begin_list()
        self.failures += 1
        self._delay_s = self._backoff() if self.failures > 1 else self._pace.first_s * self._random()

    def _well(self) -> None:
        self.trouble = ""
        self.forbidden = False
        self.failures = self._garbage = 0

    def _advance(self, version: str) -> None:
        if _later(version, self._version):
            self._version = version

    def _fail(self, why: str) -> None:
        self.trouble = why
        self.failures += 1
        self._delay_s = self._backoff()

    def _backoff(self) -> float:
        most = min(self._pace.first_s * 2 ** min(self.failures, 30), self._pace.longest_s)
        # Spread widely: of many that wait the first one finds out, and tells the others (`Follower.hurry`).
        return float(most * (0.1 + 0.9 * self._random()))

    def _key(self, metadata: Mapping[str, Any]) -> str:
        name, namespace = metadata.get("name"), metadata.get("namespace", "")
        if not isinstance(name, str) or not isinstance(namespace, str) or not name:
            raise ProtocolError("watch", self.kind, "an object without a name")
        return record_key(self.kind, namespace, name)

    def _error(self, status: Mapping[str, Any]) -> MeshError:
        code = status.get("code")
        body = msgspec.json.encode({**status, "kind": "Status"})
        return failure(code if isinstance(code, int) else 500, f"watch {self.place.path()}", body)


def _later(version: str, than: str, *, or_same: bool = False) -> bool:
    """Whether one resourceVersion comes after another. Those of one kind count up; what is no number cannot be told."""
    if not (version.isdigit() and than.isdigit() and version.isascii() and than.isascii()):
        return version != than or or_same
    return int(version) >= int(than) if or_same else int(version) > int(than)
