"""Pods reach each other, Services and names, in both families, on the same and on different nodes. No mesh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ambient.kube.objects import Service
from ambient.lab.lab import Lab
from ambient.model.address import IpAddress
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until

_SERVE = (
    "import socket,socketserver as s\n"
    "class H(s.StreamRequestHandler):\n"
    "    def handle(self):\n"
    "        n=self.rfile.readline()\n"
    "        self.wfile.write(f'{socket.gethostname()} {self.client_address[0]}'.encode())\n"
    "s.TCPServer.address_family=socket.AF_INET6\n"
    "s.TCPServer.allow_reuse_address=True\n"
    "s.ThreadingTCPServer(('::',8080),H).serve_forever()\n"
)
_ASK = (
    "import socket,sys\n"
    "c=socket.create_connection((sys.argv[1],int(sys.argv[2])),20)\n"
    "c.sendall(b'who\\n')\n"
    "print(c.makefile().read())\n"
)
_READY = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}


def _server(pod: str, node: str) -> str:
    return pod_yaml(
        pod,
        ["python3", "-c", _SERVE],
        node=node,
        labels={"app": "echo"},
        ports=[{"name": "echo", "containerPort": 8080}],
        readiness=_READY,
    )


def _service(name: str, **spec: object) -> str:
    base: dict[str, object] = {
        "ipFamilyPolicy": "PreferDualStack",
        "selector": {"app": "echo"},
        "ports": [{"port": 80, "targetPort": "echo"}],
    }
    return object_yaml("v1", "Service", name, "shop", spec={**base, **spec})


@pytest.fixture(scope="module")
def shop() -> Iterator[LabUnderTest]:
    with lab_under_test("net") as lab:
        lab.up(
            namespace_yaml("shop")
            + namespace_yaml("other")
            + _server("shop/one", "n1")
            + _server("shop/two", "n2")
            + pod_yaml("shop/client", SLEEP, node="n1")
            + pod_yaml("other/client", SLEEP, node="n2")
            + pod_yaml("other/strange", SLEEP, node="n2", annotations={"ambient.mesh/pod-ips": "10.11.12.13, fdcc::13"})
            + _service("echo")
            + _service("headless", clusterIP="None")
            + _service("four", ipFamilyPolicy=None)
            + _service("nobody", selector={"app": "nobody"})
        )
        lab.wait_ready()
        yield lab


def _ask(lab: LabUnderTest, pod: str, host: str, port: int = 8080) -> tuple[str, str]:
    """(server's host name, client's address as the server saw it)."""
    done = lab.exec(pod, "python3", "-c", _ASK, host, str(port))
    assert done.returncode == 0, done.stderr
    name, address = done.stdout.split()
    return name, address.removeprefix("::ffff:")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("server", ["shop/one", "shop/two"])
@pytest.mark.parametrize("client", ["shop/client", "other/client", "other/strange"])
def test_a_pod_reaches_a_pod_and_is_seen_with_its_own_address(
    shop: LabUnderTest, client: str, server: str, version: int
) -> None:
    assert _ask(shop, client, shop.ip(server, version)) == (server.split("/")[1], shop.ip(client, version))


@pytest.mark.parametrize("name", ["echo.shop", "echo.shop.svc", "echo.shop.svc.cluster.local", "headless.shop"])
def test_a_service_name_leads_to_a_pod(shop: LabUnderTest, name: str) -> None:
    port = 8080 if name.startswith("headless") else 80
    assert _ask(shop, "other/client", name, port)[0] in ("one", "two")


def test_a_short_name_is_found_only_in_its_own_namespace(shop: LabUnderTest) -> None:
    assert _ask(shop, "shop/client", "echo", 80)[0] in ("one", "two")
    assert shop.exec("other/client", "getent", "ahosts", "echo").returncode == 2


@pytest.mark.parametrize("version", [4, 6])
def test_a_cluster_address_spreads_over_all_ready_pods(shop: LabUnderTest, version: int) -> None:
    address = next(str(ip) for ip in _cluster_ips(shop.lab, "echo") if ip.version == version)
    seen: set[str] = set()

    def both() -> bool:
        seen.add(_ask(shop, "shop/client", address, 80)[0])
        return len(seen) == 2

    until("both pods answered", both)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_reaches_itself_through_its_service(shop: LabUnderTest, version: int) -> None:
    address = next(str(ip) for ip in _cluster_ips(shop.lab, "echo") if ip.version == version)
    until("the pod reached itself", lambda: _ask(shop, "shop/one", address, 80)[0] == "one")


def test_a_service_of_one_family_has_one_address(shop: LabUnderTest) -> None:
    assert [ip.version for ip in _cluster_ips(shop.lab, "four")] == [4]
    assert _ask(shop, "shop/client", "four", 80)[0] in ("one", "two")


def test_a_service_without_ready_pods_refuses_at_once(shop: LabUnderTest) -> None:
    done = shop.exec("shop/client", "python3", "-c", _ASK, "nobody", "80")
    assert "ConnectionRefusedError" in done.stderr


def test_names_outside_the_cluster_do_not_exist(shop: LabUnderTest) -> None:
    assert shop.exec("shop/client", "getent", "ahosts", "example.com").returncode == 2


def test_a_pod_can_write_neither_kernel_settings_nor_see_the_labs_keys(shop: LabUnderTest) -> None:
    assert shop.exec("shop/client", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/lo/accept_local").returncode != 0
    assert shop.exec("shop/client", "sh", "-c", "ls -A /run/ambient").stdout == ""
    assert shop.exec("shop/client", "ip", "link", "set", "eth0", "mtu", "1400").returncode != 0
    assert shop.exec("shop/client", "nsenter", f"--net=/run/netns/{shop.names.net}", "true").returncode != 0


def test_a_change_of_readiness_moves_the_service(shop: LabUnderTest) -> None:
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    server = ["python3", "-m", "http.server", "8080", "--bind", "::", "-d", "/usr/share/doc"]
    shop.apply(
        pod_yaml("shop/switch", server, node="n2", labels={"app": "switch"}, readiness=probe)
        + _service("switch", selector={"app": "switch"}, ports=[{"port": 80, "targetPort": 8080}])
    )

    def curl() -> int:
        return shop.exec("shop/client", "curl", "-sS", "-m", "2", "-o", "/dev/null", "http://switch/").returncode

    shop.wait_ready("shop/switch")
    until("the service answers", lambda: curl() == 0)
    pid = shop.status_of("shop/switch")["containers"][0]["state"]["running"]["pid"]
    shop.signal(pid, "STOP")
    until("it is not ready", lambda: not shop.pod("shop/switch").ready)
    until("the service refuses", lambda: curl() == 7)
    shop.signal(pid, "CONT")
    shop.wait_ready("shop/switch")
    until("the service answers again", lambda: curl() == 0)


def _cluster_ips(lab: Lab, name: str) -> tuple[IpAddress, ...]:
    service = lab.records().find(Service, "shop", name)
    assert service is not None
    return service.cluster_ips
