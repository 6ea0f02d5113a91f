"""A workload on a machine outside Kubernetes: it joins by a ticket, speaks mutual TLS both ways, and goes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

import pytest

from ambient.cli.demo.stage import Stage
from ambient.kube.joined import UNHEALTHY
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until
from tests.support.outside import SHOP, Outside, outside

WEB, OTHER, STRANGER = "shop/web", "shop/other", "plain/stranger"
SERVER: Final = ["sh", "-c", f"SHOP_ROLE=payment SHOP_POD=web-v1 SHOP_NODE=n1 exec python3 {SHOP}"]
NETWORKING, SECURITY = "networking.istio.io/v1", "security.istio.io/v1"
GRACE_S: Final = 18
"""A machine that stands still for seconds is not taken for one that is gone."""


def _account(name: str) -> str:
    return object_yaml("v1", "ServiceAccount", name, "shop")


def _only(app: str, account: str) -> str:
    rules = [{"from": [{"source": {"principals": [f"cluster.local/ns/shop/sa/{account}"]}}]}]
    spec = {"selector": {"matchLabels": {"app": app}}, "rules": rules}
    return object_yaml(SECURITY, "AuthorizationPolicy", f"only-{account}", "shop", spec=spec)


def _service(name: str) -> str:
    return object_yaml("v1", "Service", name, "shop", spec={
        "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        "ipFamilies": ["IPv4"],
    })  # fmt: skip


GROUP: Final = object_yaml(NETWORKING, "WorkloadGroup", "ledger", "shop", spec={
    "metadata": {"labels": {"app": "ledger"}},
    "template": {"serviceAccount": "ledger"},
    "probe": {"httpGet": {"path": "/health", "port": 8080}, "timeoutSeconds": 20, "periodSeconds": 1,
              "failureThreshold": 1},
})  # fmt: skip
OBJECTS: Final = (
    namespace_yaml("shop", **{"istio.io/dataplane-mode": "ambient"})
    + namespace_yaml("plain")
    + "".join(map(_account, ("web", "other")))
    + pod_yaml(WEB, SERVER, node="n1", account="web", labels={"app": "web"})
    + pod_yaml(OTHER, SLEEP, node="n2", account="other")
    + pod_yaml(STRANGER, SLEEP, node="n2")
    + _service("web")
    + _service("ledger")
    + object_yaml(SECURITY, "PeerAuthentication", "default", "shop", spec={"mtls": {"mode": "STRICT"}})
    + GROUP
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Outside]:
    with lab_under_test("join") as lab:
        lab.up(OBJECTS, mesh=True, env={"control:AMBIENT_JOIN_GRACE": f"{GRACE_S}s"})
        lab.wait_ready()
        with outside(lab) as made:
            yield made


def _ask(lab: LabUnderTest, pod: str, url: str = "http://ledger.shop/health") -> dict[str, Any]:
    """What the sample's program answers; {} when nobody does."""
    said = lab.exec(pod, "python3", str(SHOP), url).stdout
    answer: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
    return answer


def _ask_from(machine: Outside, service: str = "web") -> dict[str, Any]:
    record = next(one for key, one in machine.lab.lab.records().by_key.items() if key == f"Service/shop/{service}")
    said = machine.exec("python3", str(SHOP), f"http://{record.cluster_ips[0]}/health").stdout  # type: ignore[attr-defined]
    answer: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
    return answer


