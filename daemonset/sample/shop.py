"""A small shop: five HTTP services and a database in one file of plain Python, told apart by SHOP_ROLE.

    web -> catalogue, cart, orders     cart, orders -> db     orders -> payment

Every answer is JSON that says who answered (service, version, pod, node), which client address it saw and what a proxy
on the way told it, with the answers of the services it asked itself below `asked`: one request shows the whole path.

    /                 what this service is for            /buy/ITEM      (web) through cart, orders, payment and db
    /ping/SERVICE     a datagram to SERVICE and back      /health        for probes; never switched
    /switch?slow=MS&error=CODE    from now on answer later, or with an error; without values as before
    /hold/SECONDS     an answer that takes its time, a byte every tenth of a second

The database speaks SQL in lines of JSON on TCP port 5432 and greets first; datagrams are answered on UDP port 8081.
`shop.py URL` is a client: it prints the answer and exits with 1 when there is none or it is an error.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HTTP, DATABASE, PING = 8080, 5432, 8081
TABLES = "create table orders (id integer primary key, item text, price integer); create table cart (item text);"
TOLD = ("x-forwarded-client-cert", "x-forwarded-for", "traceparent")
ITEMS = {"tea": 4, "bread": 3, "lamp": 29}
FAMILY = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
ANY = "::" if FAMILY == socket.AF_INET6 else ""


class Shop:
    """One service of the shop: what it is, its switches, and what it does when asked."""

    def __init__(self, role: str, pod: str, node: str) -> None:
        self.role = role
        self.me = {"service": role, "version": "v2" if pod.endswith("-v2") else "v1", "pod": pod, "node": node}
        self.slow_ms = 0
        self.error = 0
        self.lock = threading.Lock()
        self.database: Any = None

    def serve(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """What this service answers to a path; LookupError when there is nothing."""
        verb, _, what = path.strip("/").partition("/")
        if verb == "ping" and what:
            return {"pong": ping(what)}
        if verb == "switch":
            self.slow_ms, self.error = (int(query.get(name, ["0"])[0]) for name in ("slow", "error"))
            return {"slow_ms": self.slow_ms, "error": self.error}
        time.sleep(self.slow_ms / 1000)
        if self.error:
            raise Failing(self.error)
        match self.role, verb, what:
            case "web", "", "":
                return {"asked": [ask("catalogue", ""), ask("cart", "")]}
            case "web", "buy", item:
                return {"asked": [ask("cart", f"add/{item}"), ask("orders", f"order/{item}")]}
            case "catalogue", "", "":
                return {"items": ITEMS | ({"umbrella": 12} if self.me["version"] == "v2" else {})}
            case "cart", "", "":
                return {"cart": self.sql("select item from cart")}
            case "cart", "add", item:
                self.sql("insert into cart (item) values (?)", item)
                return {"cart": self.sql("select item from cart")}
            case "orders", "", "":
                return {"orders": self.sql("select id, item, price from orders")}
            case "orders", "order", item:
                price = ITEMS[item]
                paid = ask("payment", f"pay/{price}")
                return {
                    "order": self.sql("insert into orders (item, price) values (?, ?)", item, price),
                    "asked": [paid],
                }
            case "payment", "pay", amount:
                return {"paid": int(amount)}
            case (("payment" | "db" | "visitor"), "", ""):
                return {}
        raise LookupError(path)

    def sql(self, statement: str, *values: object) -> Any:
        """One statement over the one connection that is kept to the database; a lost one is made anew, once."""
        with self.lock:
            for again in (True, False):
                try:
                    if self.database is None:
                        connection = socket.create_connection(("db", DATABASE), timeout=5)
                        self.database = connection.makefile("rw")
                        self.database.readline()  # the database greets first
                    self.database.write(json.dumps([statement, *values]) + "\n")
                    self.database.flush()
                    return json.loads(self.database.readline())
                except (OSError, ValueError) as error:
                    self.database = None
                    if not again:
                        raise Failing(502, f"db: {error}") from None


class Failing(Exception):
    """An answer that is an HTTP error; `answer` is what another service said of it."""

    def __init__(self, code: int, why: str = "switched on", answer: Any = None) -> None:
        super().__init__(why)
        self.code, self.why, self.answer = code, why, answer


def ask(service: str, path: str) -> Any:
    """The answer of another service; Failing when it has none, with how far the request came."""
    try:
        with urllib.request.urlopen(f"http://{service}/{path}", timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failing(502, f"{service}: HTTP {error.code}", json.load(error)) from None
    except (OSError, ValueError) as error:
        raise Failing(502, f"{service}: {error}") from None


def ping(service: str) -> str:
    """Send a datagram to a service and wait a second for the one that comes back."""
    family, kind, _, _, address = socket.getaddrinfo(service, PING, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sock:
        sock.settimeout(1)
        sock.sendto(b"ping", address)
        try:
            return sock.recv(200).decode()
        except OSError as error:
            return f"nothing came back: {error}"


def plain(address: str) -> str:
    """A client's address as people write it."""
    return address.removeprefix("::ffff:")


