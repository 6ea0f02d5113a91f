"""What a waypoint is told from beyond the mesh's objects: keys that are fetched, somebody who is asked, an Envoy that
does not take everything.

Real Envoy, real ztunnels, a real server of keys and one that is asked. Each refusal has beside it what passes.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ambient.kube.objects import AuthorizationPolicy, Gateway, RequestAuthentication
from ambient.lab.names import NETNS_DIR
from tests.support.authz_server import COMMAND
from tests.support.key_server import KeyServer, key_server
from tests.support.lab import LabUnderTest, lab_under_test, object_yaml, pod_yaml, until
from tests.support.tokens import Issuer
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_lab import (
    GATEWAY_VERSION,
    POLICY_VERSION,
    SCENE,
    WEB,
    apply,
    delete_policies,
    echo,
    gateway_yaml,
    policy_yaml,
    ready,
    service_yaml,
    status,
)

PORT = 8443
ROOT = Authority()
OURS = Issuer("https://keys.example.com")
HOST = "authz.shop.svc.cluster.local"
MESH = f"""
extensionProviders:
- name: by-grpc
  envoyExtAuthzGrpc: {{service: {HOST}, port: 9000, timeout: 5s, statusOnError: "503"}}
- name: by-http
  envoyExtAuthzHttp:
    service: {HOST}
    port: 8000
    timeout: 5s
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-allow]
    includeAdditionalHeadersInCheck: {{x-from: waypoint}}
    headersToUpstreamOnAllow: [x-user]
    headersToDownstreamOnDeny: [x-why]
- name: lax
  envoyExtAuthzGrpc: {{service: {HOST}, port: 9009, timeout: 5s, failOpen: true}}
- name: strict
  envoyExtAuthzGrpc: {{service: {HOST}, port: 9009, timeout: 5s, statusOnError: "503"}}
