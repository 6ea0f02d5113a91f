"""The chart: what it renders is what is shipped, and a server takes every variant of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import render
from tests.support.kube import Kube

SHIPPED = Path(__file__).parents[2] / "daemonset" / "install.yaml"
IMAGE = "localhost/ambient:0.1.0"


CERTIFICATES = "ambient-certificates"
LIMITS = ("rateLimit.enabled=true", "rateLimit.redis.address=rediss://redis:6379")


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
        "mesh.config.extensionProviders[0].name=idle",
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
            if "secrets" in rule["resources"] and role["metadata"]["name"] != CERTIFICATES:
                assert role["kind"] == "Role"
                assert rule.get("resourceNames") or rule["verbs"] == ["create"]


def test_secrets_for_gateways_are_read_only_where_somebody_permits_it() -> None:
    def bound(*settings: str) -> list[tuple[str, str]]:
        bindings = [
            one
            for one in yaml.safe_load_all(render(IMAGE, *settings))
            if one and one.get("roleRef", {}).get("name") == CERTIFICATES
        ]
        return [(one["kind"], one["metadata"].get("namespace", "")) for one in bindings]

    assert bound() == []
    assert bound("gateway.certificatesFrom={shop,vault}") == [("RoleBinding", "shop"), ("RoleBinding", "vault")]
    assert bound("gateway.certificatesFrom={*}") == [("ClusterRoleBinding", "")]
    assert bound("gateway.certificatesFrom={shop}", "gateway.enabled=false") == []


def test_whoever_makes_no_waypoints_may_make_nothing() -> None:
    def may_make(text: str) -> bool:
        rules = [rule for one in yaml.safe_load_all(text) if one for rule in one.get("rules") or ()]
        return any("deployments" in rule["resources"] and "create" in rule["verbs"] for rule in rules)

    assert may_make(render(IMAGE))
    assert may_make(render(IMAGE, "waypoint.enabled=false"))
    assert not may_make(render(IMAGE, "waypoint.enabled=false", "gateway.enabled=false"))


def test_accounts_of_istio_are_trusted_only_where_somebody_asked_for_it() -> None:
    trusted = "istio-system/ztunnel"
    assert trusted not in render(IMAGE)
    assert trusted in render(IMAGE, "control.istioAccounts=true")


def test_the_rate_limit_service_is_of_the_mesh_and_who_counts_is_told_of_it() -> None:
    asking = "cluster.local/ns/shop/sa/waypoint"
    text = render(IMAGE, *LIMITS, "rateLimit.replicas=3", f"rateLimit.callers={{{asking}}}")
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}
    (service,) = [one for kind, one in found.items() if kind == ("Service", "ambient-ratelimit")]
    where = service["metadata"]["namespace"]
    assert found["Namespace", where]["metadata"]["labels"]["istio.io/dataplane-mode"] == "ambient"
    assert found["PeerAuthentication", "ambient-ratelimit"]["spec"]["mtls"] == {"mode": "STRICT"}
    allowed = found["AuthorizationPolicy", "ambient-ratelimit"]["spec"]["rules"]
    assert [one.get("from") for one in allowed] == [[{"source": {"principals": [asking]}}], None]
    assert [one["to"][0]["operation"]["ports"] for one in allowed] == [["8081"], ["8080"]]
    assert found["Deployment", "ambient-ratelimit"]["spec"]["replicas"] == 3
    (control,) = found["Deployment", "ambient-control"]["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in control["env"]}
    assert told["AMBIENT_RATE_LIMIT_SERVICE"] == f"ambient-ratelimit.{where}.svc.cluster.local:8081"
    assert "ambient-ratelimit" not in render(IMAGE)


def test_who_may_ask_the_rate_limit_service_has_to_be_said() -> None:
    """Whoever may ask can use up others' limits, so nobody may by not being thought of."""
    with pytest.raises(AssertionError, match=r"rateLimit\.callers"):
        render(IMAGE, *LIMITS)
    assert 'principals: ["*"]' in render(IMAGE, *LIMITS, "rateLimit.callers={*}")


def test_a_mesh_config_is_a_config_map_that_restarts_nothing() -> None:
    plain = render(IMAGE)
    text = render(IMAGE, "mesh.config.extensionProviders[0].name=idle")
    found = [one for one in yaml.safe_load_all(text) if one and one["metadata"]["name"] == "ambient-mesh"]
    assert [yaml.safe_load(one["data"]["mesh"]) for one in found] == [{"extensionProviders": [{"name": "idle"}]}]

    def digests(text: str) -> list[str]:
        return [line for line in text.splitlines() if "ambient.mesh/settings" in line]

    assert digests(text) == digests(plain)
