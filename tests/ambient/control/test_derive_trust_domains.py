"""Trust domains that stand for each other in policies."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive import derive
from ambient.control.derive_world import DeriveSettings
from ambient.model.policy import Match
from tests.support.builders import raw, records, rule, strings


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def when(key: str, *values: str, **rest: list[str]) -> dict[str, Any]:
    return {"when": [{"key": key, "values": list(values), **rest}]}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["td/ns/a/sa/b"], ["td/ns/a/sa/b", "new/ns/a/sa/b", "old/ns/a/sa/b"]),
        (["old/ns/a/*"], ["old/ns/a/*", "new/ns/a/*", "td/ns/a/*"]),
        (["other/ns/a/sa/b"], ["other/ns/a/sa/b"]),
        (["*/ns/a/sa/b"], ["*/ns/a/sa/b"]),
        (["td*"], ["td*"]),
        (["td"], ["td"]),
        (["*"], ["*"]),
        (["td/ns/a/sa/b", "old/ns/a/sa/b"], ["td/ns/a/sa/b", "new/ns/a/sa/b", "old/ns/a/sa/b"]),
    ],
)
def test_names_of_the_same_trust_domain_stand_for_each_other(written: list[str], meant: list[str]) -> None:
    rules = [
        source(principals=written),
        source(notPrincipals=written),
        when("source.principal", *written),
        when("source.principal", notValues=written),
    ]
    wanted = [Match(principals=strings(*meant)), Match(not_principals=strings(*meant))] * 2
    settings = DeriveSettings(trust_domain="td", trust_domain_aliases=frozenset({"old", "new"}))
    objects = records(raw("AuthorizationPolicy", "p", {"rules": rules}))
    found = derive(objects, settings).policies["default/p"].rules
    assert [[set(m.principals) | set(m.not_principals) for m in r[0]] for r in found] == [
        [set(m.principals) | set(m.not_principals)] for m in wanted
    ]
    assert [bool(r[0][0].principals) for r in found] == [True, False] * 2
    assert derive(
        records(raw("AuthorizationPolicy", "p", {"rules": rules})), DeriveSettings(trust_domain="td")
    ).policies["default/p"].rules == (
        rule(Match(principals=strings(*written))),
        rule(Match(not_principals=strings(*written))),
        rule(Match(principals=strings(*written))),
        rule(Match(not_principals=strings(*written))),
    )
