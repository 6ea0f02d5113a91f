"""Parts of VirtualServices: origins, faults and rewrites as Envoy takes them."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.read import Field
from ambient.kube.routing import Fault, TextMatch
from ambient.kube.virtual_parts import cors_policy, fault, rewrite


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"delay": {"fixedDelay": "1s"}}, Fault(1000, 1_000_000)),
        ({"delay": {"fixedDelay": "1s", "percent": 3}}, Fault(1000, 30_000)),
        ({"abort": {"grpcStatus": "UNAVAILABLE"}}, Fault(grpc=14, abort_share=1_000_000)),
        ({"abort": {"httpStatus": 500, "percentage": {"value": 0.01}}}, Fault(status=500, abort_share=100)),
        ({"abort": {"httpStatus": 500, "percentage": {}}}, Fault(status=500)),
    ],
)
def test_a_share_is_everything_where_none_is_given(given: dict[str, Any], read: Fault) -> None:
    assert fault(Field(given, "fault", "x")) == read


def test_an_old_list_of_origins_is_read_and_a_star_is_any() -> None:
    found = cors_policy(Field({"allowOrigin": ["*", "https://a.b"]}, "cors", "x"))
    assert found.origins == (TextMatch("", ".*", "RegularExpression"), TextMatch("", "https://a.b"))
    assert found.forward
    any_prefix = cors_policy(Field({"allowOrigins": [{"prefix": ""}]}, "cors", "x"))
    assert any_prefix.origins == found.origins[:1]


@pytest.mark.parametrize("text", [r"/\1", r"/\x", "/\\", "/\\²"])
def test_a_substitution_names_groups_that_are_there(text: str) -> None:
    with pytest.raises(InvalidInput, match="stands for nothing"):
        rewrite(Field({"uriRegexRewrite": {"match": "/a", "rewrite": text}}, "rewrite", "x"))
    assert rewrite(Field({"uriRegexRewrite": {"match": "/a", "rewrite": r"/\0\\"}}, "rewrite", "x")).path
