"""What the server's refusals become."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.kube.api.failure import ApiUnavailable, Conflict, Expired, Forbidden, NotThere, failure
from tests.support.kube_api import status_body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotThere),
        (409, Conflict),
        (410, Expired),
        (405, Refused),
        (415, InvalidInput),
        (422, InvalidInput),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (302, Refused),
    ],
)
def test_each_status_has_its_error_and_names_what_where_and_why(status: int, kind: type[MeshError]) -> None:
    error = failure(status, "GET /api/v1/pods", status_body(status, "Because", "pods is forbidden"))
    assert type(error) is not MeshError
    assert isinstance(error, kind)
    assert (error.where, error.why) == ("GET /api/v1/pods", "pods is forbidden")
    assert (error.status, error.reason) == (status, "Because")  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"\xff\xfe", b"<html>\nno", b'{"kind": "Pod"}', b'{"kind'])
def test_an_answer_that_is_no_status_object_still_makes_an_error(body: bytes) -> None:
    error = failure(503, "GET /x", body)
    assert isinstance(error, ApiUnavailable)
    assert error.why
    assert "\n" not in error.why


def test_the_server_says_how_long_to_stay_away_in_a_header_or_in_its_status() -> None:
    by_header = failure(429, "GET /x", b"", retry_after="7")
    assert isinstance(by_header, ApiUnavailable)
    assert by_header.retry_after_s == 7
    body = b'{"kind":"Status","message":"m","details":{"retryAfterSeconds":3}}'
    by_body = failure(503, "GET /x", body, retry_after="soon")
    assert isinstance(by_body, ApiUnavailable)
    assert by_body.retry_after_s == 3


def test_only_what_was_certainly_not_carried_out_is_certain() -> None:
    busy, broken = failure(429, "POST /x", b""), failure(500, "POST /x", b"")
    assert isinstance(busy, ApiUnavailable)
    assert isinstance(broken, ApiUnavailable)
    assert not busy.uncertain
    assert broken.uncertain
