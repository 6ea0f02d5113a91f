"""An ingress gateway on a cluster: its objects, what is said of it, and asking it from outside of the mesh."""

from __future__ import annotations

from typing import Any

from tests.support.kube import Kube, Object, eventually, pod_spec
from tests.support.kube_waypoints import GATEWAY
from tests.support.mint import Leaf

CLASS = "ambient"
_TLS = r"""
import http.server, os, ssl
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("", 8443), Hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
link = os.memfd_create("pem"); os.write(link, os.environ["PEM"].encode())
context.load_cert_chain(f"/proc/self/fd/{link}")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
HTTP: Object = {"name": "http", "port": 80, "protocol": "HTTP"}


def front(namespace: str, *listeners: Object, name: str = "front", of_class: str = CLASS, **annotations: str) -> Object:
    notes = {key.replace("__", "/"): value for key, value in annotations.items()}
    return {
        "apiVersion": GATEWAY,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace, "annotations": notes},
        "spec": {"gatewayClassName": of_class, "listeners": list(listeners or (HTTP,))},
    }


def https(name: str, port: int, secret: str) -> Object:
    return {"name": name, "port": port, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": secret}]}}


def on_gateway(namespace: str, service: str, gateway: str = "front", *, path: str = "/", port: int = 80) -> Object:
    """A route that leads what comes in, below a path, to a service."""
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [{"name": service, "port": port}],
    }
    return {
        "apiVersion": GATEWAY,
        "kind": "HTTPRoute",
        "metadata": {"name": f"{gateway}-{service}", "namespace": namespace},
        "spec": {"parentRefs": [{"name": gateway}], "rules": [rule]},
    }


def host(namespace: str, gateway: str = "front") -> str:
    """The name of its Service."""
    return f"{gateway}-{CLASS}.{namespace}.svc.cluster.local"


def listener(kube: Kube, namespace: str, name: str, gateway: str = "front") -> dict[str, Any]:
    """What is said of a listener: (status, reason, message) by type, and under `attached` its routes."""
    for one in kube.get("gateway", gateway, namespace).get("status", {}).get("listeners", ()):
        if one["name"] == name:
            said = {each["type"]: (each["status"], each["reason"], each["message"]) for each in one["conditions"]}
            return {**said, "attached": one["attachedRoutes"]}
    return {}


def resolved(kube: Kube, namespace: str, name: str) -> bool:
    return listener(kube, namespace, name).get("ResolvedRefs", ("",))[0] == "True"


def may_read_certificates(kube: Kube, namespace: str) -> None:
    """What the owner of a namespace does so that Gateways may use its Secrets."""
    group = "rbac.authorization.k8s.io"
    kube.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "ambient-certificates", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "ambient-certificates"},
            "subjects": [{"kind": "ServiceAccount", "name": "ambient-control", "namespace": "ambient-system"}],
        }
    )


def tls_server(kube: Kube, leaf: Leaf) -> Object:
    """The spec of a pod that answers every request over TLS on 8443."""
    environment = [{"name": "PEM", "value": leaf.key + leaf.chain}]
    probe = {"readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1}}
    return pod_spec(("python3", "-c", _TLS), kube.image, env=environment, **probe)


def backend_tls(namespace: str, service: str, hostname: str, authority: str) -> Object:
    """The application behind a service is spoken to in TLS; a ConfigMap says who vouches for it."""
    check = {"hostname": hostname, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": authority}]}
    return {
        "apiVersion": GATEWAY,
        "kind": "BackendTLSPolicy",
        "metadata": {"name": service, "namespace": namespace},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": service}], "validation": check},
    }


def certificate(kube: Kube, namespace: str, pod: str, name: str, port: int) -> str:
    """What a server proves itself with, in PEM; "" when it does not."""
    program = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2])), timeout=8))"
    return kube.exec(namespace, pod, "python3", "-c", program, name, str(port)).stdout.strip()


def proves(kube: Kube, namespace: str, pod: str, name: str, port: int, chain: str) -> None:
    """Wait until new connections see this certificate."""
    leaf = chain.partition("-----END")[0]
    eventually(lambda: certificate(kube, namespace, pod, name, port).startswith(leaf), "for the certificate")
