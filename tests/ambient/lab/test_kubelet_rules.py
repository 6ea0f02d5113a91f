"""Services as nftables, probes' thresholds, restarts: the pure rules of the kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.objects import Pod, Probe, Service, TcpSocket, parse_object
from ambient.lab.addresses import Plan
from ambient.lab.kubelet.container import MAX_BACKOFF_S, backoff_s, restarts_again
from ambient.lab.kubelet.probe import Verdict
from ambient.lab.kubelet.services import ruleset

PLAN = Plan(0)


def _pod(name: str, ips: list[str], **more: Any) -> Pod:
    ports = [{"name": "web", "containerPort": 8080}] if more.pop("named", True) else []
    status = {"phase": "Running", "ready": True, "podIPs": [{"ip": ip} for ip in ips]} | more.pop("status", {})
    metadata = {"name": name, "namespace": "a", "labels": {"app": "x"}} | more.pop("metadata", {})
    raw = {
        **{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status},
        "spec": {"containers": [{"name": "c", "command": ["true"], "ports": ports}]},
    }
    pod = parse_object(raw, "t")
    assert isinstance(pod, Pod)
    return pod


def _service(**spec: Any) -> Service:
    base = {"clusterIP": "10.192.1.1", "clusterIPs": ["10.192.1.1", "fdab:0:0:ffff::101"], "selector": {"app": "x"}}
    spec = {**base, "ports": [{"port": 80, "targetPort": "web"}], **spec}
    service = parse_object(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a"}, "spec": spec}, "t"
    )
    assert isinstance(service, Service)
    return service


def _rules(service: Service, *pods: Pod) -> str:
    return ruleset([service], pods, PLAN, PLAN.node(1))


def test_a_service_leads_to_its_ready_pods_in_each_family() -> None:
    text = _rules(_service(), _pod("one", ["10.64.1.2", "fdab:0:0:1::2"]), _pod("two", ["10.64.1.3"]))
    assert "10.192.1.1 . tcp . 80 : goto s0p0v4" in text
    assert "fdab:0:0:ffff::101 . tcp . 80 : goto s0p0v6" in text
    assert "numgen random mod 2 vmap { 0 : goto s0p0v4e0, 1 : goto s0p0v4e1 }" in text
    assert "meta l4proto tcp dnat ip to 10.64.1.3:8080" in text
    assert "meta l4proto tcp dnat ip6 to [fdab:0:0:1::2]:8080" in text
    assert "10.64.1.2 . 10.64.1.2, 10.64.1.3 . 10.64.1.3" in text


@pytest.mark.parametrize(
    "pod",
    [
        _pod("other", ["10.64.1.2"], metadata={"labels": {"app": "y"}}),
        _pod("elsewhere", ["10.64.1.2"], metadata={"namespace": "b"}),
        _pod("unready", ["10.64.1.2"], status={"ready": False}),
        _pod("ended", ["10.64.1.2"], status={"phase": "Succeeded"}),
        _pod("homeless", []),
        _pod("leaving", ["10.64.1.2"], metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        _pod("portless", ["10.64.1.2"], named=False),
    ],
    ids=lambda pod: pod.name,
)
def test_a_pod_that_does_not_serve_gets_nothing(pod: Pod) -> None:
    assert "dnat" not in _rules(_service(), pod).replace("dstnat", "").replace("ct status dnat", "")


def test_headless_services_and_sctp_need_no_rules() -> None:
    assert "goto" not in _rules(_service(clusterIP="None", clusterIPs=["None"]), _pod("one", ["10.64.1.2"]))
    ports = [{"port": 80, "protocol": "SCTP"}]
    assert "goto" not in _rules(_service(ports=ports), _pod("one", ["10.64.1.2"]))


def _probe(success: int = 1, failure: int = 3) -> Probe:
    return Probe(action=TcpSocket(1), success_threshold=success, failure_threshold=failure)


@pytest.mark.parametrize(
    ("start", "results", "passed"),
    [
        (False, [True], True),
        (True, [False, False], True),
        (True, [False, False, False], False),
        (True, [False, False, True, False, False], True),
    ],
)
def test_a_verdict_flips_only_after_enough_equal_results(start: bool, results: list[bool], passed: bool) -> None:
    verdict = Verdict(start)
    for result in results:
        verdict = verdict.after(result, _probe())
    assert verdict.passed is passed


def test_success_has_a_threshold_too() -> None:
    verdict = Verdict(False).after(True, _probe(success=2))
    assert not verdict.passed
    assert verdict.after(True, _probe(success=2)).passed


def test_restarts_begin_at_once_and_slow_down_to_a_limit() -> None:
    delays = [backoff_s(restart) for restart in range(1, 20)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == MAX_BACKOFF_S


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        *(("Always", 0, True), ("Always", 1, True), ("Never", 1, False), ("Never", None, False)),
        *(("OnFailure", 0, False), ("OnFailure", 1, True), ("OnFailure", None, True)),
    ],
)
def test_the_restart_policy_decides(policy: str, code: int | None, again: bool) -> None:
    assert restarts_again(policy, code) is again
