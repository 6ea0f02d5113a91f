"""The h2 library at the other end of a tunnel, in either role: HPACK with its table, windows, padding, pings."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from tests.strangers.conftest import FOREIGN
from tests.support.arena import Arena
from tests.support.hostile_peer import dial, inside
from tests.support.journey import BYTES, HTTP, WEB
from tests.support.mint import Mint, client_context, spiffe

PATIENCE_S = 60


class Client:
    """Many streams on one connection, driven step by step."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        sock.settimeout(PATIENCE_S)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.answers: dict[int, str] = {}
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.pongs = 0
        self.flush()

    def flush(self) -> None:
        self._sock.sendall(self.h2.data_to_send())

    def open(self, authority: str) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", authority), ("x-note", "caf" * 20)])
        self.flush()
        return int(stream)

    def step(self) -> None:
        data = self._sock.recv(1 << 18)
        assert data, "the server hung up"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.answers[event.stream_id] = str(dict(event.headers)[":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.PingAckReceived):
                self.pongs += 1
        self.flush()

    def answer(self, stream: int) -> str:
        while stream not in self.answers:
            self.step()
        return self.answers[stream]

    def send(self, stream: int, data: bytes, *, padding: int | None = None) -> None:
        """All of it, as the windows allow, then the end of our half."""
        at = 0
        while at < len(data):
            room = min(self.h2.local_flow_control_window(stream) - 256, self.h2.max_outbound_frame_size - 256)
            if room <= 0:
                self.step()
                continue
            self.h2.send_data(stream, data[at : at + room], pad_length=padding)
            at += room
            self.flush()
        self.h2.end_stream(stream)
        self.flush()

    def all_of(self, stream: int) -> bytes:
        while stream not in self.ended:
            self.step()
        return self.data.get(stream, b"")


@pytest.fixture
def client(place: Arena) -> Iterator[Client]:
    with client_context(place.web).wrap_socket(place.dial()) as sock:
        yield Client(sock)


@pytest.mark.parametrize("padding", [None, 0, 200])
def test_h2_as_client_moves_megabytes_both_ways(place: Arena, client: Client, padding: int | None) -> None:
    stream = client.open(f"{place.far}:{BYTES}")
    assert client.answer(stream) == "200"
    client.send(stream, bytes(3 << 20), padding=padding)
    assert len(client.all_of(stream)) == 6 << 20


def test_h2_as_client_has_a_hundred_streams_at_once_that_share_its_header_table(place: Arena, client: Client) -> None:
    streams = [client.open(place.authority) for _ in range(100)]
    for stream in streams:
        assert client.answer(stream) == "200"
    for stream in streams:
        client.h2.send_data(stream, b"GET /id HTTP/1.0\r\n\r\n", end_stream=True)
        client.flush()
    for stream in streams:
        assert client.all_of(stream).startswith(b"HTTP/1.1 200")


def test_h2_as_client_with_small_windows_and_pings_in_between(place: Arena) -> None:
    with client_context(place.web).wrap_socket(place.dial()) as sock:
        client = Client(sock)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        stream = client.open(f"{place.far}:{BYTES}")
        client.h2.ping(b"12345678")
        client.send(stream, bytes(100_000))
        assert len(client.all_of(stream)) == 200_000
        assert client.pongs == 1


def test_h2_as_client_is_told_of_a_stream_that_leads_nowhere(place: Arena, client: Client) -> None:
    refused, good = client.open("127.0.0.1:1"), client.open(place.authority)
    assert client.answer(refused) == "400"
    assert client.answer(good) == "200"


class Server(threading.Thread):
    """Terminates tunnels at a pod's 15008 by echo: what a stream brings goes back on it."""

    def __init__(self, listener: socket.socket, mint: Mint, *, settings: dict[int, int]) -> None:
        super().__init__(daemon=True)
        self._listener, self._settings = listener, settings
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(cadata=mint.roots)
        self._context.set_alpn_protocols(["h2"])
        self.requests: list[dict[str, str]] = []
        self.peers: list[object] = []
        self.error: Exception | None = None
        self._sock: socket.socket | None = None

    def load(self, chain: Path, key: Path) -> None:
        self._context.load_cert_chain(chain, key)

    def hang_up(self) -> None:
        """So that the next server gets a connection of its own, not this one's out of a pool."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()

    def run(self) -> None:
        try:
            sock, _ = self._listener.accept()
            self._sock = socket.fromfd(sock.fileno(), sock.family, sock.type)
            with self._context.wrap_socket(sock, server_side=True) as tls:
                self.peers.append((tls.getpeercert() or {}).get("subjectAltName"))
                self._serve(tls)
        except OSError as error:
            self.error = error

    def _serve(self, tls: ssl.SSLSocket) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.local_settings = h2.settings.Settings(client=False, initial_values=self._settings)
        # The library believes a larger frame of its own initial settings only when told once more.
        connection.max_inbound_frame_size = self._settings.get(h2.settings.SettingCodes.MAX_FRAME_SIZE, 16384)
        connection.initiate_connection()
        tls.sendall(connection.data_to_send())
        waiting: dict[int, bytes] = {}
        ending: set[int] = set()
        while data := tls.recv(1 << 18):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self.requests.append({str(k): str(v) for k, v in event.headers})
                    connection.send_headers(event.stream_id, [(":status", "200"), ("x-long", "y" * 300)])
                elif isinstance(event, h2.events.DataReceived):
                    waiting[event.stream_id] = waiting.get(event.stream_id, b"") + event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ending.add(event.stream_id)
            for stream in list(waiting):
                waiting[stream] = self._echo(connection, stream, waiting[stream])
            for stream in [s for s in ending if not waiting.get(s)]:
                ending.discard(stream)
                connection.end_stream(stream)
            tls.sendall(connection.data_to_send())

    @staticmethod
    def _echo(connection: h2.connection.H2Connection, stream: int, data: bytes) -> bytes:
        while data:
            room = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)
            if room <= 0:
                break
            connection.send_data(stream, data[:room])
            data = data[room:]
        return data


@contextmanager
def h2_server(place: Arena, tmp_path: Path, **settings: int) -> Iterator[Server]:
    with inside(place.lab, FOREIGN):
        listener = socket.socket(socket.AF_INET)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", 15008))
        listener.listen(8)
        codes = {int(getattr(h2.settings.SettingCodes, name)): value for name, value in settings.items()}
        server = Server(listener, place.mint, settings=codes)
        server.load(*place.mint.leaf(spiffe("foreign", "plain")).save(tmp_path, "foreign"))
        server.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.hang_up()
            server.join(20)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"MAX_FRAME_SIZE": 16384, "INITIAL_WINDOW_SIZE": 1000},
        {"MAX_FRAME_SIZE": 1 << 20, "INITIAL_WINDOW_SIZE": 4 << 20},
        {"HEADER_TABLE_SIZE": 0},
    ],
)
def test_h2_as_server_gets_what_a_pod_of_the_mesh_sends(place: Arena, tmp_path: Path, settings: dict[str, int]) -> None:
    host = place.mesh.host(FOREIGN, 4)
    with h2_server(place, tmp_path, **settings) as server, dial(place.lab, WEB, host, HTTP) as sock:
        sock.settimeout(PATIENCE_S)
        blob = bytes(range(256)) * 400
        writer = threading.Thread(target=lambda: (sock.sendall(blob), sock.shutdown(socket.SHUT_WR)))
        writer.start()
        got = sock.makefile("rb").read()
        writer.join()
        assert got == blob, server.error
        assert server.requests[0][":authority"] == f"{host}:{HTTP}"
        assert server.requests[0][":method"] == "CONNECT"
        assert ":path" not in server.requests[0]
        assert server.requests[0]["baggage"].startswith("k8s.cluster.name=Kubernetes,k8s.namespace.name=shop")
        assert server.peers == [(("URI", spiffe("web")),)]
