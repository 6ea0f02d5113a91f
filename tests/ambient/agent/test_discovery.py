"""What the agent makes of policies: unknown is closed, and every batch counts at once."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambient.agent.discovery import Policies
from ambient.model.outcome import Allowed, Connection, Denied, Reason
from ambient.model.policy import Action, Authorization, Match, PolicyScope
from ambient.model.workload import GatewayAddress, NamespacedHostname, NetworkAddress, Service, Workload
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, encode
from ambient.xds.messages import DeltaResponse
from tests.support.agent_fakes import target

WORKLOAD = Workload(uid="Kubernetes//Pod/shop/web", name="web", namespace="shop", service_account="seller", node="n1")
ELSEWHERE = replace(WORKLOAD, node="n2")
NAMED = replace(WORKLOAD, authorization_policies=("shop/late",))
DENY = Authorization(
    name="no",
    namespace="shop",
    scope=PolicyScope.NAMESPACE,
    action=Action.DENY,
    rules=(((Match(destination_ports=(80,)),),),),
)
PLAINTEXT = Connection(ip_address("10.0.0.9"), ip_address("10.0.0.5"), 80)


class Feed:
    """Policies fed with responses, as a server would send them."""

    def __init__(self, *, only_waypoints: bool = True) -> None:
        self.changes = 0
        self.policies = Policies("n1", "Kubernetes", "ambient-system", self._changed, only_waypoints=only_waypoints)

    def _changed(self) -> None:
        self.changes += 1

    def send(self, *records: Workload | Service | Authorization, kind: str, removed: tuple[str, ...] = ()) -> None:
        resources = tuple(encode(record) for record in records)
        response = DeltaResponse(type_url=kind, nonce="1", resources=resources, removed=removed)
        batch, _ = self.policies.client.receive(response)
        self.policies.apply(batch)
        self.policies.client.acted()

    def everything(self, workload: Workload, *policies: Authorization) -> None:
        self.send(workload, kind=ADDRESS_TYPE)
        self.send(*policies, kind=AUTHORIZATION_TYPE)


def test_until_everything_was_received_a_pod_counts_as_selected_and_is_not_judged() -> None:
    feed = Feed()
    assert not feed.policies.known
    assert feed.policies.apply_to(target())
    feed.send(WORKLOAD, kind=ADDRESS_TYPE)
    assert feed.policies.apply_to(target())
    assert feed.policies.judge_of(target()) is None
    feed.send(kind=AUTHORIZATION_TYPE)
    assert feed.policies.known
    assert not feed.policies.apply_to(target())
    judge = feed.policies.judge_of(target())
    assert judge is not None
    assert isinstance(judge(PLAINTEXT), Allowed)
    assert feed.changes == 2


def test_a_pod_behind_a_waypoint_counts_as_selected() -> None:
    feed = Feed()
    feed.everything(replace(WORKLOAD, waypoint=GatewayAddress(NamespacedHostname("shop", "wp.shop.svc"))))
    assert feed.policies.apply_to(target())


@pytest.mark.parametrize("only_waypoints", [True, False])
def test_plain_text_to_a_pod_behind_a_waypoint_is_forbidden_but_where_it_may_be_passed(only_waypoints: bool) -> None:
    feed = Feed(only_waypoints=only_waypoints)
    waypoint = replace(ELSEWHERE, uid="Kubernetes//Pod/shop/wp", name="wp", addresses=(ip_address("10.0.1.1"),))
    behind = replace(WORKLOAD, waypoint=GatewayAddress(NetworkAddress("", ip_address("10.0.1.1"))))
    feed.send(behind, waypoint, kind=ADDRESS_TYPE)
    feed.send(kind=AUTHORIZATION_TYPE)
    judge = feed.policies.judge_of(target())
    assert judge is not None
    assert judge(PLAINTEXT).reason == (Reason.NOT_ITS_WAYPOINT if only_waypoints else Reason.NO_ALLOW_POLICY)
    assert isinstance(judge(replace(PLAINTEXT, peer=waypoint.identity)), Allowed)


def test_a_pod_that_discovery_does_not_have_counts_as_selected() -> None:
    feed = Feed()
    feed.everything(WORKLOAD)
    assert feed.policies.apply_to(target("stranger"))
    assert feed.policies.judge_of(target("stranger")) is None


def test_a_workload_of_that_name_with_another_account_is_not_the_pod() -> None:
    """A pod is replaced by one of its name before discovery tells: it must not act as the one before."""
    feed = Feed()
    feed.everything(replace(WORKLOAD, service_account="admin"))
    assert feed.policies.judge_of(target()) is None
    assert feed.policies.apply_to(target())
    feed.send(WORKLOAD, kind=ADDRESS_TYPE)
    assert feed.policies.judge_of(target()) is not None


def test_a_workload_of_that_name_on_another_node_is_not_the_pod() -> None:
    feed = Feed()
    feed.everything(ELSEWHERE)
    assert feed.policies.judge_of(target()) is None


def test_a_policy_that_comes_later_is_judged_with_at_once() -> None:
    feed = Feed()
    feed.everything(WORKLOAD)
    before = feed.policies.judge_of(target())
    assert before is not None
    assert isinstance(before(PLAINTEXT), Allowed)
    feed.send(DENY, kind=AUTHORIZATION_TYPE)
    after = feed.policies.judge_of(target())
    assert after is not None
    assert after(PLAINTEXT) == Denied(Reason.DENIED_BY, "shop/no")
    assert feed.policies.apply_to(target())
    feed.send(kind=AUTHORIZATION_TYPE, removed=("shop/no",))
    assert not feed.policies.apply_to(target())


def test_a_policy_that_is_named_and_missing_selects_and_refuses() -> None:
    feed = Feed()
    feed.everything(NAMED)
    assert feed.policies.apply_to(target())
    judge = feed.policies.judge_of(target())
    assert judge is not None
    assert judge(PLAINTEXT) == Denied(Reason.POLICY_NOT_RECEIVED, "shop/late")


def test_it_asks_only_for_what_its_pods_policies_rest_on_and_until_then_a_pod_is_closed() -> None:
    feed = Feed()
    asked: list[tuple[str, ...]] = []
    feed.policies.client.on_request = lambda request: asked.append(request.subscribe)
    behind = replace(WORKLOAD, services={"shop/web.example": ()})
    feed.everything(behind)
    assert feed.policies.known
    assert feed.policies.apply_to(target())
    assert feed.policies.judge_of(target()) is None
    assert asked == [("shop/web.example",)]
    guarded = Service(
        name="web",
        namespace="shop",
        hostname="web.example",
        waypoint=GatewayAddress(NamespacedHostname("shop", "wp.example")),
    )
    feed.send(guarded, kind=ADDRESS_TYPE)
    assert feed.policies.apply_to(target())
    assert asked[1:] == [("shop/wp.example",)]
    feed.send(kind=ADDRESS_TYPE, removed=("shop/wp.example",))
    assert feed.policies.judge_of(target()) is not None
    feed.send(replace(guarded, waypoint=None), kind=ADDRESS_TYPE)
    assert not feed.policies.apply_to(target())


def test_the_first_request_is_not_for_the_whole_cluster() -> None:
    authorization, address = Feed().policies.client.open()
    assert (address.subscribe, address.unsubscribe) == (("*",), ("*",))
    assert (authorization.subscribe, authorization.unsubscribe) == ((), ())


def test_a_pod_of_which_nothing_was_understood_counts_as_selected_and_is_not_judged() -> None:
    feed = Feed()
    feed.everything(ELSEWHERE)
    unreadable = replace(encode(WORKLOAD), body=b"\xff")
    response = DeltaResponse(type_url=ADDRESS_TYPE, nonce="2", resources=(), removed=(WORKLOAD.uid,))
    feed.policies.apply(feed.policies.client.receive(response)[0])
    response = DeltaResponse(type_url=ADDRESS_TYPE, nonce="3", resources=(unreadable,))
    feed.policies.apply(feed.policies.client.receive(response)[0])
    assert feed.policies.apply_to(target())
    assert feed.policies.judge_of(target()) is None
