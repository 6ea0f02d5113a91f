"""The syntax of Istio's log filter: what counts for which target, and how it is shown."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ztunnel.telemetry.log_filter import LEVELS, parse_filter


def level(text: str, scope: str) -> str:
    return LEVELS[parse_filter(text).threshold(scope)]


@pytest.mark.parametrize(
    ("text", "scope", "wanted"),
    [
        ("info", "access", "info"),
        ("info,access=off", "access", "off"),
        ("info,access=off", "dns", "info"),
        ("proxy=warn,proxy::inbound=trace,error", "proxy::inbound", "trace"),
        ("proxy=warn,proxy::inbound=trace,error", "proxy", "warn"),
        ("ztunnel::proxy=debug,info", "proxy::inbound", "debug"),
        ("ztunnel=debug,info", "worker", "debug"),
        ("access=debug", "worker", "off"),
        ("info,debug", "x", "debug"),
        ("access=info,access=error", "access", "error"),
        ("access=DEBUG", "access", "debug"),
        ("access=3", "access", "info"),
        ("access=0", "access", "off"),
    ],
)
def test_the_longest_clause_that_fits_decides_and_of_equal_ones_the_last(text: str, scope: str, wanted: str) -> None:
    assert level(text, scope) == wanted


def test_it_is_shown_with_longer_targets_first_and_the_rest_last() -> None:
    golden = "hickory_server::server=off,info"
    assert str(parse_filter(golden)) == golden
    assert str(parse_filter("info,a=debug,hickory_server::server=off")) == "hickory_server::server=off,a=debug,info"
    # Of equally long ones the later in the alphabet, as a real one shows them.
    assert str(parse_filter("x=debug,zz=info,aa=info,m=info,info")) == "zz=info,aa=info,x=debug,m=info,info"


def test_later_clauses_take_the_place_of_earlier_ones() -> None:
    both = parse_filter("info,access=off").and_then(parse_filter("debug"))
    assert str(both) == "access=off,debug"
    assert LEVELS[both.lowest] == "debug"


@pytest.mark.parametrize(
    "text", ["", "loud", "access", "=info", "a=loud", "info,,debug", "INFO", "a:debug", "3", "a=6", "a=-1"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        parse_filter(text)
