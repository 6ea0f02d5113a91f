"""Texts in routes: what Envoy takes and means as we do, and what is refused."""

from __future__ import annotations

import pytest

from ambient.kube.route_syntax import editable, plain_path, regular_expression


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "(" * 1000 + "a",
        "(" * 510 + "a" + ")" * 510,
        "(?=a)",
        "(?i)a",
        "(?P<n>a)",
        "a*+",
        r"(a)\1",
        r"\bx",
        "[[:alpha:]]",
        "a{1001}",
        "(a{40}){40}",
        f"({'a' * 900}){{900}}",
        f"({'é' * 50}){{30}}",
        f"[{'é' * 400}]{{20}}",
        f"[{'日' * 100}]{{50}}",
        ".{1000}.{1000}.{1000}",
        "(ab){200}(ab){200}",
    ],
)
def test_an_expression_that_envoy_may_not_take_is_refused(text: str) -> None:
    assert regular_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "/a.*",
        "(?:a|b)+",
        r"/v\d{1,3}/[^/]+",
        "^x$",
        "a+?",
        r"\/x\.y",
        r"(?:\d{1,3}\.){3}\d{1,3}",
        "[a-z0-9-]{1,253}",
        "é{900}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "/users/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/.*",
    ],
)
def test_an_expression_that_envoy_takes_is_taken(text: str) -> None:
    assert regular_expression(text) == ""


@pytest.mark.parametrize("text", ["/a//b", "/a/./b", "/a/..", "/a%2Fb", "/a%zz", "/a?b", "/a#b", "a", "/a b", "/a\\b"])
def test_a_path_that_no_plain_request_has_is_refused(text: str) -> None:
    assert plain_path(text)
    assert plain_path("/a%20b/c.d") == ""


@pytest.mark.parametrize("name", ["X-Forwarded-Client-Cert", "Host", "connection"])
def test_a_header_that_only_the_proxy_may_say_is_nothing_that_a_route_changes(name: str) -> None:
    assert "may not be changed" in editable(name)
    assert editable("x-forwarded-other") == ""
