"""Services: protocols, families, load balancing, ports of endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_service import DISTRIBUTION, app_protocol, derive_service, endpoint_ports
from ambient.kube.objects import Service as KubeService
from ambient.kube.objects import ServicePort, parse_object
from ambient.model.workload import (
    AppProtocol,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    Port,
    Scope,
    Service,
)
from tests.support.builders import pod, raw

CLOSE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


def kube(metadata: dict[str, Any] | None = None, **spec: Any) -> KubeService:
    parsed = parse_object(
        raw("Service", "web", {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec}, **(metadata or {})), "test"
    )
    assert isinstance(parsed, KubeService)
    return parsed


def derived(service: KubeService, annotations: dict[str, str] | None = None) -> Service:
    result = derive_service(service, annotations or {}, "", "cluster.local")
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (ServicePort(80, 80), AppProtocol.UNKNOWN),
        (ServicePort(80, 80, "http"), AppProtocol.HTTP11),
        (ServicePort(80, 80, "http-web"), AppProtocol.HTTP11),
        (ServicePort(80, 80, "httpweb"), AppProtocol.UNKNOWN),
        (ServicePort(80, 80, "http2"), AppProtocol.HTTP2),
        (ServicePort(80, 80, "grpc-xds"), AppProtocol.GRPC),
        (ServicePort(80, 80, "grpc-web"), AppProtocol.GRPC),
        (ServicePort(80, 80, "grpc-web-x"), AppProtocol.GRPC),
        (ServicePort(80, 80, "tcp-iperf"), AppProtocol.TCP),
        (ServicePort(80, 80, "tls"), AppProtocol.TLS),
        (ServicePort(80, 80, "https-x"), AppProtocol.TLS),
        (ServicePort(80, 80, "tcp", "TCP", "http"), AppProtocol.HTTP11),
        (ServicePort(80, 80, "http", "TCP", "kubernetes.io/h2c"), AppProtocol.HTTP2),
        (ServicePort(80, 80, "http", "TCP", "kubernetes.io/wss"), AppProtocol.TLS),
        (ServicePort(80, 80, "http", "TCP", "example.com/own"), AppProtocol.UNKNOWN),
        (ServicePort(53, 53, "dns", "UDP"), AppProtocol.UNKNOWN),
        (ServicePort(53, 53, "dns-tcp"), AppProtocol.TCP),
        (ServicePort(3306, 3306, "db"), AppProtocol.TCP),
        (ServicePort(80, 80, "http", "UDP"), AppProtocol.UNKNOWN),
    ],
)
def test_application_protocols(port: ServicePort, expected: AppProtocol) -> None:
    assert app_protocol(port) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, IpFamilies.AUTOMATIC),
        ({"ipFamilies": ["IPv4"]}, IpFamilies.IPV4_ONLY),
        ({"clusterIP": "fd96::1", "ipFamilies": ["IPv6"]}, IpFamilies.IPV6_ONLY),
        ({"ipFamilies": ["IPv4", "IPv6"]}, IpFamilies.DUAL),
    ],
)
def test_families(spec: dict[str, Any], expected: IpFamilies) -> None:
    assert derived(kube(**spec)).ip_families is expected


def failover(*scopes: Scope) -> LoadBalancing:
    return LoadBalancing(LoadBalancingMode.FAILOVER, scopes)


@pytest.mark.parametrize(
    ("spec", "own", "namespace", "expected"),
    [
        ({}, "", "", LoadBalancing()),
        ({"internalTrafficPolicy": "Local"}, "", "", LoadBalancing(LoadBalancingMode.STRICT, (Scope.NODE,))),
        (
            {"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"},
            "",
            "",
            LoadBalancing(LoadBalancingMode.STRICT, (Scope.NODE,)),
        ),
        ({"trafficDistribution": "PreferClose"}, "", "", failover(*CLOSE)),
        ({"trafficDistribution": "PreferSameZone"}, "", "", failover(*CLOSE)),
        ({"trafficDistribution": "PreferSameNode"}, "", "", failover(*CLOSE, Scope.SUBZONE, Scope.NODE)),
        ({"trafficDistribution": "PreferClose"}, "PreferSameNode", "", failover(*CLOSE)),
        ({}, "PreferClose", "PreferSameNode", failover(*CLOSE)),
        ({}, "", "PreferClose", failover(*CLOSE)),
        ({}, "Any", "PreferClose", LoadBalancing()),
        ({"publishNotReadyAddresses": True}, "", "", LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)),
        (
            {"publishNotReadyAddresses": True, "trafficDistribution": "PreferClose"},
            "",
            "",
            LoadBalancing(LoadBalancingMode.FAILOVER, CLOSE, HealthPolicy.ALLOW_ALL),
        ),
    ],
)
def test_load_balancing(spec: dict[str, Any], own: str, namespace: str, expected: LoadBalancing) -> None:
    service = kube({"annotations": {DISTRIBUTION: own}} if own else None, **spec)
    assert derived(service, {DISTRIBUTION: namespace} if namespace else {}).load_balancing == expected


def test_a_named_target_port_is_left_to_the_endpoints() -> None:
    service = kube(
        ports=[{"name": "http", "port": 80, "targetPort": "http"}, {"name": "x", "port": 90, "targetPort": "no"}]
    )
    assert [port.target_port for port in derived(service).ports] == [0, 0]
    assert endpoint_ports(service, pod()) == (Port(80, 8080),)


def test_a_service_that_waits_for_its_address_is_not_sent_but_a_headless_one_is() -> None:
    assert derive_service(kube(clusterIP=""), {}, "", "cluster.local") is None
    assert derived(kube(clusterIP="None")).addresses == ()


def test_an_external_name_is_not_sent() -> None:
    external = parse_object(raw("Service", "ext", {"type": "ExternalName", "externalName": "x.example"}), "test")
    assert isinstance(external, KubeService)
    assert derive_service(external, {}, "", "cluster.local") is None
