"""Whatever is thrown at the border, it answers with a record or with InvalidInput, never with a crash."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ambient.control.derive import derive
from ambient.control.derive_world import DeriveSettings
from ambient.errors import InvalidInput
from ambient.kube.objects import KINDS, Records, RefusedObject, parse_object
from ambient.kube.yaml import parse_each

ROUNDS = int(os.environ.get("AMBIENT_JUNK_ROUNDS", "4000"))
GOLDEN = Path(__file__).parents[2] / "golden" / "kubernetes.json"
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 80, 2**70, 1.5, "", "x", "*", "a/b", "::1", "10.0.0.1/8", "a\x00", "²", "\ud800"),
    *([], [None], [[]], {}, {"x": None}, {1: 2}, {"": ""}, ["x"] * 20, [{"name": "x"}]),
)


def objects() -> list[dict[str, Any]]:
    return [one for one in json.loads(GOLDEN.read_text()) if one["kind"] in KINDS]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inside for place in places(child, (*path, key)))]


def spoilt(random: Random, original: dict[str, Any]) -> Any:
    """A copy with one to three values replaced by junk, removed, or put under another key."""
    value = copy.deepcopy(original)
    for _ in range(random.randint(1, 3)):
        path = random.choice(places(value))
        if not path:
            return copy.deepcopy(random.choice(JUNK))
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if random.random() < 0.2:
            del parent[path[-1]]
        elif random.random() < 0.1 and isinstance(parent, dict):
            parent[random.choice(("x", "name", "kind", "spec"))] = parent.pop(path[-1])
        else:
            parent[path[-1]] = copy.deepcopy(random.choice(JUNK))
    return value


def test_spoilt_objects_are_records_or_refusals_and_can_be_derived_from() -> None:
    random = Random(11)
    originals = objects()
    outcomes = {True: 0, False: 0}
    unexplained = 0
    for _ in range(ROUNDS):
        value = spoilt(random, random.choice(originals))
        try:
            record = parse_object(value, "junk", observed=random.random() < 0.5)
        except InvalidInput as error:
            unexplained += not error.why
            outcomes[False] += 1
            raw = value if isinstance(value, dict) else {}
            kind = random.choice(("AuthorizationPolicy", "PeerAuthentication"))
            derive(Records(refused=(RefusedObject(kind, "default", "x", error, raw),)), DeriveSettings())
        else:
            outcomes[True] += 1
            derive(Records(by_key={record.key: record}), DeriveSettings())
    assert unexplained == 0
    assert min(outcomes.values()) > ROUNDS // 20


def test_spoilt_text_is_records_or_refusals() -> None:
    random = Random(12)
    texts = [json.dumps(one, indent=1) for one in objects()[:12]]
    texts.append("---\n".join("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a%d\n" % i for i in range(5)))  # noqa: UP031
    for _ in range(ROUNDS // 10):
        text = list(random.choice(texts))
        for _ in range(random.randint(1, 8)):
            at = random.randrange(len(text))
            text[at : at + random.randint(0, 4)] = random.choice(
                ("", "\t", "\n", "- ", "&a ", "*a", "{", "]", ":", "'", "\x00", "---\n", "!!x ")
            )
        for outcome in parse_each("".join(text), "junk"):
            assert isinstance(outcome, InvalidInput) or outcome.kind in KINDS


DEEP = "(" * 1000 + "a"
PARENT = [{"name": "web", "kind": "Service", "group": ""}]
VIRTUAL = "networking.istio.io/v1"
ROUTE = "gateway.networking.k8s.io/v1"


def virtual(**match: Any) -> dict[str, Any]:
    http = [{"match": [match], "route": [{"destination": {"host": "web"}}]}]
    return {"apiVersion": VIRTUAL, "kind": "VirtualService", "spec": {"hosts": ["web"], "http": http}}


def route(kind: str, **match: Any) -> dict[str, Any]:
    return {"apiVersion": ROUTE, "kind": kind, "spec": {"parentRefs": PARENT, "rules": [{"matches": [match]}]}}


@pytest.mark.parametrize(
    "content",
    [
        route("HTTPRoute", path={"type": "RegularExpression", "value": DEEP}),
        route("HTTPRoute", headers=[{"type": "RegularExpression", "name": "x", "value": DEEP}]),
        route("HTTPRoute", queryParams=[{"type": "RegularExpression", "name": "x", "value": DEEP}]),
        route("GRPCRoute", method={"type": "RegularExpression", "service": DEEP}),
        route("GRPCRoute", headers=[{"type": "RegularExpression", "name": "x", "value": DEEP}]),
        virtual(uri={"regex": DEEP}),
        virtual(headers={"x": {"regex": DEEP}}),
    ],
)
def test_an_expression_of_a_thousand_groups_within_each_other_is_refused(content: dict[str, Any]) -> None:
    content["metadata"] = {"name": "deep", "namespace": "shop"}
    with pytest.raises(InvalidInput, match="within each other"):
        parse_object(content, "junk", observed=True)
