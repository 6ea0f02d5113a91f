"""What writers say about objects: files, uids, counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ambient.errors import InvalidInput
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Condition, WriterState
from ambient.kube.status import StatusWriter, file_name, revision_state
from tests.support.builders import raw_pod as pod
from tests.support.builders import records

KEY = "Pod/default/a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ObjectFolder(tmp_path).put(records(pod("a")).by_key.values())
    return tmp_path


def said(root: Path, writer: str = "w") -> dict[str, object]:
    content: dict[str, object] = json.loads((root / "status" / writer / "Pod.default.a.json").read_text())
    return content


def test_a_file_carries_the_uid_of_the_object_it_speaks_about(root: Path) -> None:
    StatusWriter(root, "w").annotate(KEY, {"a": "1"})
    stored = ObjectFolder(root).stored(KEY)
    assert stored is not None
    assert said(root) == {"uid": stored["metadata"]["uid"], "annotations": {"a": "1"}}


def test_conditions_keep_their_time_while_the_status_stays(root: Path) -> None:
    writer = StatusWriter(root, "w")
    writer.conditions(KEY, [Condition("T", "True", "R", "one")])
    path = root / "status" / "w" / "Pod.default.a.json"
    content = said(root)
    old = "2020-01-01T00:00:00Z"
    content["conditions"][0]["lastTransitionTime"] = old  # type: ignore[index]
    path.write_text(json.dumps(content))
    writer.conditions(KEY, [Condition("T", "True", "R", "two")])
    assert said(root)["conditions"] == [
        {"type": "T", "status": "True", "reason": "R", "message": "two", "lastTransitionTime": old}
    ]
    writer.conditions(KEY, [Condition("T", "False", "R", "two")])
    assert said(root)["conditions"][0]["lastTransitionTime"] != old  # type: ignore[index]


def test_a_name_that_no_file_can_have_is_refused(root: Path) -> None:
    longest = f"Pod/{'n' * 115}/{'p' * 115}"
    assert len(file_name(longest)) == 240
    StatusWriter(root, "w").annotate(longest, {"a": "1"})
    with pytest.raises(InvalidInput, match="241 characters"):
        file_name(longest + "p")


def test_what_is_forgotten_or_seen_again_counts_once(root: Path) -> None:
    writer = StatusWriter(root, "w")
    writer.annotate(KEY, {"a": "1"})
    state = root / "status" / "w" / ".revision"
    assert revision_state(state) == WriterState(0, 1)
    writer.forget(KEY)
    writer.forget(KEY)
    writer.observed(7)
    assert revision_state(state) == WriterState(7, 2)
    state.unlink()
    writer.observed(7)
    assert not state.exists()


@pytest.mark.parametrize("content", ["", "{}", '{"observed": "1", "status": []}'])
def test_a_revision_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".revision").write_text(content)
    assert revision_state(tmp_path / ".revision") == WriterState(0, 0)
    assert revision_state(tmp_path / "absent") == WriterState(0, 0)


def test_what_is_said_of_a_record_goes_by_its_uid_and_not_by_what_is_stored(root: Path) -> None:
    (old,) = ObjectFolder(root).records().by_key.values()
    writer = StatusWriter(root, "w")
    writer.annotate(replace(old, uid="another"), {"a": "1"})
    assert said(root)["uid"] == "another"
    (root / "objects" / "Pod.default.a.json").write_text('{"metadata": 1}')
    writer.annotate(KEY, {"b": "1"})
    assert said(root) == {"uid": "", "annotations": {"b": "1"}}


def test_fields_are_set_and_taken_away(root: Path) -> None:
    writer = StatusWriter(root, "w")
    writer.set(KEY, phase="Running", ready=False)
    writer.set(KEY, phase=None)
    assert said(root)["ready"] is False
    assert "phase" not in said(root)


def test_saying_nothing_about_something_makes_no_file(root: Path) -> None:
    writer = StatusWriter(root, "w")
    writer.annotate(KEY, {"a": None})
    writer.conditions(KEY, [])
    writer.forget(KEY)
    assert sorted(p.name for p in (root / "status" / "w").iterdir()) == []


def test_a_broken_file_of_its_own_is_replaced(root: Path) -> None:
    writer = StatusWriter(root, "w")
    (root / "status" / "w" / "Pod.default.a.json").write_text("{")
    writer.annotate(KEY, {"a": "1"})
    assert said(root)["annotations"] == {"a": "1"}


def test_observed_and_status_count_apart(root: Path) -> None:
    writer = StatusWriter(root, "w")
    writer.observed(5)
    writer.annotate(KEY, {"a": "1"})
    writer.observed(6)
    assert revision_state(root / "status" / "w" / ".revision") == WriterState(6, 1)


def test_keys_become_file_names() -> None:
    assert file_name("Namespace/_/shop") == "Namespace._.shop.json"
    for bad in ("Pod/a", "Pod/a/b/c", "Pod/../b", "", "Pod/a/" + "x" * 240):
        with pytest.raises(InvalidInput):
            file_name(bad)
