"""Label selectors as text: what they fit, and what is no selector."""

from __future__ import annotations

import pytest

from ambient.kube.selectors import parse_selectors


@pytest.mark.parametrize(
    ("text", "labels", "fits"),
    [
        ("env=prod", {"env": "prod"}, True),
        ("env==prod", {"env": "prod"}, True),
        ("env=prod", {"env": "test"}, False),
        ("env = prod", {"env": "prod"}, True),
        ("env!=prod", {"env": "test"}, True),
        ("env!=prod", {}, True),
        ("env!=prod", {"env": "prod"}, False),
        ("env=", {"env": ""}, True),
        ("team in (a, b)", {"team": "b"}, True),
        ("team in (a,b)", {"team": "c"}, False),
        ("team notin (a)", {"team": "a"}, False),
        ("team notin (a)", {}, True),
        ("mesh.example.com/on", {"mesh.example.com/on": ""}, True),
        ("on", {}, False),
        ("!on", {}, True),
        ("!on", {"on": ""}, False),
        ("env=prod,team in (a,b),!off", {"env": "prod", "team": "a"}, True),
        ("env=prod,team in (a,b),!off", {"env": "prod", "team": "a", "off": ""}, False),
        ("env=prod;env=test", {"env": "test"}, True),
        ("env=prod;env=test", {"env": "dev"}, False),
    ],
)
def test_one_of_the_selectors_has_to_fit_as_a_whole(text: str, labels: dict[str, str], fits: bool) -> None:
    assert any(selector.fits(labels) for selector in parse_selectors(text)) is fits


@pytest.mark.parametrize("text", ["", " "])
def test_nothing_is_no_selector(text: str) -> None:
    assert parse_selectors(text) == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a=b,", "has an empty part"),
        (";", "has an empty part"),
        ("a b", "not a valid key"),
        ("team in a", "not a valid key"),
        ("-x=1", "not a valid key"),
        ("a=b c", "not a valid key"),
        ("a in (-)", "not a label value"),
        ("/x", "the prefix before '/'"),
    ],
)
def test_what_is_no_selector_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_selectors(text)
