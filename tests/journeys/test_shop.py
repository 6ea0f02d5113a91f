"""The sample shop, in the lab as a newcomer runs it: whole, then in the mesh, then held to its policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.lab import LabUnderTest, lab_under_test, until

SAMPLE: Final = Path(__file__).parents[2] / "daemonset" / "sample"
POLICIES: Final = (SAMPLE / "policies.yaml").read_text()
WEB: Final = "shop/web-v1"
VISITOR: Final = "shop/visitor"


def _ask(lab: LabUnderTest, pod: str, url: str) -> dict[str, Any]:
    """The answer, an error's too; {} when the connection was refused."""
    said = lab.exec(pod, "python3", "/srv/shop.py", url).stdout
    answer: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
    return answer


def _everybody(answer: dict[str, Any]) -> set[str]:
    return {answer["service"]}.union(*(_everybody(one) for one in answer.get("asked", [])))


def _buys(lab: LabUnderTest) -> bool:
    """Whether an order goes through all four services and into the database."""
    answer = _ask(lab, WEB, "http://[::1]:8080/buy/lamp")
    return "error" not in answer and _everybody(answer) == {"web", "cart", "orders", "payment"}


def test_the_manifest_carries_the_program_word_for_word() -> None:
    documents = [one for one in yaml.safe_load_all((SAMPLE / "shop.yaml").read_text()) if one["kind"] == "ConfigMap"]
    assert [one["data"] for one in documents] == [{"shop.py": (SAMPLE / "shop.py").read_text()}]


@pytest.fixture(scope="module")
def shop() -> Iterator[LabUnderTest]:
    with lab_under_test("shop") as lab:
        lab.up((SAMPLE / "shop.yaml").read_text(), mesh=True)
        lab.wait_ready()
        yield lab


def test_the_shop_works_without_the_mesh_and_a_visitor_sees_it(shop: LabUnderTest) -> None:
    assert _buys(shop)
    assert _everybody(_ask(shop, VISITOR, "http://web/")) == {"web", "catalogue", "cart"}
    seen = {_ask(shop, VISITOR, "http://web/health")["version"] for _ in range(40)}
    assert seen == {"v1", "v2"}
    assert _ask(shop, VISITOR, "http://web/ping/db")["pong"].startswith("db saw ")


def test_in_the_mesh_it_works_the_same_and_only_whom_the_policies_name_gets_in(shop: LabUnderTest) -> None:
    shop.label("shop", "istio.io/dataplane-mode=ambient")
    assert _buys(shop)
    client = _ask(shop, WEB, "http://catalogue/")["client"]
    assert client in {shop.ip(WEB, 4), shop.ip(WEB, 6)}, "the shop sees the client's own address"
    shop.apply(POLICIES)
    assert _buys(shop)
    assert not _ask(shop, VISITOR, "http://web/"), "no identity, no way in"
    assert not _ask(shop, WEB, "http://payment/"), "only orders may have anything paid"
    told = shop.exec(WEB, "python3", "/srv/shop.py", "http://db:5432/")
    assert told.returncode == 1
    shop.delete(POLICIES)
    assert _ask(shop, VISITOR, "http://web/")


def test_a_service_can_be_told_to_fail_and_the_answer_shows_where(shop: LabUnderTest) -> None:
    pods = [f"shop/payment-{version}" for version in ("v1", "v2")]
    for pod in pods:
        _ask(shop, pod, "http://[::1]:8080/switch?error=503")
    answer = _ask(shop, WEB, "http://[::1]:8080/buy/tea")
    assert answer["error"] == "orders: HTTP 502"
    assert answer["asked"][0]["error"] == "payment: HTTP 503"
    for pod in pods:
        _ask(shop, pod, "http://[::1]:8080/switch")
    until("the shop sells again", lambda: _buys(shop))
