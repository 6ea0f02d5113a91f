"""Who may reach a workload without its waypoint."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.model.mesh import Value
from ambient.model.waypoints import needs_of, open_ports, waypoint_principals
from ambient.model.workload import (
    Workload,
)
from tests.support.builders import behind, mesh, service, waypoint, workload
from tests.support.routes import (
    BY_IP,
    GUARDED,
    PEER,
    TWO,
    WEB,
    WP,
    WP_POD,
    weighted,
)
from tests.support.routes_gateways import (
    WP_AWAY,
)


@pytest.mark.parametrize(
    ("world", "pod", "expected"),
    [
        ((WEB,), TWO[0], ()),
        ((GUARDED, WP, WP_POD), TWO[0], ("spiffe://cluster.local/ns/default/sa/wp",)),
        ((GUARDED,), TWO[0], ("",)),
        ((GUARDED, WP), TWO[0], ("",)),
        ((), replace(PEER, waypoint=BY_IP), ("",)),
        ((WP_POD,), replace(PEER, waypoint=BY_IP), ("spiffe://cluster.local/ns/default/sa/wp",)),
        (
            (replace(WP, subject_alt_names=("spiffe://a/ns/b/sa/c",)),),
            replace(PEER, waypoint=waypoint()),
            ("spiffe://a/ns/b/sa/c",),
        ),
        ((WP, WP_POD), WP_POD, ()),
    ],
)
def test_only_its_waypoints_may_come_in(world: tuple[Value, ...], pod: Workload, expected: tuple[str, ...]) -> None:
    assert waypoint_principals(mesh(*world), pod) == expected


BARE = service("bare", "10.96.0.5", (80, 8080), (90, 9090))
OTHER = service("other", "10.96.0.6", (443, 0))
OWN_WAYPOINT = replace(TWO[0], waypoint=waypoint())


@pytest.mark.parametrize(
    ("world", "pod", "expected"),
    [
        ((WEB,), OWN_WAYPOINT, (8080,)),
        ((WEB, BARE), behind(OWN_WAYPOINT, BARE), (8080, 9090)),
        ((WEB, BARE), behind(workload("a", "10.0.1.1"), WEB, BARE, ports=((80, 7777),)), (7777, 9090)),
        ((OTHER,), behind(workload("a", "10.0.1.1"), OTHER, ports=((443, 8443),)), (8443,)),
        ((OTHER,), behind(workload("a", "10.0.1.1"), OTHER), ()),
        ((GUARDED, WP), OWN_WAYPOINT, ()),
        ((GUARDED, WP, BARE), behind(OWN_WAYPOINT, BARE), ()),
        ((weighted(("wp", 1)),), OWN_WAYPOINT, ()),
        ((BARE,), behind(OWN_WAYPOINT, BARE), ()),
        ((replace(WEB, refused="junk"),), OWN_WAYPOINT, ()),
    ],
)
def test_ports_of_services_without_a_waypoint_stay_open(
    world: tuple[Value, ...], pod: Workload, expected: tuple[int, ...]
) -> None:
    assert open_ports(mesh(*world), pod) == expected


def test_what_cannot_be_judged_lets_nobody_in_and_what_cannot_be_dialled_keeps_nobody_out() -> None:
    unread = replace(WEB, refused="junk")
    assert waypoint_principals(mesh(unread), TWO[0]) == ("",)
    headless = replace(GUARDED, addresses=())
    assert waypoint_principals(mesh(headless, WP, WP_POD), TWO[0]) == ()
    assert open_ports(mesh(headless, WP), OWN_WAYPOINT) == ()


def test_what_stands_for_another_network_is_nobodys_waypoint() -> None:
    assert waypoint_principals(mesh(GUARDED, WP, WP_AWAY), TWO[0]) == ("",)
    assert waypoint_principals(mesh(GUARDED, WP, replace(WP_POD, refused="junk")), TWO[0]) == ("",)


def test_what_that_rests_on_is_named_services_and_waypoints_alike() -> None:
    by_name = {"service:default/web.default.svc.cluster.local", f"service:{WP.key}", f"hostname:{WP.hostname}"}
    assert needs_of(mesh(GUARDED, WP), TWO[0]) == by_name
    assert needs_of(mesh(), TWO[0]) == {"service:default/web.default.svc.cluster.local"}
    own = replace(PEER, waypoint=BY_IP)
    known, unknown = needs_of(mesh(WP_POD), own), needs_of(mesh(), own)
    assert unknown == {"address:/10.0.9.1", "blocks:"}
    assert known == {*unknown, f"workload:{WP_POD.uid}"}
