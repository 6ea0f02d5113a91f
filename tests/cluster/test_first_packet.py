"""A pod of the mesh is captured from its first packet, however many start at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.lab.plan import Plan
from tests.support.bridge import Bridge
from tests.support.kube import (
    Kube,
    Object,
    account,
    address,
    deployment,
    eventually,
    is_ready,
    pod,
    pod_spec,
    policy,
    redirection,
    service,
)
from tests.support.kube_apps import PORTS, TOOLS, server
from tests.support.waiting import until

SPACE, OUTSIDE = "first-packet", "first-packet-outside"
PODS = 100
NODES = ("n1", "n2")
# What it says first is what its first connection was answered; nothing is tried twice.
_ASK = """
for name in {servers}; do
    curl -sS -o /dev/null -w "%{{http_code}}\\n" -m 120 http://$name/id?word=swordfish || echo "failed: $?"
done
echo done
sleep infinity
"""


def asking(*servers: str) -> tuple[str, ...]:
    return ("bash", "-c", _ASK.format(servers=" ".join(servers)))


@pytest.fixture
def strict(kube: Kube) -> Iterator[str]:
    """A namespace in STRICT with a server on either node."""
    with kube.namespace(SPACE), kube.namespace(OUTSIDE, mesh=False):
        kube.apply(
            policy("PeerAuthentication", SPACE, "strict", {"mtls": {"mode": "STRICT"}}),
            *(account(SPACE, name) for name in ("s1", "s2", "asking")),
            *(service(SPACE, name, **PORTS) for name in ("s1", "s2")),
            *(
                pod(SPACE, name, server(kube, node=node, account=name))
                for name, node in zip(("s1", "s2"), NODES, strict=True)
            ),
        )
        kube.ready(SPACE)
        yield SPACE


def test_a_hundred_new_pods_send_nothing_in_plain(kube: Kube, strict: str, lab: Plan) -> None:
    servers = [address(kube.get("pod", name, strict)) for name in ("s1", "s2")]
    with Bridge(lab.bridge, lab.pods, lab.api_address) as wire:
        for node in NODES:
            spec = pod_spec(asking("s1", "s2"), TOOLS, node=node, account="asking")
            kube.apply(deployment(strict, f"asking-{node}", PODS // 2, spec))
        until(lambda: _done(kube, strict), "for a hundred pods", patience_s=450, pause_s=1)
        kube.apply(pod(OUTSIDE, "plain", pod_spec(asking(f"s1.{strict}"), TOOLS, node="n2")))
        eventually(lambda: "done" in kube.run("-n", OUTSIDE, "logs", "plain", check=False), "for the answer", 150)
    answers = said(kube, strict, "asking-n1") + said(kube, strict, "asking-n2")
    assert answers.count("200") == 2 * PODS, [line for line in answers if line not in ("200", "done")]
    clients = [address(one) for one in asking_pods(kube, strict)]
    assert len(clients) == PODS
    assert wire.tunnelled([*clients, *servers])
    assert wire.plain([*clients, *servers]) == []
    # The same eyes see who is not in the mesh, and STRICT sends him away.
    assert wire.plain([address(kube.get("pod", "plain", OUTSIDE)), *servers])
    assert "200" not in kube.run("-n", OUTSIDE, "logs", "plain")


def asking_pods(kube: Kube, namespace: str) -> list[Object]:
    return kube.all("pods", namespace, labels="app in (asking-n1,asking-n2)")


def _done(kube: Kube, namespace: str) -> bool:
    pods = asking_pods(kube, namespace)
    if len(pods) < PODS or not all(is_ready(one) and redirection(one) == "enabled" for one in pods):
        return False
    answers = said(kube, namespace, "asking-n1") + said(kube, namespace, "asking-n2")
    return answers.count("done") == PODS


def said(kube: Kube, namespace: str, app: str) -> list[str]:
    """The lines of all pods of one Deployment."""
    words = ("logs", "-l", f"app={app}", "--tail=-1", f"--max-log-requests={PODS}")
    return kube.run("-n", namespace, *words, check=False).split("\n")
