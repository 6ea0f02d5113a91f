"""Whatever a server does in whatever order: in the end what is known is what there is, and nothing was called gone that
had never been deleted."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.errors import MeshError, ProtocolError
from ambient.kube.api.failure import failure, unreachable
from ambient.kube.api.listwatch import Ask, Change, ListWatch, Pace, Step
from ambient.kube.resource import Resource

NAMES = "abc"
PODS = (Resource("v1", "pods"), Resource("v2", "pods"))


class Server:
    """The truth, its history since the last compaction, and every version that ever was."""

    def __init__(self, *, streaming: bool) -> None:
        self.streaming = streaming
        self.version = 10
        self.objects: dict[str, int] = {}
        self.history: list[tuple[int, str, str]] = []
        self.everything: list[tuple[int, str, str]] = []
        self.compacted = 10
        self.deleted: set[str] = set()

    def put(self, name: str) -> None:
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = self.version
        self._happened(kind, name)

    def delete(self, name: str) -> None:
        if self.objects.pop(name, None) is not None:
            self.version += 1
            self.deleted.add(name)
            self._happened("DELETED", name)

    def _happened(self, kind: str, name: str) -> None:
        self.history.append((self.version, kind, name))
        self.everything.append((self.version, kind, name))

    def compact(self) -> None:
        self.history, self.compacted = [], self.version

    def at(self, version: int) -> dict[str, int]:
        """The objects as they were at a version. Raises Expired."""
        if version < self.compacted:
            raise failure(410, "GET", b"")
        found: dict[str, int] = {}
        for when, kind, name in self.everything:
            if when <= version:
                found.pop(name, None)
                if kind != "DELETED":
                    found[name] = when
        return found


def content(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": str(version)}}


class Client:
    """The core and what a reader of its changes knows."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.core = ListWatch("Pod", PODS, pace=Pace(short_s=0), random=lambda: 0.5)
        self.known: dict[str, int] = {}

    def take(self, changes: list[Change]) -> None:
        for change in changes:
            name = change.key.rpartition("/")[2]
            if change.content is None:
                assert name in self.known, "gone twice"
                assert name in self.server.deleted, "never deleted"
                del self.known[name]
            else:
                assert change.version
                self.known[name] = int(change.version)

    def attempt(self, fault: str, after: int) -> None:
        """One request, going wrong in this way after so many lines or pages ("" = as it should)."""
        ask = self.core.ask()
        try:
            self._answer(ask, fault, after)
        except MeshError as error:
            self.core.failed(error)

    def _answer(self, ask: Ask, fault: str, after: int) -> None:
        server = self.server
        status = {"forbidden": 403, "busy": 429, "broken": 500, "gone": 410}.get(fault)
        if status is not None and after == 0:
            raise failure(status, "GET", b"")
        if fault == "absent" and ask.step is not Step.FIND:
            raise failure(404, "GET", b"")
        match ask.step:
            case Step.FIND:
                if fault == "broken":
                    raise failure(500, "GET", b"")
                self.take(self.core.found({"resources": [{"name": "pods"}]}))
            case Step.PAGE:
                self._pages(ask, fault)
            case Step.STREAM if not server.streaming:
                raise failure(422, "GET", b"")
            case _:
                self._lines(ask, fault, after)

    def _pages(self, ask: Ask, fault: str) -> None:
        if fault == "garbage":
            self.take(self.core.page({"metadata": {}}))
        # Pages of one list are all of the version that the first was of, as long as that is remembered.
        version, _, begin = (ask.query.get("continue") or f"{self.server.version}:0").partition(":")
        objects = self.server.at(int(version))
        names, first = sorted(objects), int(begin)
        size = 1 if ask.query.get("limit") else len(names) or 1
        items = [content(name, objects[name]) for name in names[first : first + size]]
        more = f"{version}:{first + size}" if first + size < len(names) else ""
        self.take(self.core.page({"metadata": {"resourceVersion": version, "continue": more}, "items": items}))

    def _lines(self, ask: Ask, fault: str, after: int) -> None:
        server = self.server
        if ask.step is Step.STREAM:
            lines = [("ADDED", name, version) for name, version in sorted(server.objects.items())]
            lines.append(("END", "", server.version))
        else:
            since = int(ask.query["resourceVersion"])
            if since < server.compacted:
                raise failure(410, "GET", b"")
            lines = [(kind, name, version) for version, kind, name in server.history if version > since]
        self.core.opened()
        twice = fault == "twice"
        for at, (kind, name, version) in enumerate(lines):
            if fault and not twice and at >= after:
                break
            for _ in range(1 + twice):
                self.take(self.core.event(self._line(kind, name, version)))
            if twice and ask.step is Step.WATCH and at:
                self.take(self.core.event(self._line(*lines[at - 1])))
        if fault == "reset":
            raise unreachable("GET", "reset")
        if fault == "garbage":
            raise ProtocolError("watch", "Pod", "garbage")
        if fault == "gone":
            self.core.event({"type": "ERROR", "object": {"code": 410, "message": "old"}})
        if fault == "silent":
            self.core.silent()
        else:
            self.core.ended(100.0)

    @staticmethod
    def _line(kind: str, name: str, version: int) -> dict[str, Any]:
        if kind == "END":
            annotations = {"k8s.io/initial-events-end": "true"}
            return {
                "type": "BOOKMARK",
                "object": {"metadata": {"resourceVersion": str(version), "annotations": annotations}},
            }
        return {"type": kind, "object": content(name, version)}


FAULTS = ["", "", "reset", "garbage", "gone", "silent", "twice", "forbidden", "busy", "broken", "absent"]
ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES)),
    st.tuples(st.just("compact")),
    st.tuples(st.just("ask"), st.sampled_from(FAULTS), st.integers(0, 4)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=40), st.booleans())
def test_what_is_known_in_the_end_is_what_there_is(actions: list[tuple[Any, ...]], streaming: bool) -> None:
    server = Server(streaming=streaming)
    client = Client(server)
    for action in actions:
        match action:
            case "put", name:
                server.put(name)
            case "delete", name:
                server.delete(name)
            case ("compact",):
                server.compact()
            case "ask", fault, after:
                client.attempt(fault, after)
    for _ in range(12):
        client.attempt("", 0)
    assert client.known == server.objects
    assert client.core.synced
    assert not client.core.trouble
