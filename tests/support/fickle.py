"""A server for labs whose health is a word away, as text for `python3 -c`: standard library only, both families.

GET /id says who it is and who asks; /sick and /well change what /healthz answers from then on.
"""

from __future__ import annotations

from typing import Any, Final

from ambient.cli.demo.stage import PYTHON
from tests.support.lab import pod_yaml

PORT: Final = 8080

_PROGRAM: Final = r"""
import http.server, json, os, socket
STATE = {"well": os.environ.get("SICK") is None}
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path in ("/sick", "/well"):
            STATE["well"] = self.path == "/well"
        peer, own = (end[0].removeprefix("::ffff:") for end in (self.client_address, self.connection.getsockname()))
        self.send_response(200 if STATE["well"] or self.path != "/healthz" else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"name": os.environ["NAME"], "peer": peer, "own": own}).encode())
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "fickle", self.server_address[1]
Server(("::", int(os.environ["PORT"])), Web).serve_forever()
"""


def fickle(pod: str, node: str, app: str, *, port: int = PORT, sick: bool = False, **fields: Any) -> str:
    """A pod with the label app=`app` that serves on `port`; with `sick` it is not ready until told to be."""
    name = pod.rpartition("/")[2]
    env = [{"name": "NAME", "value": name}, {"name": "PORT", "value": str(port)}]
    env += [{"name": "SICK", "value": "1"}] if sick else []
    ready = {
        "httpGet": {"path": "/healthz", "port": port},
        "periodSeconds": 1,
        "timeoutSeconds": 20,
        "failureThreshold": 1,
    }
    return pod_yaml(
        pod, [PYTHON, "-u", "-c", _PROGRAM], node=node, labels={"app": app}, env=env, readiness=ready, **fields
    )
