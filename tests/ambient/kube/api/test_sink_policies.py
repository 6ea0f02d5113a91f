"""What is said of policies for the Gateways that they concern."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import ambient
from ambient.kube.api.sink import OWN_TYPES
from ambient.kube.records import Condition
from ambient.kube.status_values import AncestorStatus
from tests.ambient.kube.api.test_sink import Bench, writing
from tests.support.waiting import eventually


def test_a_policy_is_told_for_each_gateway_and_others_words_stay() -> None:
    theirs = {"ancestorRef": {"name": "ingress"}, "controllerName": "example.com/gateway", "conditions": []}
    policy = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "web", "namespace": "shop", "generation": 2, "uid": "u1"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "validation": {"hostname": "web.example.com", "wellKnownCACertificates": "System"},
        },
        "status": {"ancestors": [theirs]},
    }
    said = (Condition("Accepted", "True", "Accepted", ""), Condition("ResolvedRefs", "True", "ResolvedRefs", ""))

    async def scenario(bench: Bench) -> None:
        bench.api.put(policy)

        def ancestors() -> list[dict[str, Any]]:
            stored = bench.api.stored("BackendTLSPolicy", "web", "shop") or {}
            return list(stored["status"]["ancestors"])

        await eventually(lambda: bench.look("BackendTLSPolicy/shop/web") is not None)
        record = bench.look("BackendTLSPolicy/shop/web")
        assert record is not None
        waypoint = {"kind": "Gateway", "name": "waypoint", "namespace": "shop"}
        bench.sink.policy_ancestors(record, [AncestorStatus(waypoint, "istio.io/mesh-controller", said)])
        await eventually(lambda: len(ancestors()) == 2)
        kept, ours = ancestors()
        assert (kept, ours["ancestorRef"], ours["controllerName"]) == (theirs, waypoint, "istio.io/mesh-controller")
        assert [one["observedGeneration"] for one in ours["conditions"]] == [2, 2]
        newer = copy.deepcopy(bench.api.stored("BackendTLSPolicy", "web", "shop") or {})
        newer["metadata"] |= {"generation": 3}
        newer["spec"]["validation"]["hostname"] = "www.example.com"
        bench.api.put(newer)
        await eventually(lambda: bench.look("BackendTLSPolicy/shop/web") not in (None, record))
        record = bench.look("BackendTLSPolicy/shop/web")
        assert record is not None
        bench.sink.policy_ancestors(record, [AncestorStatus(waypoint, "istio.io/mesh-controller", said)])
        await eventually(lambda: [one["observedGeneration"] for one in ancestors()[-1]["conditions"]] == [3, 3])
        bench.sink.policy_ancestors(record, [])
        await eventually(lambda: ancestors() == [theirs])

    writing(scenario)


def test_every_type_of_condition_that_is_written_is_known_to_be_ours() -> None:
    """Else the status gets it twice, and the API refuses that."""
    sources = Path(ambient.__file__).parent.rglob("*.py")
    found = {one for path in sources for one in re.findall(r'"(ambient\.mesh/[A-Z]\w*)"', path.read_text())}
    assert "ambient.mesh/Configured" in found
    assert found <= OWN_TYPES
