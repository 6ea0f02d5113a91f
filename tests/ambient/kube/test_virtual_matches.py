"""Matches of VirtualServices: those for gateways alone are none inside of the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.read import Field, Object
from ambient.kube.routing import PathMatch, RouteMatch, TextMatch
from ambient.kube.virtual_matches import request_matches, stream_matches


def entry(*matches: dict[str, Any]) -> Object:
    return Object(Field({"match": list(matches)}, "spec.http[0]", "x"))


def test_without_a_match_everything_fits() -> None:
    everything = ((RouteMatch(PathMatch("Prefix", "/")), 0),)
    assert request_matches(entry()) == everything == request_matches(Object(Field({}, "at", "x")))
    assert stream_matches(entry(), tls=False) == (((), 0),)


def test_a_match_for_gateways_alone_fits_nothing_here() -> None:
    assert request_matches(entry({"gateways": ["ingress"]})) == ()
    assert len(request_matches(entry({"gateways": ["ingress", "mesh"]}))) == 1
    assert stream_matches(entry({"gateways": ["ingress"], "port": 80}), tls=False) == ()


def test_a_method_that_is_no_word_is_a_header() -> None:
    ((match, _),) = request_matches(entry({"method": {"regex": "P.*"}}))
    assert (match.method, match.headers) == ("", (TextMatch(":method", "P.*", "RegularExpression"),))
    ((match, _),) = request_matches(entry({"headers": {"x": {"prefix": ""}}}))
    assert match.headers == (TextMatch("x", "", "Present"),)


@pytest.mark.parametrize("field", ["sourceLabels", "sourceSubnet", "destinationSubnets"])
def test_what_cannot_be_known_is_refused_wherever_it_stands(field: str) -> None:
    with pytest.raises(InvalidInput, match="not "):
        stream_matches(entry({field: {"a": "b"}}), tls=False)