def test_it_joins_is_reached_by_identity_reaches_pods_by_its_own_and_leaves(machine: Outside) -> None:
    lab = machine.lab
    server = machine.serve()
    ticket = machine.ticket()
    process = machine.join(ticket)
    assert machine.entry.endpoint.address == machine.address
    until("it is well", lambda: UNHEALTHY not in machine.entry.annotations)

    # Pods reach it, over mutual TLS: STRICT holds for it as for any pod.
    seen = until("web reaches it", lambda: _ask(lab, WEB))
    assert (seen["pod"], seen["client"]) == ("outside-v1", lab.ip(WEB))
    assert not _ask(lab, STRANGER), "no identity, no way in"
    assert not _ask(lab, STRANGER, f"http://{machine.address}:8080/health")

    # It reaches pods, as itself.
    answer = until("it reaches web", lambda: _ask_from(machine))
    assert (answer["pod"], answer["client"]) == ("web-v1", machine.address)

    # Policies know it on both ends.
    both = _only("ledger", "web") + _only("web", "ledger")
    lab.apply(both)
    assert _ask(lab, WEB)
    # The lab waits for its own nodes; the machine learns of it by itself.
    until("others are refused", lambda: not _ask(lab, OTHER))
    assert not _ask(lab, OTHER)
    assert _ask(lab, WEB)
    assert _ask_from(machine)
    assert not _ask(lab, OTHER, "http://web.shop/health")
    lab.delete(both)
    until("they are let in again", lambda: _ask(lab, OTHER))

    # One at a time, wherever it keeps its state.
    second = machine.refused(ticket, "another")
    assert (second.returncode, "another `ambient join` runs" in second.stderr) == (1, True), second.stderr
    assert _ask(lab, WEB)

    # What is not well gets nobody.
    server.kill()
    server.wait()
    until("it is not well", lambda: UNHEALTHY in machine.entry.annotations)
    until("nobody is sent there", lambda: _known(machine) == {"Unhealthy"})
    assert not _ask(lab, WEB)
    machine.serve()
    until("it is well again", lambda: bool(_ask(lab, WEB)))

    # It leaves: nothing of it stays, and the workload goes on by itself.
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, machine.log()
    assert not machine.entries
    assert machine.traces() == []

    # A ticket is spent once.
    again = machine.refused(ticket)
    assert again.returncode == 1
    assert "no such ticket" in again.stderr
    assert not _ask(lab, WEB)
    assert _ask(lab, STRANGER, f"http://{machine.address}:8080/health")


def _known(machine: Outside) -> set[str]:
    """How nodes n1 and n2 know it to be."""
    lab = machine.lab.name
    told = [Stage(lab).command("workloads", "--name", lab, "--node", node, "-o", "json") for node in ("n1", "n2")]
    return {one["status"] for done in told for one in json.loads(done.out) if one["name"] == machine.entry.name}


def test_one_that_is_killed_is_removed_after_the_grace_and_its_session_is_worth_nothing(machine: Outside) -> None:
    lab = machine.lab
    server = machine.serve()
    process = machine.join(machine.ticket())
    until("web reaches it", lambda: _ask(lab, WEB))
    process.kill()
    process.wait()
    until("it is removed", lambda: not machine.entries)
    assert not _ask(lab, WEB)
    assert not _ask(lab, STRANGER, f"http://{machine.address}:8080/health"), "its network stays closed"
    # Its membership is on its disk still: the control plane says that it is none.
    again = machine.refused(None)
    assert again.returncode == 1
    assert "no member" in again.stderr
    assert not _ask(lab, STRANGER, f"http://{machine.address}:8080/health"), "and closed"
    # A new ticket mends it.
    process = machine.join(machine.ticket())
    until("web reaches it", lambda: _ask(lab, WEB))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, machine.log()
    assert machine.traces() == []
    server.kill()


def test_an_expired_ticket_is_refused(machine: Outside) -> None:
    ticket = machine.ticket("shop/ledger", "--ttl", "1s")
    made = monotonic()
    until("its time is over", lambda: monotonic() > made + 2)
    assert "expired" in machine.refused(ticket).stderr
    assert not machine.entries


def test_a_database_outside_is_a_service_entry_and_needs_no_membership(machine: Outside) -> None:
    lab = machine.lab
    server = machine.serve("db")
    entry = object_yaml(NETWORKING, "ServiceEntry", "books", "shop", spec={
        "hosts": ["books.example.com"],
        "addresses": ["198.51.100.7"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "endpoints": [{"address": machine.address}],
    })  # fmt: skip
    lab.apply(entry)
    by_address = until("web reaches it", lambda: _ask(lab, WEB, "http://198.51.100.7/health"))
    assert (by_address["service"], by_address["client"]) == ("db", lab.ip(WEB))
    assert _ask(lab, WEB, "http://books.example.com/health")["service"] == "db"
    lab.delete(entry)
    assert not _ask(lab, WEB, "http://books.example.com/health")
    server.kill()
