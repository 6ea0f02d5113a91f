"""Whose a ConfigMap is, and whether it says what it should."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ambient.control.root_plan import Wanted, inherited, is_ours, is_right

WANTED = Wanted("ROOTS", "2026-05-04T12:00:00+00:00")
OURS = WANTED.content("istio-ca-root-cert")


def changed(**metadata: Any) -> dict[str, Any]:
    return {**OURS, "metadata": {**OURS["metadata"], **metadata}}


def written_by(manager: str, *fields: str) -> list[dict[str, Any]]:
    return [{"manager": manager, "fieldsV1": {f"f:{name}": {} for name in fields}}]


def test_what_we_make_is_ours_and_right() -> None:
    assert is_ours(OURS)
    assert is_right(OURS, WANTED)


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (changed(labels={}), False),
        (changed(labels=None), False),
        (changed(labels={"istio.io/config": "true"}), False),
        (changed(managedFields=written_by("ambient", "data", "metadata")), True),
        (changed(managedFields=written_by("kubectl-edit", "data")), True),
        (changed(managedFields=written_by("pilot-discovery", "data")), False),
        (changed(managedFields=written_by("cert-manager-istio-csr", "data")), False),
        (changed(managedFields=written_by("pilot-discovery", "metadata")), True),
    ],
)
def test_it_is_somebody_elses_without_our_label_or_when_another_control_plane_writes_it(
    content: dict[str, Any], ours: bool
) -> None:
    assert is_ours(content) is ours


@pytest.mark.parametrize(
    "content",
    [
        {**OURS, "data": {"root-cert.pem": "other"}},
        {**OURS, "data": {"root-cert.pem": "ROOTS", "more": "x"}},
        {**OURS, "data": None},
        changed(annotations={}),
    ],
)
def test_what_was_edited_is_not_right(content: dict[str, Any]) -> None:
    assert not is_right(content, WANTED)


def test_what_was_trusted_before_is_read_from_our_own_only() -> None:
    assert inherited(OURS) == ("ROOTS", datetime(2026, 5, 4, 12, tzinfo=UTC))
    assert inherited(changed(labels={})) is None
    assert inherited(changed(annotations={})) is None
    assert inherited(Wanted("ROOTS").content("x")) is None
