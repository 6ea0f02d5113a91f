"""A lab with an egress gateway: a waypoint for ServiceEntries, and TLS servers that are no part of the mesh, one of
them on a machine that the lab knows nothing of.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from ambient.kube.objects import ServiceEntry
from ambient.lab.names import NETNS_DIR
from ambient.lab.sync import wait_acknowledged
from ambient.waypoint.deploy import WILDCARD_NETWORKS
from tests.support.lab import (
    PATIENCE_S,
    SLEEP,
    LabUnderTest,
    lab_under_test,
    namespace_yaml,
    object_yaml,
    pod_yaml,
    until,
)
from tests.support.mint import Leaf
from tests.support.outside import NUMBER, Outside
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_lab import account_yaml, gateway_yaml, ready

SERVER = r"""
import http.server, json, os, ssl, threading
class Told(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/hold":
            freed.clear()
            held.append(self.path)
            freed.wait()
        if self.path == "/release":
            freed.set()
        tls = self.connection if isinstance(self.connection, ssl.SSLSocket) else None
        peer = (tls.getpeercert() if tls else None) or {}
        said = dict(port=self.server.server_port, path=self.path, held=len(held), tls=tls.version() if tls else "",
                    sni=getattr(tls, "asked", ""), serial=peer.get("serialNumber", ""),
                    client="".join(value for part in peer.get("subject", ()) for _, value in part),
                    headers={k.lower(): v for k, v in self.headers.items()})
        body = json.dumps(said).encode()
        self.send_response(503 if self.path == "/down" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size, daemon_threads = 128, True
    def handle_error(self, *args): pass
freed, held = threading.Event(), []
def heard(sock, name, context):
    sock.asked = name
def file(text):
    link = os.memfd_create("pem"); os.write(link, text.encode())
    return f"/proc/self/fd/{link}"
def served(port, own, clients=""):
    server = Server(("0.0.0.0", port), Told)
    if own:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file(own))
        context.sni_callback = heard
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=clients)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()
served(8443, os.environ["SITE"], os.environ["CLIENTS"])
served(8444, os.environ["SITE"])
served(8445, os.environ["IMPOSTOR"])
served(8080, "")
"""
"""8443 asks for a client's certificate, 8444 does not, 8445 proves to be somebody else; 8080 is plain HTTP. Who asks
for /hold waits until somebody asks for /release; `held` is how many ever asked."""
HOST = "api.example.com"
NAMED = "api.outside.svc.cluster.local"
SITES = Authority("sites").mint
PARTNERS = Authority("partners").mint
NETWORKING = "networking.istio.io/v1"
PORTS = {"mutual": (80, 8443), "simple": (81, 8444), "impostor": (82, 8445), "plain": (83, 8080)}


def _names(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(one) for one in names]


def client_leaf(title: str) -> Leaf:
    """What the waypoint is to prove itself with."""
    return PARTNERS.leaf(names=_names("egress.example.com"), usages=("client",), title=title)


def server_env() -> dict[str, str]:
    site = SITES.leaf(names=_names(HOST, NAMED, "other.example.com", "*.wild.example.com"), usages=("server",))
    impostor = Authority("somebody").mint.leaf(names=_names(HOST), usages=("server",))
    return {"SITE": site.key + site.chain, "IMPOSTOR": impostor.key + impostor.chain, "CLIENTS": PARTNERS.roots}


def credential_yaml(name: str, leaf: Leaf | None = None, roots: str = SITES.roots) -> str:
    """A Secret of the waypoint's namespace."""
    texts = {"ca.crt": roots, **({"tls.crt": leaf.chain, "tls.key": leaf.key} if leaf is not None else {})}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items() if text}
    return object_yaml("v1", "Secret", name, "shop", type="Opaque", data=data)


def entry_yaml(
    host: str, address: str, *, name: str = "api", resolution: str = "STATIC", waypoint: bool = True, **more: Any
) -> str:
    """A ServiceEntry with a port for each of the server's."""
    ports = [
        {"number": number, "name": f"http-{kind}", "protocol": "HTTP", "targetPort": target}
        for kind, (number, target) in PORTS.items()
    ]
    spec = {"hosts": [host], "ports": ports, "resolution": resolution, "endpoints": [{"address": address}], **more}
    labels = {"istio.io/use-waypoint": "waypoint"} if waypoint else {}
    return object_yaml(NETWORKING, "ServiceEntry", name, "shop", labels=labels, spec=spec)


def tls_yaml(tls: Mapping[str, Any], *, host: str = HOST, name: str = "api", **policy: Any) -> str:
    """A DestinationRule."""
    spec = {"host": host, "trafficPolicy": {"tls": dict(tls), **policy}}
    return object_yaml(NETWORKING, "DestinationRule", name, "shop", spec=spec)


