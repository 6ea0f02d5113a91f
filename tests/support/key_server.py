"""An HTTPS server of key sets within a network namespace, run by the test itself."""

from __future__ import annotations

import http.server
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509

from ambient.netns import entered
from tests.support.tunnel_certs import Authority


class KeyServer:
    """`keys` is what it answers with, "" an error. `url` is where."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = ""
        self.asked = 0


@contextmanager
def key_server(netns: Path, address: IPv4Address, port: int, root: Authority, folder: Path) -> Iterator[KeyServer]:
    served = KeyServer(f"https://{address}:{port}/keys")

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked += 1
            body = served.keys.encode()
            self.send_response(200 if body else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    file = folder / "keys.pem"
    file.write_bytes(root.mint.leaf(names=[x509.IPAddress(address)]).pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    inside = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(inside):
            server = http.server.ThreadingHTTPServer((str(address), port), Keys)
    finally:
        os.close(inside)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
