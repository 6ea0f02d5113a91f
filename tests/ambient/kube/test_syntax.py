"""Kubernetes' rules for names at their edges."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ambient.kube import syntax


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            syntax.dns_label,
            ["a", "0", "a-b", "a" * 63, "0a"],
            ["", "-a", "a-", "A", "a.b", "a" * 64, "ä", "a_b", "a\n"],
        ),
        (syntax.dns_label_1035, ["a", "a0", "a-0"], ["", "0a", "-a", "a-", "A", "a" * 64]),
        (syntax.dns_subdomain, ["a", "a.b", "0.1", "a-b.c"], ["", ".", "a.", ".a", "a..b", "a.-b", "a" * 254]),
        (
            syntax.qualified_name,
            ["a", "A.b_c-D", "a.b/c", "a" * 63],
            ["", "/", "a/", "/a", "a b", "-a", "a/b/c", "a" * 64],
        ),
        (syntax.port_name, ["a", "a1", "1a", "a-b", "a" * 15], ["", "1", "a" * 16, "A", "a--b", "-a", "a-", "a_b"]),
        (syntax.env_name, ["A", "_a", "a.b", "A-B", "-"], ["", "1A", "A=B", "A B", "ä"]),
        (syntax.ip, ["10.0.0.1", "::1", "fd00::1"], ["", "10.0.0", "10.0.0.1/8", "010.0.0.1", "x"]),
        (
            syntax.ip_block,
            ["10.0.0.1", "10.0.0.1/8", "::/0", "::1"],
            ["", "10.0.0.1/33", "10/8", "10.0.0.0/-1", "::1%1"],
        ),
        (syntax.header_name, ["X-A", "a"], ["", "a b", "a:b", "ä", "a\n"]),
        (syntax.header_value, ["", "a b", "ä"], ["a\nb", "a\r"]),
    ],
)
def test_names(check: Callable[[str], str], good: list[str], bad: list[str]) -> None:
    assert [value for value in good if check(value)] == []
    assert [value for value in bad if not check(value)] == []


@pytest.mark.parametrize(
    ("key", "value", "fine"),
    [
        ("app", "web", True),
        ("app", "", True),
        ("a.b/c", "V.1_2-x", True),
        ("app", "x" * 63, True),
        ("app", "x" * 64, False),
        ("app", "-x", False),
        ("app", "a b", False),
        ("a b", "x", False),
    ],
)
def test_labels(key: str, value: str, fine: bool) -> None:
    assert (syntax.label(key, value) == "") is fine


def test_annotations_may_hold_anything_under_a_valid_key() -> None:
    assert syntax.annotation("Example.com/Key", "any\nthing") == ""
    assert syntax.annotation("a b", "x") != ""