"""
PORTS = [{"name": "grpc", "port": 9000}, {"name": "http", "port": 8000}, {"name": "grpc-nobody", "port": 9009}]
AUTHZ = (
    object_yaml("v1", "ServiceAccount", "authz", "shop")
    + service_yaml("authz", *PORTS, app="authz")
    + pod_yaml(
        "shop/authz",
        COMMAND,
        node="n2",
        account="authz",
        labels={"app": "authz"},
        readiness={"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    )
)
SMALL = "{layered_runtime: {layers: [{name: small, static_layer: {re2.max_program_size.error_level: 2000}}]}}"
"""Takes no expression of more than so many steps: fewer than we take ourselves."""


@dataclass(frozen=True)
class World:
    lab: LabUnderTest
    keys: KeyServer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "roots.pem").write_text(ROOT.roots)
    (folder / "mesh").write_text(MESH)
    envoy = folder / "envoy"
    envoy.write_text(f"#!/bin/sh\nexec {Path(sys.executable).with_name('envoy')} \"$@\" --config-yaml '{SMALL}'\n")
    envoy.chmod(0o755)
    env = {
        "control:AMBIENT_JWKS_REFRESH": "1s",
        "control:AMBIENT_JWKS_ROOTS": str(folder / "roots.pem"),
        "control:AMBIENT_MESH_CONFIG": str(folder / "mesh"),
        "waypoint:AMBIENT_ENVOY": str(envoy),
    }
    with lab_under_test("wayk") as lab:
        lab.up(SCENE + AUTHZ + gateway_yaml(), mesh=True, env=env)
        ready(lab, resources=6)
        plan = lab.lab.settings.plan
        with key_server(NETNS_DIR / lab.names.control, plan.control.v4, PORT, ROOT, folder) as keys:
            yield World(lab, keys)


@pytest.fixture(autouse=True)
def no_policies(world: World) -> Iterator[None]:
    yield
    delete_policies(world.lab)


def tokens_yaml(*rules: dict[str, Any]) -> str:
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}], "jwtRules": list(rules)}
    return object_yaml(POLICY_VERSION, "RequestAuthentication", "tokens", "shop", spec=spec)


def answer(world: World, *words: str, path: str = "") -> int:
    return status(world.lab, "shop/client", *words, url=f"{WEB}{path}")


def bearer(issuer: Issuer) -> list[str]:
    return ["-H", f"authorization: Bearer {issuer.token()}"]


def test_keys_are_fetched_and_other_ones_take_their_place(world: World) -> None:
    rules = tokens_yaml({"issuer": OURS.name, "jwksUri": world.keys.url})

    def condition() -> tuple[str, str]:
        record = world.lab.lab.records().find(RequestAuthentication, "shop", "tokens")
        found = [one for one in record.conditions if one.type == "ambient.mesh/KeysFetched"] if record else []
        return (found[0].status, found[0].message) if found else ("", "")

    apply(world.lab, rules)
    until("it is said that there are no keys", lambda: "status 500" in condition()[1])
    assert (answer(world, *bearer(OURS)), answer(world)) == (401, 200)
    world.keys.keys = OURS.keys
    until("the keys hold", lambda: answer(world, *bearer(OURS)) == 200)
    until("it is said", lambda: condition()[0] == "True")
    assert answer(world, *bearer(Issuer(OURS.name))) == 401
    after = Issuer(OURS.name)
    world.keys.keys = after.keys
    until("the other keys hold", lambda: answer(world, *bearer(after)) == 200)
    assert answer(world, *bearer(OURS)) == 401
    world.keys.keys = ""
    until("it is said that they are not to be had", lambda: "the keys from before are used" in condition()[1])
    assert answer(world, *bearer(after)) == 200
    apply(world.lab, tokens_yaml({"issuer": OURS.name, "jwksUri": f"https://127.0.0.1:{PORT}/keys"}))
    until("it is said where keys are not fetched from", lambda: "loopback" in condition()[1])
    assert answer(world, *bearer(after)) == 401
    world.lab.delete(rules)
    ready(world.lab)


def custom(provider: str, path: str, name: str = "ask") -> str:
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "action": "CUSTOM",
        "provider": {"name": provider},
        "rules": [{"to": [{"operation": {"paths": [path]}}]}],
    }
    return object_yaml(POLICY_VERSION, "AuthorizationPolicy", name, "shop", spec=spec)


@pytest.mark.parametrize(("provider", "refused"), [("by-grpc", 401), ("by-http", 402)])
def test_somebody_is_asked_what_may_pass_and_says_who_it_is(world: World, provider: str, refused: int) -> None:
    apply(world.lab, custom(provider, "/ask*"))
    forged = ["-H", "x-user: admin"]
    until("somebody is asked", lambda: answer(world, path="ask") == refused)
    assert answer(world, *forged, "-H", "x-allow: yes", path="ask") == 200
    heard = echo(world.lab, "shop/client", *forged, "-H", "x-allow: yes", url=f"{WEB}ask")["headers"]
    assert heard["x-user"].startswith(provider)
    told = world.lab.exec("shop/client", "curl", "-s", "-m", "20", "-D", "-", "-o", "/dev/null", f"{WEB}ask")
    assert f"x-why: {provider}" in told.stdout
    assert answer(world, path="other") == 200


def test_where_nobody_answers_nothing_passes_unless_somebody_said_so(world: World) -> None:
    apply(world.lab, custom("strict", "/ask*"))
    until("it is refused", lambda: answer(world, "-H", "x-allow: yes", path="ask") == 503)
    assert answer(world, path="other") == 200
    apply(world.lab, custom("lax", "/ask*"))
    until("it passes", lambda: answer(world, path="ask") == 200)


def test_a_provider_that_nobody_knows_refuses(world: World) -> None:
    apply(world.lab, custom("nobody", "/ask*"))
    until("it is refused", lambda: answer(world, "-H", "x-allow: yes", path="ask") == 403)
    assert answer(world, path="other") == 200

    def said() -> str:
        record = world.lab.lab.records().find(AuthorizationPolicy, "shop", "ask")
        return " ".join(one.message for one in record.conditions) if record else ""

    until("it is said", lambda: "has no extensionProvider 'nobody'" in said())


def test_dry_runs_of_either_action_tell_what_they_would_have_said(world: World) -> None:
    path = f"dry-{secrets.token_hex(4)}"
    try_ = {"istio.io/dry-run": "true"}
    deny = policy_yaml("deny", "DENY", {"to": [{"operation": {"paths": [f"/{path}"]}}]}, **try_)
    apply(world.lab, deny + policy_yaml("allow", "ALLOW", {"to": [{"operation": {"methods": ["GET"]}}]}, **try_))

    def line() -> str:
        assert answer(world, path=path) == 200
        said = world.lab.run("logs", "shop/waypoint").stdout.splitlines()
        return next((one for one in said if path in one and '"dry_run_deny":"denied"' in one), "")

    assert '"dry_run_allow":"allowed"' in until("both verdicts are told", line)


def test_what_envoy_does_not_take_closes_the_service_and_no_rule_from_before_lives_on(world: World) -> None:
    match = {"path": {"type": "RegularExpression", "value": "/a.{0,1000}"}}
    spec = {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [{"matches": [match], "backendRefs": [{"name": "web", "port": 80}]}],
    }
    route = object_yaml(GATEWAY_VERSION, "HTTPRoute", "large", "shop", spec=spec)
    deny = policy_yaml("no-posts", "DENY", {"to": [{"operation": {"methods": ["POST"]}}]})
    assert answer(world, "-X", "POST") == 200
    world.lab.apply(route + deny)
    until("the old rules hold no more", lambda: answer(world, "-X", "POST") != 200)
    until("it is closed", lambda: answer(world) in (0, 503))

    def said() -> str:
        gateway = world.lab.lab.records().find(Gateway, "shop", "waypoint")
        return " ".join(one.message for one in gateway.conditions if one.status == "False") if gateway else ""

    until("the Gateway says it", lambda: "service|80|web.shop" in said() and "closed are" in said())
    world.lab.delete(route)
    until("it is open again", lambda: answer(world) == 200)
    assert answer(world, "-X", "POST") == 403
