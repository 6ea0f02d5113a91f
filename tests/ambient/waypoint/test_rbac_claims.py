"""What can be said of a token, and what cannot."""

from __future__ import annotations

import pytest

from ambient.waypoint.rbac_claims import CannotSay, claim, request_principal


@pytest.mark.parametrize("value", ["*", "https://issuer/subject", "*/subject", "https://issuer/*"])
def test_a_principal_of_a_request_is_issuer_and_subject(value: str) -> None:
    parts = request_principal(value)["and_ids"]["ids"]
    last = [one["sourced_metadata"]["metadata_matcher"]["path"][-1] for one in parts]
    assert last == [{"key": "iss"}, {"key": "sub"}]


@pytest.mark.parametrize("value", ["subject", "https://iss*/subject", "https://issuer/sub*"])
def test_other_forms_are_not_said(value: str) -> None:
    with pytest.raises(CannotSay):
        request_principal(value)


def test_a_claim_within_a_claim_is_found_by_its_path() -> None:
    text, listed = claim("request.auth.claims[a][b]", "x")["or_ids"]["ids"]
    for one in (text, listed):
        path = one["sourced_metadata"]["metadata_matcher"]["path"]
        assert path == [{"key": "payload"}, {"key": "a"}, {"key": "b"}]


def test_a_key_that_is_no_tokens_is_refused() -> None:
    with pytest.raises(CannotSay):
        claim("connection.sni", "x")
