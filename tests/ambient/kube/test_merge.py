"""An object and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.merge import merged

POD: dict[str, Any] = {"metadata": {"uid": "u", "annotations": {"a": "1"}}, "status": {"phase": "Pending"}}


def test_later_writers_win_and_the_object_itself_stays() -> None:
    first = {
        "uid": "u",
        "annotations": {"a": "2", "b": "1"},
        "phase": "Running",
        "conditions": [{"type": "T", "status": "x"}],
    }
    second = {"uid": "u", "annotations": {"b": "2"}, "conditions": [{"type": "T", "status": "y"}, {"type": "U"}]}
    result = merged(POD, [first, second])
    assert result["metadata"]["annotations"] == {"a": "2", "b": "2"}
    assert result["status"]["phase"] == "Running"
    assert result["status"]["conditions"] == [{"type": "T", "status": "y"}, {"type": "U"}]
    assert POD == {"metadata": {"uid": "u", "annotations": {"a": "1"}}, "status": {"phase": "Pending"}}


def test_what_speaks_about_another_uid_is_left_out() -> None:
    assert merged(POD, [{"uid": "other", "phase": "Running"}])["status"] == {"phase": "Pending"}


def test_conditions_of_the_object_are_kept() -> None:
    pod = {**POD, "status": {"conditions": [{"type": "A"}]}}
    assert merged(pod, [{"uid": "u", "conditions": [{"type": "B"}]}])["status"]["conditions"] == [
        {"type": "A"},
        {"type": "B"},
    ]


@pytest.mark.parametrize("raw", [{}, {"metadata": None}, {"metadata": "x"}])
def test_without_metadata_nothing_is_merged(raw: dict[str, Any]) -> None:
    assert merged(raw, [{"phase": "Running"}]) == raw


@pytest.mark.parametrize("odd", [{"annotations": "x"}, {"conditions": "x"}, {"conditions": ["x"]}])
def test_odd_statuses_break_nothing(odd: dict[str, Any]) -> None:
    assert merged({"metadata": {"uid": "u"}}, [{"uid": "u", **odd}])["metadata"]["annotations"] == {}
    assert (
        merged({"metadata": {"uid": "u", "annotations": "x"}, "status": "x"}, [{"uid": "u"}])["metadata"]["uid"] == "u"
    )
