"""The programs that run inside the demo's pods, as text for `python3 -c`: standard library only, both families.

SERVER: HTTP on 8080 (/id says who it is and who asks, /healthz counts probes, POST / gives the body back); lines on
7000 (it speaks first, then echoes each line); on 7001 it reads to the end and then sends twice as many bytes.
LINES HOST PORT: copies standard input to the server line by line and its answers to standard output; says how it ends.
BYTES HOST PORT TIMES SIZE: sends SIZE bytes and ends its direction, TIMES connections, prints what came back.
"""

from __future__ import annotations

from typing import Final

SERVER: Final = r"""
import http.server, json, os, socket, socketserver, threading
ME = {"pid": os.getpid(), "started": os.urandom(8).hex(), "probes": 0}
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/healthz":
            ME["probes"] += 1
        self.answer(json.dumps(dict(ME, peer=self.client_address[0].removeprefix("::ffff:"))).encode())
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))
    def log_message(self, *_):
        pass
class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello from " + ME["started"].encode() + b"\n")
        for line in self.rfile:
            self.wfile.write(line)
class Bytes(socketserver.StreamRequestHandler):
    def handle(self):
        count = 0
        while chunk := self.rfile.read1(65536):
            count += len(chunk)
        self.wfile.write(b"x" * (2 * count))
def serve(kind, handler, port):
    class Server(kind):
        address_family = socket.AF_INET6
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 128
        def server_bind(self):
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self.socket.bind(self.server_address)
            self.server_name, self.server_port = "db", port
        def handle_error(self, request, address):
            pass
    threading.Thread(target=Server(("::", port), handler).serve_forever).start()
serve(http.server.ThreadingHTTPServer, Web, 8080)
serve(socketserver.ThreadingTCPServer, Lines, 7000)
serve(socketserver.ThreadingTCPServer, Bytes, 7001)
"""

LINES: Final = r"""
import socket, sys, threading
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
except OSError as error:
    print("refused", error, flush=True); sys.exit(7)
s.settimeout(None)
def up():
    for line in sys.stdin.buffer:
        try:
            s.sendall(line)
        except OSError:
            return
threading.Thread(target=up, daemon=True).start()
try:
    for line in s.makefile("rb"):
        print("got", line.decode().strip(), flush=True)
    print("closed", flush=True)
except OSError as error:
    print("closed", error, flush=True)
"""

BYTES: Final = r"""
import socket, sys
host, port, times, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
back = 0
for _ in range(times):
    s = socket.create_connection((host, port), 5)
    s.sendall(b"y" * size)
    s.shutdown(socket.SHUT_WR)
    while chunk := s.recv(65536):
        back += len(chunk)
    s.close()
print(back)
"""
