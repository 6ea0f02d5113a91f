"""The chart: what it renders is what is shipped, and a server takes every variant of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import render
from tests.support.kube import Kube

SHIPPED = Path(__file__).parents[2] / "daemonset" / "install.yaml"
IMAGE = "localhost/ambient:0.1.0"


def test_what_is_shipped_is_what_the_chart_renders() -> None:
    assert SHIPPED.read_text() == render(IMAGE)


@pytest.mark.parametrize(
    "setting",
    [
        "control.replicas=1",
        "crds.gatewayApi=true",
        "webhook.enabled=false",
        "agent.taint=ambient.mesh/not-ready",
        "networkPolicy.enabled=false",
        "networkPolicy.tunnelsInto={default}",
        "image.pullSecrets={registry}",
        "control.env.LOG_LEVEL=debug",
        "control.istioAccounts=true",
        "agent.boundToNode=false",
        "waypoint.enabled=false",
        "waypoint.resources.limits.memory=2Gi",
    ],
)
def test_a_server_takes_the_chart_with(kube: Kube, setting: str) -> None:
    kube.run(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"),
        given=render(kube.image, setting),
    )


def test_no_part_is_privileged_and_capabilities_are_named_one_by_one() -> None:
    specs = [
        one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(render(IMAGE))
        if one and one["kind"] in ("Deployment", "DaemonSet")
    ]
    assert len(specs) == 3
    for spec in specs:
        for container in spec["containers"]:
            context = container["securityContext"]
            assert not context.get("privileged")
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


def test_no_part_may_do_everything_and_secrets_are_named() -> None:
    roles = [one for one in yaml.safe_load_all(render(IMAGE)) if one and one["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role"
                assert rule.get("resourceNames") or rule["verbs"] == ["create"]


def test_whoever_makes_no_waypoints_may_make_nothing() -> None:
    def may_make(text: str) -> bool:
        rules = [rule for one in yaml.safe_load_all(text) if one for rule in one.get("rules") or ()]
        return any("deployments" in rule["resources"] and "create" in rule["verbs"] for rule in rules)

    assert may_make(render(IMAGE))
    assert not may_make(render(IMAGE, "waypoint.enabled=false"))


def test_accounts_of_istio_are_trusted_only_where_somebody_asked_for_it() -> None:
    trusted = "istio-system/ztunnel"
    assert trusted not in render(IMAGE)
    assert trusted in render(IMAGE, "control.istioAccounts=true")
