"""A policy from the file to the live connection: whom it lets in, whom it cuts, how fast, and what undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ambient.agent.kernel_policy import LEASE_S
from ambient.cli.env import Exit
from ambient.datapath.layout import Counter
from ambient.datapath.maps import Maps
from tests.support.journey import (
    BATCH,
    CUT_S,
    FAR,
    HTTP,
    LINES,
    NEAR,
    OUTSIDE,
    WEB,
    Journey,
    policy,
    strict,
)
from tests.support.lab import until


def _principal(name: str) -> str:
    return f"cluster.local/ns/shop/sa/{name}"


def _from(**source: Any) -> dict[str, Any]:
    return {"from": [{"source": source}]}


@contextmanager
def applied(mesh: Journey, text: str) -> Iterator[None]:
    mesh.lab.apply(text)
    try:
        yield
    finally:
        mesh.lab.delete(text)


ONLY_WEB = policy("only-web", "ALLOW", [_from(principals=[_principal("web")])])

CASES: list[tuple[str, str, dict[str, bool]]] = [
    ("allow a principal", ONLY_WEB, {WEB: True, BATCH: False, OUTSIDE: False}),
    (
        "deny a principal",
        policy("p", "DENY", [_from(principals=[_principal("batch")])]),
        {WEB: True, BATCH: False, OUTSIDE: True},
    ),
    (
        "allow all but a principal",
        policy("p", "ALLOW", [_from(notPrincipals=[_principal("batch")])]),
        {WEB: True, BATCH: False, OUTSIDE: True},
    ),
    ("allow a namespace", policy("p", "ALLOW", [_from(namespaces=["shop"])]), {WEB: True, BATCH: True, OUTSIDE: False}),
    (
        "deny whoever has an identity",
        policy("p", "DENY", [_from(principals=["*"])]),
        {WEB: False, BATCH: False, OUTSIDE: True},
    ),
    (
        "allow another port",
        policy("p", "ALLOW", [{"to": [{"operation": {"ports": ["1"]}}]}]),
        {WEB: False, BATCH: False, OUTSIDE: False},
    ),
    (
        "deny this port",
        policy("p", "DENY", [{"to": [{"operation": {"ports": [str(HTTP)]}}]}]),
        {WEB: False, BATCH: False, OUTSIDE: False},
    ),
    (
        "allow by when",
        policy("p", "ALLOW", [{"when": [{"key": "source.principal", "values": [_principal("web")]}]}]),
        {WEB: True, BATCH: False, OUTSIDE: False},
    ),
    ("allow nothing, by namespace", policy("p", "ALLOW", [], app=""), {WEB: False, BATCH: False, OUTSIDE: False}),
    (
        "deny beats allow",
        ONLY_WEB + policy("p", "DENY", [_from(principals=[_principal("web")])]),
        {WEB: False, BATCH: False, OUTSIDE: False},
    ),
    (
        "mesh-wide",
        policy("p", "DENY", [_from(principals=[_principal("batch")])], app="", namespace="istio-system"),
        {WEB: True, BATCH: False, OUTSIDE: True},
    ),
    ("strict", strict(), {WEB: True, BATCH: True, OUTSIDE: False}),
]


@pytest.mark.parametrize(("text", "wanted"), [pytest.param(t, w, id=name) for name, t, w in CASES])
def test_a_policy_lets_in_whom_it_names_and_explain_agrees(mesh: Journey, text: str, wanted: dict[str, bool]) -> None:
    with applied(mesh, text):
        assert {pod: mesh.reaches(pod, FAR) for pod in wanted} == wanted
        for pod, allowed in wanted.items():
            told = mesh.stage.command("explain", "--name", mesh.lab.name, pod, f"far.shop:{HTTP}")
            assert told.code == (Exit.OK if allowed else Exit.NEGATIVE), told.out + told.err
    assert {pod: mesh.reaches(pod, FAR) for pod in wanted} == dict.fromkeys(wanted, True), "without it all come in"


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_range_means_the_clients_own_address(mesh: Journey, version: int) -> None:
    text = policy("p", "DENY", [_from(ipBlocks=[mesh.host(WEB, version)])])
    with applied(mesh, text):
        assert not mesh.reaches(WEB, FAR, version)
        assert mesh.reaches(BATCH, FAR, version)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_a_live_connection_is_cut_when_a_policy_forbids_it_and_others_go_on(
    mesh: Journey, pod: str, version: int
) -> None:
    host = mesh.host(pod, version)
    with mesh.stage.talk(WEB, host, LINES) as web, mesh.stage.talk(BATCH, host, LINES) as batch:
        assert web.next().startswith("got hello")
        assert batch.next().startswith("got hello")
        only_web = policy("only-web", "ALLOW", [_from(principals=[_principal("web")])], app=pod.partition("/")[2])
        with applied(mesh, only_web):
            assert batch.next().startswith(("closed", "ended"))
            assert web.echo("still allowed")


def test_a_live_plaintext_connection_is_cut_by_strict(mesh: Journey) -> None:
    with mesh.stage.talk(OUTSIDE, mesh.host(FAR, 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        with applied(mesh, strict()):
            assert talk.next().startswith(("closed", "ended"))


def test_a_live_connection_is_cut_when_a_label_brings_the_pod_under_a_policy(mesh: Journey) -> None:
    """The policy does not change; what it selects does."""
    nobody = policy("nobody", "ALLOW", [], app="closed")
    with applied(mesh, nobody), mesh.stage.talk(WEB, mesh.host(FAR, 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        far = mesh.lab.pod(FAR).raw
        relabelled = {**far, "metadata": {**far["metadata"], "labels": {"app": "closed"}}}
        changed = {key: relabelled[key] for key in ("apiVersion", "kind", "spec")}
        changed["metadata"] = {"name": "far", "namespace": "shop", "labels": {"app": "closed"}}
        import json

        mesh.lab.apply(json.dumps(changed))
        try:
            assert talk.next().startswith(("closed", "ended"))
        finally:
            changed["metadata"]["labels"] = {"app": "far"}
            mesh.lab.apply(json.dumps(changed))


def test_under_strict_the_kubelets_probes_pass_and_nobody_else_from_the_node(mesh: Journey) -> None:
    with applied(mesh, strict()):
        before = mesh.identify(WEB, mesh.url(FAR, 4))["probes"]
        until("two more probes", lambda: mesh.identify(WEB, mesh.url(FAR, 4))["probes"] > before + 1)
        assert mesh.lab.status_of(FAR)["ready"]


def test_a_policy_with_one_bad_field_is_refused_by_name_and_changes_nothing(mesh: Journey) -> None:
    bad = policy("bad", "DENY", [_from(ipBlocks=["10.0.0.0/99"])])
    refused = mesh.lab.run("apply", "-f", "-", text=bad)
    assert refused.returncode != 0
    assert "bad" in refused.stderr
    assert "10.0.0.0/99" in refused.stderr
    assert mesh.reaches(WEB, FAR)


def test_sabotage_a_policy_that_is_not_enforced_would_be_seen(mesh: Journey) -> None:
    """The same questions without the policy have the other answer: the checks above can fail."""
    assert mesh.reaches(BATCH, FAR)
    assert mesh.reaches(OUTSIDE, FAR)
    with mesh.stage.talk(BATCH, mesh.host(FAR, 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        assert talk.next(CUT_S) == "", "nothing cuts it"


def test_rows_of_an_agent_that_is_silent_are_asked_for_minutes_only_and_ztunnel_refuses_what_they_refused(
    mesh: Journey,
) -> None:
    text = policy("p", "DENY", [{"to": [{"operation": {"ports": [str(HTTP)]}}]}], app="near")
    with ExitStack() as stack, Maps.open(mesh.lab.names.bpffs / "n1") as tables:

        def counted() -> tuple[int, int]:
            counts = tables.counters.read()
            return counts[Counter.REFUSED_POLICY_OUT], counts[Counter.LAPSED_POLICY]

        mesh.lab.apply(text)
        until("the kernel refuses", lambda: not mesh.reaches(WEB, NEAR) and counted()[0] > 0)
        for pid in mesh.lab.component("n1", "agent")["pids"]:
            mesh.lab.signal(pid, "STOP")
            stack.callback(mesh.lab.signal, pid, "CONT")
        tables.lease.renew(-1)
        refused, lapsed = counted()
        assert not mesh.reaches(WEB, NEAR), "the same policy, judged by ztunnel"
        assert counted()[0] == refused
        assert counted()[1] > lapsed
        mesh.lab.must("delete", "-f", "-", "--no-wait", text=text)
        until("ztunnel lets in what nothing forbids any more", lambda: mesh.reaches(WEB, NEAR))
        tables.lease.renew(LEASE_S)
        assert not mesh.reaches(WEB, NEAR), "the rows were there all the time"
    until("the agent has seen it, too", lambda: mesh.reaches(WEB, NEAR))
