"""A lab with a waypoint before two services of one pod: HTTP that echoes what it hears, and TCP that speaks first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ambient.cli.demo.stage import PYTHON
from ambient.errors import Unavailable
from ambient.lab.sync import control_get
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until

SERVER = r"""
import http.server, json, os, socketserver, threading
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    def do_GET(self):
        paths.append(self.path)
        if self.path.startswith("/hang"):
            print("hangs", flush=True)
            threading.Event().wait()
        if self.path.startswith("/fail-once/") and paths.count(self.path) == 1:
            self.send_response(503)
            self.send_header("content-length", "0")
            return self.end_headers()
        heard = {k.lower(): v for k, v in self.headers.items()}
        body = json.dumps(dict(pod=os.environ["HOSTNAME"], path=self.path, method=self.command, headers=heard,
                               peer=self.client_address[0],
                               heard=paths[-50:] if self.path == "/heard" else [])).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_DELETE = do_OPTIONS = do_GET
    def log_message(self, *args): pass
class Banner(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"banner\n")
        self.request.recv(1)
class Named(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1)
        self.request.sendall(os.environ["HOSTNAME"].encode() + b"\n")
        self.request.shutdown(1)
        while self.request.recv(4096): pass
class Http(http.server.ThreadingHTTPServer):
    request_queue_size = 128
class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address, request_queue_size = True, 128
paths = []
for port, handler in ((9000, Banner), (9001, Named)):
    threading.Thread(target=Tcp(("0.0.0.0", port), handler).serve_forever, daemon=True).start()
Http(("0.0.0.0", 8080), Echo).serve_forever()
"""
NAMESPACE = namespace_yaml("shop", **{"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"})
GATEWAY_VERSION = "gateway.networking.k8s.io/v1"
POLICY_VERSION = "security.istio.io/v1"
WEB = "http://web.shop/"
WEB_PORTS = ({"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp-named", "port": 9001})


def gateway_yaml(name: str = "waypoint", *, node: str = "", **annotations: str) -> str:
    listeners = [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]
    notes = {**annotations, **({"ambient.mesh/node": node} if node else {})}
    spec = {"gatewayClassName": "istio-waypoint", "listeners": listeners}
    return object_yaml(GATEWAY_VERSION, "Gateway", name, "shop", annotations=notes, spec=spec)


def account_yaml(name: str) -> str:
    return object_yaml("v1", "ServiceAccount", name, "shop")


def server_yaml(name: str, node: str = "n2", **labels: str) -> str:
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    command = [PYTHON, "-u", "-c", SERVER]
    return pod_yaml(f"shop/{name}", command, node=node, account="web", labels={"app": "web", **labels}, readiness=ready)


def service_yaml(name: str, *ports: dict[str, Any], **selector: str) -> str:
    return object_yaml("v1", "Service", name, "shop", spec={"selector": selector, "ports": list(ports)})


def policy_yaml(name: str, action: str, *rules: dict[str, Any], service: str = "web", **annotations: str) -> str:
    """An AuthorizationPolicy for a service."""
    ref = {"group": "", "kind": "Service", "name": service}
    spec = {"targetRefs": [ref], "action": action, "rules": list(rules)}
    return object_yaml(POLICY_VERSION, "AuthorizationPolicy", name, "shop", annotations=annotations, spec=spec)


SCENE = (
    NAMESPACE
    + "".join(map(account_yaml, ("web", "client", "other")))
    + service_yaml("web", *WEB_PORTS, app="web")
    + service_yaml("banner", {"name": "tcp", "port": 9000}, app="web")
    + server_yaml("web-1")
    + pod_yaml("shop/client", SLEEP, node="n1", account="client")
    + pod_yaml("shop/other", SLEEP, node="n1", account="other")
)


def ready(lab: LabUnderTest, name: str = "shop/waypoint", resources: int = 1) -> None:
    """Until a proxy of the waypoint is there and has everything that there is."""

    def settled() -> bool:
        try:
            page = control_get(lab.lab, "/sync")["waypoints"].get(name, {})
        except Unavailable:
            return False  # it is busy, or not back yet
        return bool(page.get("proxies") and page["settled"] and page["resources"] > resources)

    until(f"waypoint {name} has its configuration", settled)
    lab.wait_ready()


def apply(lab: LabUnderTest, text: str) -> None:
    """Apply, and wait until the waypoints have taken it."""
    lab.apply(text)
    ready(lab)


def delete_policies(lab: LabUnderTest) -> None:
    """Until the waypoint knows of none any more."""
    left = [one for one in lab.lab.records().by_key.values() if one.kind == "AuthorizationPolicy"]
    if left:
        lab.delete("".join(policy_yaml(one.name, "ALLOW") for one in left))
        ready(lab)


@contextmanager
def waypoint_lab(more: str = "", *, env: Mapping[str, str] | None = None, **annotations: str) -> Iterator[LabUnderTest]:
    """`env`: of the mesh's parts, as `lab up` takes it."""
    with lab_under_test("wayp") as lab:
        lab.up(SCENE + gateway_yaml(**annotations) + more, mesh=True, env=env)
        ready(lab, resources=6)
        yield lab


def status(lab: LabUnderTest, pod: str, *words: str, url: str = WEB) -> int:
    """The HTTP status of a request from a pod, 0 when there is none."""
    done = lab.exec(pod, "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", *words, url)
    return int(done.stdout or 0)


def echo(lab: LabUnderTest, pod: str, *words: str, url: str = WEB) -> dict[str, Any]:
    """What the application heard."""
    done = lab.exec(pod, "curl", "-sS", "-m", "20", *words, url)
    assert done.returncode == 0, done.stderr + lab.tails()
    heard: dict[str, Any] = json.loads(done.stdout)
    return heard


def banner(lab: LabUnderTest, pod: str, host: str = "banner.shop", port: int = 9000) -> str:
    """What a TCP server says first, "" when nothing comes."""
    code = (
        "import socket,sys\ntry:\n"
        " s=socket.create_connection((sys.argv[1],int(sys.argv[2])),20)\n print(s.recv(64).decode().strip())\n"
        "except OSError: print('')"
    )
    done = lab.exec(pod, PYTHON, "-c", code, host, str(port))
    return done.stdout.strip()