SCENE = (
    namespace_yaml("shop", **{"istio.io/dataplane-mode": "ambient"})
    + namespace_yaml("outside")
    + "".join(map(account_yaml, ("client", "other")))
    + pod_yaml("shop/client", SLEEP, node="n1", account="client")
    + pod_yaml("shop/other", SLEEP, node="n1", account="other")
    + pod_yaml("outside/client", SLEEP, node="n2")
)


def server_pod_yaml() -> str:
    """The same server as a pod that has a name, and is not in the mesh."""
    env = [{"name": name, "value": value} for name, value in server_env().items()]
    command = [sys.executable, "-u", "-c", SERVER]
    ready_when = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    service = {"clusterIP": "None", "selector": {"app": "api"}, "ports": [{"port": 8443}]}
    made = pod_yaml("outside/api-1", command, node="n2", labels={"app": "api"}, env=env, readiness=ready_when)
    return made + object_yaml("v1", "Service", "api", "outside", spec=service)


@dataclass(frozen=True)
class Egress:
    """`address`: of the server that is no pod."""

    lab: LabUnderTest
    address: str

    def apply(self, *texts: str) -> None:
        """Until the waypoint has taken them."""
        self.lab.apply("".join(texts))
        ready(self.lab)

    def delete(self, *texts: str) -> None:
        self.lab.delete("".join(texts))
        ready(self.lab)

    def ask(self, *words: str, kind: str = "mutual", host: str = HOST, path: str = "", pod: str = "shop/client") -> Any:
        """What the server saw; the status where it was not asked."""
        return self.ask_at(f"http://{host}:{PORTS[kind][0]}/{path}", *words, pod=pod)

    def ask_at(self, url: str, *words: str, pod: str = "shop/client") -> Any:
        """The same of any URL."""
        done = self.lab.exec(pod, "curl", "-s", "-m", "20", "-w", "\n%{http_code}", *words, url)
        body, _, status = done.stdout.rpartition("\n")
        return json.loads(body) if body.startswith("{") else int(status or 0)

    def held_alone(self, url: str) -> None:
        """That while the server holds a request to `url` the next one is refused by the breaker, and then no more."""

        def beside(path: str) -> Any:
            """What the server says to whom no breaker stops."""
            return self.ask_at(f"http://{self.address}:8080/{path}", pod="outside/client")

        def turned_away() -> bool:
            told = self.lab.exec("shop/client", "curl", "-s", "-m", "20", "-D", "-", "-o", "/dev/null", url).stdout
            return told.startswith("HTTP/1.1 503") and "x-envoy-overloaded: true" in told.lower()

        before = beside("held")["held"]
        with self.lab.start("shop/client", "curl", "-s", "-m", "100", f"{url}hold") as held:
            until("the server holds the request", lambda: beside("held")["held"] == before + 1)
            assert turned_away()
            beside("release")
            assert json.loads(held.communicate()[0])["path"] == "/hold"
        assert not turned_away()

    def known(self, host: str = HOST, name: str = "api") -> str:
        """The address that the pods are told for the host, once everybody knows it."""

        def given() -> str:
            entry = self.lab.lab.records().find(ServiceEntry, "shop", name)
            allocated = entry.allocated if entry is not None else ()
            return next((str(ip) for one, ip in allocated if one == host and ip.version == 4), "")

        found = until(f"{host} has an address", given)
        wait_acknowledged(self.lab.lab, PATIENCE_S)
        return found

    def said(self, kind: str, name: str, namespace: str = "shop") -> dict[str, tuple[str, str, str]]:
        """Conditions by type: status, reason, message."""
        found = self.lab.lab.records().by_key[f"{kind}/{namespace}/{name}"]
        return {one.type: (one.status, one.reason, one.message) for one in found.conditions}


@contextmanager
def egress_lab(more: str = "", *, env: Mapping[str, str] | None = None, reach: bool = False) -> Iterator[Egress]:
    """`reach`: names that clients choose may lead to the machine outside."""
    with tempfile.TemporaryDirectory() as folder, lab_under_test("egres") as lab:
        lab.up(mesh=True, env=env)
        machine_address = lab.lab.settings.plan.pods(NUMBER).v4[2]
        notes = {WILDCARD_NETWORKS: f"{machine_address}/32"} if reach else {}
        lab.apply(SCENE + gateway_yaml(node="n2", **notes) + more)
        ready(lab)
        machine = Outside(lab, Path(folder))
        argv = ["nsenter", f"--net={NETNS_DIR / machine.netns}", "--", sys.executable, "-u", "-c", SERVER]
        with subprocess.Popen(argv, env={**os.environ, **server_env()}) as server:
            try:
                url = f"http://{machine.address}:8080/"
                words = ("curl", "-s", "-m", "20", url)
                until("the server outside answers", lambda: lab.exec("outside/client", *words).returncode == 0)
                yield Egress(lab, machine.address)
            finally:
                server.kill()
                machine.end()
