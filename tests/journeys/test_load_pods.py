"""Pods come and go while others talk; the same with 60 pods is part of `./dev campaign load`."""

from __future__ import annotations

from tests.support.load_pods import churn, many_pods


def test_pods_that_come_and_go_leave_nothing_and_disturb_nobody() -> None:
    with many_pods("churn", 9) as mesh:
        scene = churn(mesh, 9, 3)
    assert not scene.broken, str(scene)
    assert scene.figures["tried"] > 200
