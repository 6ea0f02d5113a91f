"""Who may have which identity: only a trusted component, only of its own node's pods, only of our trust domain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.ca.entitle import Tenancy, entitle
from ambient.ca.token import Caller
from ambient.errors import Refused
from ambient.model.identity import Identity

ZTUNNEL = Caller("n1", "ambient-system", "ztunnel", "uid")
WEB = Identity("cluster.local", "shop", "web")
TENANCIES = frozenset({Tenancy("n1", "shop", "web"), Tenancy("n2", "shop", "db")})


def check(caller: Caller = ZTUNNEL, wanted: Identity = WEB) -> None:
    entitle(
        caller,
        wanted,
        tenancies=TENANCIES,
        trust_domain="cluster.local",
        node_accounts={"ambient-system/ztunnel"},
    )


def test_a_node_gets_the_identity_of_a_pod_that_runs_on_it() -> None:
    check()


@pytest.mark.parametrize(
    ("caller", "wanted", "reason"),
    [
        (ZTUNNEL, Identity("cluster.local", "shop", "db"), "no pod of this account runs on node n1"),
        (replace(ZTUNNEL, node="n2"), WEB, "no pod of this account runs on node n2"),
        (ZTUNNEL, Identity("cluster.local", "other", "web"), "no pod of this account"),
        (ZTUNNEL, Identity("evil.example", "shop", "web"), "trust domain 'cluster.local' only"),
        (replace(ZTUNNEL, service_account="agent"), WEB, "ambient-system/agent may not ask"),
        (replace(ZTUNNEL, namespace="shop"), WEB, "shop/ztunnel may not ask"),
    ],
)
def test_everybody_else_is_refused_with_the_rule_that_stands_against_it(
    caller: Caller, wanted: Identity, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        check(caller, wanted)


def test_any_pod_gets_its_own_identity_and_no_other() -> None:
    web = Caller("n1", "shop", "web", "uid")
    check(web)
    with pytest.raises(Refused, match="no pod of this account runs on node n2"):
        check(replace(web, node="n2"))
    with pytest.raises(Refused, match="shop/web may not ask"):
        check(web, Identity("cluster.local", "shop", "db"))
    with pytest.raises(Refused, match="trust domain"):
        check(web, Identity("evil.example", "shop", "web"))