class Handler(BaseHTTPRequestHandler):
    """HTTP on 8080, keep-alive."""

    shop: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answer: dict[str, Any] = self.shop.me | {"client": plain(self.client_address[0])}
        told = {name: self.headers[name] for name in TOLD if name in self.headers}
        answer |= {"told": told} if told else {}
        code = 200
        try:
            if url.path.startswith("/hold/"):
                return self.hold(float(url.path[6:]))
            answer |= {} if url.path == "/health" else self.shop.serve(url.path, parse_qs(url.query))
        except Failing as error:
            code = error.code
            answer |= {"error": error.why} | ({"asked": [error.answer]} if error.answer else {})
        except (LookupError, ValueError) as error:
            code, answer["error"] = 404, f"nothing here: {error}"
        body = json.dumps(answer, indent=1).encode() + b"\n"
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-shop", f"{self.shop.me['pod']} on {self.shop.me['node']} saw {answer['client']}")
        self.end_headers()
        self.wfile.write(body)

    def hold(self, seconds: float) -> None:
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        for _ in range(int(seconds * 10)):
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, format: str, *args: object) -> None:
        if self.path != "/health":
            sys.stderr.write(f"{plain(self.client_address[0])} {format % args}\n")


class Database(StreamRequestHandler):
    """A line is JSON, [statement, values...]; so is the answer: rows, or the id of what was inserted."""

    memory = sqlite3.connect(":memory:", check_same_thread=False)
    lock = threading.Lock()

    def handle(self) -> None:
        self.wfile.write(f"shop database; you are {plain(self.client_address[0])}\n".encode())
        for line in self.rfile:
            statement, *values = json.loads(line)
            with self.lock:
                done = self.memory.execute(statement, values)
                answer = done.fetchall() if done.description else done.lastrowid
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Web(ThreadingHTTPServer):
    address_family = FAMILY
    request_queue_size = 128


class Lines(ThreadingTCPServer):
    address_family = FAMILY
    allow_reuse_address = True
    daemon_threads = True


def answer_pings(shop: Shop) -> None:
    sock = socket.socket(FAMILY, socket.SOCK_DGRAM)
    if FAMILY == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((ANY, PING))
    while True:
        _, client = sock.recvfrom(200)
        sock.sendto(f"{shop.me['pod']} saw {plain(client[0])}".encode(), client)


def fetch(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            code, body = 0, answer.read()
    except urllib.error.HTTPError as error:
        code, body = 1, error.read()
    except OSError as error:
        code, body = 1, f"{error}\n".encode()
    sys.stdout.write(body.decode())
    return code


def main() -> None:
    if len(sys.argv) > 1:
        sys.exit(fetch(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    shop = Shop(os.environ["SHOP_ROLE"], os.environ["SHOP_POD"], os.environ["SHOP_NODE"])
    threading.Thread(target=answer_pings, args=(shop,), daemon=True).start()
    if shop.role == "db":
        Database.memory.executescript(TABLES)
        threading.Thread(target=Lines((ANY, DATABASE), Database).serve_forever, daemon=True).start()
    Handler.shop = shop
    Web((ANY, HTTP), Handler).serve_forever()


if __name__ == "__main__":
    main()
