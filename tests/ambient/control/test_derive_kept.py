"""What has a say at waypoints is kept by kind, and forgotten when it is gone or becomes another thing."""

from __future__ import annotations

from ambient.control.derive_kept import Kept
from ambient.kube.networking import DestinationRule
from ambient.kube.objects import AuthorizationPolicy, Records
from ambient.kube.routing import AttachedRoute
from tests.ambient.control.test_derive_routes import TO_2
from tests.ambient.control.test_derive_virtual import RULE
from tests.support.builders import raw, records
from tests.support.waypoint_records import TARGET, policy

WITHOUT = {**raw("AuthorizationPolicy", "free", {"action": "DENY"}, namespace="shop")}


def test_a_record_is_kept_until_it_is_gone() -> None:
    kept, found = Kept(), records(policy("p", "DENY", TARGET), WITHOUT, RULE, TO_2)
    kept.update(found, found.by_key)
    assert [one.name for one in kept.of(AuthorizationPolicy)] == ["p"]
    assert [one.name for one in kept.of(DestinationRule)] == ["r"]
    assert [one.name for one in kept.of(AttachedRoute)] == ["r"]
    assert kept.find(AuthorizationPolicy, "AuthorizationPolicy/shop/free") is None
    assert kept.find(AuthorizationPolicy, "AuthorizationPolicy/shop/p") is not None
    kept.update(Records(), ["AuthorizationPolicy/shop/p", "DestinationRule/shop/r"])
    assert kept.of(AuthorizationPolicy) == []
    assert kept.of(DestinationRule) == []
    assert len(kept.of(AttachedRoute)) == 1
