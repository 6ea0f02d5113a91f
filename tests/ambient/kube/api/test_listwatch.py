"""The cycle of listing and watching, one answer at a time."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import MeshError, ProtocolError
from ambient.kube.api.failure import failure, unreachable
from ambient.kube.api.listwatch import Change, ListWatch, Pace, Step
from ambient.kube.objects import resources
from ambient.kube.resource import Resource

PODS = (Resource("v1", "pods"),)
PACE = Pace(first_s=1, longest_s=8, watch_s=100, idle_s=60, start_idle_s=10, absent_s=5, short_s=1)


def core(**options: Any) -> ListWatch:
    return ListWatch("Pod", PODS, pace=PACE, random=lambda: 1.0, **options)


def pod(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version)}, **more}


def added(name: str, version: int) -> dict[str, Any]:
    return {"type": "ADDED", "object": pod(name, version)}


def bookmark(version: int, *, end: bool = False) -> dict[str, Any]:
    annotations = {"k8s.io/initial-events-end": "true"} if end else {}
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version), "annotations": annotations}}}


def page(version: int, *items: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


def keys(changes: list[Change]) -> list[tuple[str, bool]]:
    return [(change.key.removeprefix("Pod/shop/"), change.content is not None) for change in changes]


def refusal(status: int, **kinds: Any) -> MeshError:
    return failure(status, "GET /x", b"", **kinds)


def watching(*names: str, version: int = 100) -> ListWatch:
    """A core that has listed these pods and watches."""
    found = core()
    found.ask()
    for at, name in enumerate(names):
        found.event(added(name, 10 + at))
    found.event(bookmark(version, end=True))
    assert found.ask().step is Step.WATCH
    return found


def test_a_streaming_list_is_complete_at_its_bookmark_and_becomes_the_watch() -> None:
    found = core()
    ask = found.ask()
    assert (ask.step, ask.path) == (Step.STREAM, "/api/v1/pods")
    assert ask.query["sendInitialEvents"] == "true"
    assert ask.query["resourceVersionMatch"] == "NotOlderThan"
    assert "resourceVersion" not in ask.query
    assert keys(found.event(added("a", 5))) == [("a", True)]
    assert keys(found.event(added("b", 3))) == [("b", True)]
    assert not found.synced
    found.event(bookmark(9))
    assert not found.synced
    found.event(bookmark(9, end=True))
    assert found.synced
    assert keys(found.event(added("c", 10))) == [("c", True)]
    assert found.ask().query["resourceVersion"] == "10"


def test_a_node_is_asked_for_by_field_selector() -> None:
    assert core(fields="spec.nodeName=n1").ask().query["fieldSelector"] == "spec.nodeName=n1"


def test_a_server_without_streaming_lists_is_asked_in_pages_then_watched() -> None:
    found = core()
    found.ask()
    found.failed(refusal(422))
    assert found.ask().step is Step.PAGE
    assert keys(found.page(page(50, pod("a", 3), more="next"))) == [("a", True)]
    assert not found.synced
    assert found.ask().query["continue"] == "next"
    changes = found.page(page(50, pod("b", 4)))
    assert keys(changes) == [("b", True)]
    assert changes[0].content is not None
    assert (changes[0].content["kind"], changes[0].content["apiVersion"]) == ("Pod", "v1")
    assert found.synced
    ask = found.ask()
    assert (ask.step, ask.query["resourceVersion"]) == (Step.WATCH, "50")


def test_a_server_that_takes_a_streaming_list_for_a_watch_is_asked_in_pages() -> None:
    found = core()
    found.ask()
    found.event(added("a", 5))
    assert found.idle_s == PACE.start_idle_s
    found.silent()
    assert found.ask().step is Step.PAGE
    assert not found.synced


def test_a_lost_watch_goes_on_from_the_last_version_it_saw() -> None:
    found = watching("a")
    found.event({"type": "MODIFIED", "object": pod("a", 120)})
    found.failed(unreachable("GET", "reset"))
    assert found.trouble
    assert found.ask().query["resourceVersion"] == "120"
    found.event(bookmark(150))
    found.ended(100.0)
    ask = found.ask()
    assert (ask.step, ask.query["resourceVersion"], ask.delay_s) == (Step.WATCH, "150", 0.0)


@pytest.mark.parametrize("in_stream", [False, True])
def test_an_expired_version_leads_to_a_new_list_that_shows_differences_only(in_stream: bool) -> None:
    found = watching("a", "b", "c")
    if in_stream:
        with pytest.raises(MeshError) as caught:
            found.event({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
        assert isinstance(caught.value, MeshError)
        found.failed(caught.value)
    else:
        found.failed(refusal(410))
    assert found.ask().step is Step.STREAM
    assert keys(found.event(added("a", 10))) == []
    assert keys(found.event(added("b", 160))) == [("b", True)]
    assert found.synced
    assert keys(found.event(bookmark(200, end=True))) == [("c", False)]
    assert found.relists == 1


def test_a_relist_that_fails_half_way_takes_nothing_away() -> None:
    found = watching("a", "b")
    found.failed(refusal(410))
    for error in (unreachable("GET", "reset"), refusal(500), refusal(429), ProtocolError("garbage")):
        found.ask()
        assert keys(found.event(added("a", 10))) == []
        found.failed(error)
    found.ask()
    found.ended(0.0)
    found.ask()
    assert keys(found.event(added("b", 11))) == []
    # The parts of several broken lists do not add up to a complete one.
    assert keys(found.event(bookmark(300, end=True))) == [("a", False)]


def test_pages_of_a_broken_list_do_not_count_for_the_next_one() -> None:
    found = core(streaming=False)
    found.ask()
    found.page(page(50, pod("a", 1), pod("b", 2)))
    found.failed(refusal(410))
    found.ask()
    found.page(page(60, pod("a", 1), more="next"))
    found.failed(refusal(410))
    ask = found.ask()
    assert (ask.query["continue"], ask.query["limit"]) == ("", "")
    assert keys(found.page(page(61, pod("b", 2)))) == [("a", False)]


def test_what_is_deleted_is_gone_once() -> None:
    found = watching("a")
    gone = {"type": "DELETED", "object": pod("a", 130)}
    assert keys(found.event(gone)) == [("a", False)]
    assert keys(found.event(gone)) == []
    assert found.stale == 1


def test_events_that_come_twice_or_too_late_change_nothing() -> None:
    found = watching("a")
    assert keys(found.event({"type": "MODIFIED", "object": pod("a", 120)})) == [("a", True)]
    assert keys(found.event({"type": "MODIFIED", "object": pod("a", 120)})) == []
    assert keys(found.event({"type": "MODIFIED", "object": pod("a", 119)})) == []
    assert keys(found.event({"type": "DELETED", "object": pod("a", 118)})) == []
    assert found.stale == 3
    assert keys(found.event({"type": "DELETED", "object": pod("a", 121)})) == [("a", False)]
    assert keys(found.event({"type": "ADDED", "object": pod("a", 120)})) == []


def test_a_server_whose_past_is_not_ours_is_listed_again_without_trusting_versions() -> None:
    found = watching("a", version=500)
    found.failed(refusal(410))
    found.ask()
    assert keys(found.event(added("a", 10))) == []
    found.event(bookmark(90, end=True))
    assert found.ask().step is Step.STREAM
    assert keys(found.event(added("a", 10))) == [("a", True)]
    found.event(bookmark(91, end=True))
    assert found.ask().query["resourceVersion"] == "91"


def test_a_kind_that_is_not_installed_is_known_to_have_no_objects_and_is_looked_for() -> None:
    found = ListWatch("AuthorizationPolicy", resources("AuthorizationPolicy"), pace=PACE, random=lambda: 1.0)
    found.ask()
    found.failed(refusal(404))
    ask = found.ask()
    assert (ask.step, ask.path) == (Step.FIND, "/apis/security.istio.io/v1")
    found.found(None)
    assert not found.synced
    assert found.ask().path == "/apis/security.istio.io/v1beta1"
    found.found({"resources": [{"name": "somethingelse"}]})
    assert found.synced
    assert found.absent
    assert not found.trouble
    assert found.ask().delay_s == pytest.approx(PACE.absent_s * 1.2)
    found.found(None)
    found.ask()
    found.found({"resources": [{"name": "authorizationpolicies"}]})
    ask = found.ask()
    assert (ask.step, ask.path) == (Step.STREAM, "/apis/security.istio.io/v1beta1/authorizationpolicies")


def test_objects_of_a_kind_that_vanishes_stay_until_the_server_has_said_so_again_and_again() -> None:
    found = watching("a")
    found.failed(refusal(404))
    for _ in range(2):
        found.ask()
        assert found.found(None) == []
        assert found.trouble
    found.ask()
    found.failed(refusal(503))
    found.ask()
    assert keys(found.found(None)) == [("a", False)]
    assert found.absent


def test_a_kind_that_is_listed_by_discovery_but_not_served_yet_is_not_asked_without_end() -> None:
    found = core()
    delays = []
    for _ in range(4):
        found.ask()
        found.failed(refusal(404))
        delays.append(found.ask().delay_s)
        found.found({"resources": [{"name": "pods"}]})
    assert delays == sorted(delays)
    assert delays[-1] == PACE.longest_s


def test_what_we_may_not_read_is_named_and_asked_for_again() -> None:
    found = core()
    found.ask()
    found.failed(failure(403, "GET /api/v1/pods", b"pods is forbidden"))
    assert found.forbidden
    assert not found.synced
    assert "pods is forbidden" in found.trouble
    assert found.ask().delay_s > 0
    found.event(added("a", 5))
    found.event(bookmark(9, end=True))
    assert (found.forbidden, found.trouble) == (False, "")


def test_waiting_grows_to_its_limit_and_ends_with_the_first_success() -> None:
    found = watching("a")
    delays = []
    for _ in range(6):
        found.failed(unreachable("GET", "refused"))
        delays.append(found.ask().delay_s)
    assert delays == [2, 4, 8, 8, 8, 8]
    found.event({"type": "MODIFIED", "object": pod("a", 130)})
    found.failed(unreachable("GET", "refused"))
    assert found.ask().delay_s == 2


def test_the_server_says_how_long_to_stay_away_within_reason() -> None:
    found = watching()
    found.failed(refusal(429, retry_after="5"))
    assert found.ask().delay_s == 5
    found.failed(refusal(429, retry_after="86400"))
    assert found.ask().delay_s == PACE.longest_s * 2


def test_a_watch_that_ends_at_once_again_and_again_is_not_opened_without_end() -> None:
    found = watching()
    delays = []
    for _ in range(3):
        found.opened()
        found.ended(0.01)
        delays.append(found.ask().delay_s)
    assert delays == [2, 4, 8]


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        "ADDED",
        {"type": "ADDED"},
        {"type": "ADDED", "object": []},
        {"type": "EXPLODED", "object": pod("a", 200)},
        {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
        {"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": 5}}},
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "200"}}},
        {"type": "ADDED", "object": {"metadata": {"name": ["a"], "resourceVersion": "200"}}},
        {"type": "BOOKMARK", "object": {}},
    ],
)
def test_what_is_no_event_is_refused_and_moves_nothing(garbage: Any) -> None:
    found = watching("a")
    with pytest.raises(ProtocolError):
        found.event(garbage)
    found.failed(ProtocolError("garbage"))
    assert found.ask().query["resourceVersion"] == "100"


def test_garbage_that_comes_at_the_same_place_every_time_leads_to_a_new_list() -> None:
    found = watching("a")
    for _ in range(3):
        assert found.ask().step is Step.WATCH
        found.failed(ProtocolError("garbage"))
    assert found.ask().step is Step.STREAM


@pytest.mark.parametrize("garbage", [{}, {"metadata": {}}, {"metadata": {"resourceVersion": "1"}, "items": "x"}])
def test_what_is_no_list_is_refused(garbage: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        core().page(garbage)


def test_an_error_event_carries_the_servers_words() -> None:
    found = watching()
    with pytest.raises(MeshError, match="etcd is away"):
        found.event({"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}})
