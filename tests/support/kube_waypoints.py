"""A namespace of a cluster that has a waypoint: its objects, and how requests through it end."""

from __future__ import annotations

from typing import Any

from tests.support.kube import Kube, Object, eventually, policy, service

GATEWAY = "gateway.networking.k8s.io/v1"
USE = "istio.io/use-waypoint"
ECHO = r"""
import http.server, json, os
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps(dict(pod=os.environ["HOSTNAME"], method=self.command, peer=self.client_address[0])).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", 8080), Echo).serve_forever()
"""


def gateway(namespace: str, name: str = "waypoint", **spec: Any) -> Object:
    listeners = [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]
    return {
        "apiVersion": GATEWAY,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": listeners, **spec},
    }


def http_service(namespace: str, name: str, app: str) -> Object:
    made = service(namespace, name, http=(80, 8080))
    made["spec"]["selector"] = {"app": app}
    return made


def allow(namespace: str, target: str, account: str, method: str) -> Object:
    """Only this account's requests, and only with this method."""
    source = {"source": {"principals": [f"cluster.local/ns/{namespace}/sa/{account}"]}}
    rule = {"from": [source], "to": [{"operation": {"methods": [method]}}]}
    refs = [{"group": "", "kind": "Service", "name": target}]
    return policy("AuthorizationPolicy", namespace, "only", {"targetRefs": refs, "action": "ALLOW", "rules": [rule]})


def route(namespace: str, service: str, header: tuple[str, str], to: str) -> Object:
    """To another service where a header says so."""
    matches = [{"headers": [{"name": header[0], "value": header[1]}]}]
    return {
        "apiVersion": GATEWAY,
        "kind": "HTTPRoute",
        "metadata": {"name": service, "namespace": namespace},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": service}],
            "rules": [
                {"matches": matches, "backendRefs": [{"name": to, "port": 80}]},
                {"backendRefs": [{"name": service, "port": 80}]},
            ],
        },
    }


def conditions(kube: Kube, namespace: str, name: str = "waypoint") -> dict[str, tuple[str, str]]:
    """Of a Gateway: status and message by type."""
    listed = kube.get("gateway", name, namespace).get("status", {}).get("conditions", ())
    return {one["type"]: (one["status"], one["message"]) for one in listed}


def programmed(kube: Kube, namespace: str, name: str = "waypoint") -> bool:
    return conditions(kube, namespace, name).get("Programmed", ("", ""))[0] == "True"


def status(kube: Kube, namespace: str, pod: str, url: str, *argv: str) -> int:
    """Of the answer, 0 when there is none."""
    words = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "8", *argv, url)
    return int(kube.exec(namespace, pod, *words).stdout or 0)


def answers(kube: Kube, namespace: str, pod: str, url: str, wanted: int, *argv: str) -> None:
    """Wait until a request ends so."""
    eventually(lambda: status(kube, namespace, pod, url, *argv) == wanted, f"for {wanted} of {url}")
