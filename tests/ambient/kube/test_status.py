"""What writers say about objects: files, uids, counts."""

from __future__ import annotations

import json
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
