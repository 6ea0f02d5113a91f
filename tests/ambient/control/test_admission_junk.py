"""Whatever the API server (or somebody who claims to be it) sends: a review or InvalidInput, never a crash."""

from __future__ import annotations

import json
import os
from random import Random
from typing import Any

from ambient.control.admission import review
from ambient.errors import InvalidInput
from tests.ambient.kube.test_junk import objects, spoilt
from tests.support.admission import VIEW, asked, policy

ROUNDS = int(os.environ.get("AMBIENT_JUNK_ROUNDS", "3000"))


def reviews() -> list[dict[str, Any]]:
    found = [asked(one) for one in objects()]
    before = policy("{rules: [{}]}", finalizers=["example.com/x"])
    return [*found, asked(policy("{action: DENY}"), operation="UPDATE", oldObject=before)]


def test_spoilt_reviews_are_answered_or_refused_as_a_whole() -> None:
    random, originals = Random(7), reviews()
    verdicts = {"allowed": 0, "refused": 0, "unreadable": 0}
    for _ in range(ROUNDS):
        body = spoilt(random, random.choice(originals))
        try:
            answer = review(body, VIEW)["response"]
        except InvalidInput:
            verdicts["unreadable"] += 1
            continue
        json.dumps(answer)
        verdicts["allowed" if answer["allowed"] else "refused"] += 1
    assert all(verdicts.values()), verdicts
