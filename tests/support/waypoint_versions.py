"""Two versions of a service behind a waypoint, and what people write of routes to them, for lab tests."""

from __future__ import annotations

from typing import Any

from ambient.cli.demo.stage import PYTHON
from tests.support.lab import LabUnderTest, object_yaml
from tests.support.waypoint_lab import GATEWAY_VERSION, WEB, WEB_PORTS, apply, echo, server_yaml, service_yaml

GROUP = "gateway.networking.k8s.io"
ISTIO = "networking.istio.io/v1"
VERSIONS = "".join(
    server_yaml(f"web-{one}", version=one) + service_yaml(f"web-{one}", *WEB_PORTS, app="web", version=one)
    for one in ("v1", "v2")
)
NAMED = r"""
import socket, ssl, sys
hello = b"hello world"
if sys.argv[2]:
    told, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        ssl.create_default_context().wrap_bio(told, said, server_hostname=sys.argv[2]).do_handshake()
    except ssl.SSLWantReadError:
        hello = said.read()
try:
    s = socket.create_connection((sys.argv[1], 9001), float(sys.argv[3]))
    s.sendall(hello)
    print(s.recv(64).decode().strip())
except OSError:
    print("")
"""
STEADY = r"""
import collections, http.client, sys, threading, time
requests, path = int(sys.argv[1]), sys.argv[2]
seen, lock, begin = collections.Counter(), threading.Lock(), time.monotonic()
def client(first):
    link = http.client.HTTPConnection("web.shop", 80, timeout=60)
    for number in range(first, requests, 8):
        time.sleep(max(0, begin + number / 500 - time.monotonic()))
        try:
            link.request("GET", path)
            answer = link.getresponse()
            answer.read()
            what = f"{answer.status} {answer.getheader('x-version', '')}"
        except OSError as error:
            what = f"failed {type(error).__name__}"
            link.close()
        with lock:
            seen[what] += 1
threads = [threading.Thread(target=client, args=(first,)) for first in range(8)]
for one in threads: one.start()
print("begun", flush=True)
for one in threads: one.join()
for what, count in sorted(seen.items()): print(count, what)
"""


def named(lab: LabUnderTest, host: str, name: str = "", pod: str = "shop/client", *, patience_s: float = 50) -> str:
    """Which pod takes a TCP connection to port 9001 of a host; with `name`, one that asks for it by TLS."""
    return lab.exec(pod, PYTHON, "-c", NAMED, host, name, str(patience_s)).stdout.strip()


def virtual_yaml(name: str = "web", namespace: str = "shop", **spec: Any) -> str:
    return object_yaml(ISTIO, "VirtualService", name, namespace, spec={"hosts": [name], **spec})


def rule_yaml(name: str = "web", **traffic: Any) -> str:
    """A DestinationRule with the subsets v1 and v2."""
    subsets = [{"name": one, "labels": {"version": one}} for one in ("v1", "v2")]
    policy = {"trafficPolicy": traffic} if traffic else {}
    spec = {"host": name, "subsets": subsets, **policy}
    return object_yaml(ISTIO, "DestinationRule", name, "shop", spec=spec)


def route_yaml(kind: str, *rules: dict[str, Any], version: str = GATEWAY_VERSION, **spec: Any) -> str:
    """A route called as its kind on the Service web."""
    parent = {"group": "", "kind": "Service", "name": "web"}
    return object_yaml(version, kind, kind.lower(), "shop", spec={"parentRefs": [parent], "rules": rules, **spec})


def to(subset: str = "", weight: int | None = None, host: str = "web") -> dict[str, Any]:
    """One destination of a VirtualService."""
    destination = {"host": host, **({"subset": subset} if subset else {})}
    return {"destination": destination, **({} if weight is None else {"weight": weight})}


def pods(lab: LabUnderTest, times: int, *words: str, pod: str = "shop/client", url: str = WEB) -> set[str]:
    """Who answers so many requests."""
    return {echo(lab, pod, *words, url=url)["pod"] for _ in range(times)}


def put(lab: LabUnderTest, *http: dict[str, Any], **spec: Any) -> None:
    """The VirtualService of web, in the place of the one before."""
    apply(lab, virtual_yaml(http=list(http), **spec))
