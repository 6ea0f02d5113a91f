"""The mesh gets another root under load, with certificates that live a minute: nothing fails, by the book."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.journey import Journey
from tests.support.root_rotation import rotated, short_lives


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with short_lives("roots") as found:
        yield found


def test_no_connection_fails_while_the_root_is_changed_through_a_time_with_both(mesh: Journey) -> None:
    scene = rotated(mesh, "by the book")
    print(scene)
    assert not scene.broken, str(scene)


def test_the_control_plane_changes_its_own_root_on_request_and_no_connection_fails(mesh: Journey) -> None:
    scene = rotated(mesh, "by request")
    print(scene)
    assert not scene.broken, str(scene)


def test_sabotage_a_root_that_takes_the_place_of_the_other_at_once_is_noticed(mesh: Journey) -> None:
    assert "a connection failed" in str(rotated(mesh, "at once"))
