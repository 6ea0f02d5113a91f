"""What is fuzzed: everything in ztunnel that reads octets of a peer, a pod, the control plane or the node agent.

Beside "no crash" a target asserts what must hold for whatever it accepted.
"""

from __future__ import annotations

import os
import ssl
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

import dnslib
from hpack import Decoder, Encoder, HPACKError

from ambient.errors import MeshError
from ambient.model import dns
from ambient.model.address import Endpoint, parse_ip
from ambient.model.workload import ApplicationTunnel, TunnelPreamble
from ambient.xds.client import DeltaClient
from ambient.xds.codec import decode
from ambient.xds.messages import decode_request, decode_response, encode_request, open_response, ztunnel_node
from ambient.zds import codec as zds
from ambient.zds.session import AgentSession, ZtunnelSession
from tests.support.fuzz import Target
from tests.support.tunnel_certs import Authority
from tests.support.tunnel_frames import Recording, Side
from ztunnel.hbone import frames
from ztunnel.hbone.frames import frame
from ztunnel.hbone.headers import BlockReader, literal, read_stateless, request_prefix, response_block
from ztunnel.hbone.limits import SERVER, Violation
from ztunnel.ipc.messages import PodPolicy
from ztunnel.proxy.aim import Aim, proxy_header, take_aim
from ztunnel.tls.contexts import load_credentials
from ztunnel.tls.session import TlsSession

GOLDEN: Final = Path(__file__).resolve().parents[1] / "golden" / "xds"
NAME: Final = "web.shop.svc.cluster.local"
BLOCK: Final = request_prefix(b"10.0.0.1:80", b"k8s.pod.name=web")
HELLO: Final = frames.PREFACE + frames.settings(((frames.SETTING_INITIAL_WINDOW, 70_000),))
REQUEST: Final = frames.header_frames(1, BLOCK, 16_384)


# --- frames

CLIENT_SAYS: Final = (
    HELLO + REQUEST + frame(frames.DATA, 0, 1, b"hello") + frame(frames.DATA, 1, 1, b""),
    HELLO + REQUEST + frame(frames.DATA, frames.PADDED, 1, b"\x03abc\0\0\0") + frames.rst_stream(1, 8),
    HELLO + frames.header_frames(1, BLOCK + literal(b"x-long", bytes(300).replace(b"\0", b"a")), 100),
    HELLO
    + frame(frames.PRIORITY, 0, 7, b"\0\0\0\1\x10")
    + frame(frames.HEADERS, 0x24, 1, b"\0\0\0\0\x10" + BLOCK)
    + frame(frames.PING, 0, 0, b"12345678")
    + frames.window_update(0, 5)
    + frames.window_update(1, 70_000)
    + frames.settings(((4, 1), (5, 16_384), (6, 99)))
    + frame(frames.GOAWAY, 0, 0, bytes(8)),
)
SERVER_SAYS: Final = (
    frames.settings(((3, 100), (4, 99)))
    + frame(frames.SETTINGS, 1, 0, b"")
    + frames.header_frames(1, response_block(200), 99)
    + frame(frames.DATA, 0, 1, b"answer")
    + frame(frames.HEADERS, 5, 1, literal(b"a-trailer", b"x")),
    frames.settings(())
    + frames.header_frames(1, response_block(103), 99)
    + frames.header_frames(1, response_block(503), 99)
    + frames.rst_stream(1, 7)
    + frame(frames.GOAWAY, 0, 0, bytes(8)),
)


def _sane(side: Side) -> bool:
    core = side.core
    assert core.held >= 0
    assert core.receive_window <= core.limits.connection_window
    assert len(core.streams) <= core.limits.max_streams
    assert bool(side.violations) or core.broken is None, "an end without a reason"
    if core.broken is not None:
        assert not core.streams, "a broken connection keeps no stream"
    return core.broken is None


def _server_reads(data: bytes) -> bool:
    side = Side(client=False)
    half = len(data) // 2
    side.receive(data[:half])
    side.core.tick(1.0)
    side.receive(data[half:])
    return _sane(side)


def _client_reads(data: bytes) -> bool:
    side, sink = Side(client=True), Recording()
    side.core.open(BLOCK, sink)
    side.receive(data, 11)
    side.core.tick(1.0)
    sane = _sane(side)
    assert sane or sink.reset or sink.ended, "whoever waits on a broken connection is told"
    return sane


# --- header blocks


def _blocks() -> tuple[bytes, ...]:
    fields = [(":method", "CONNECT"), (":authority", f"{NAME}:80"), ("baggage", "a=b"), ("x", "y" * 40)]
    return (BLOCK, response_block(200), *(Encoder().encode(fields, huffman=huffman) for huffman in (True, False)))


def _block_is_read(block: bytes) -> bool:
    stateless = read_stateless(block, SERVER.max_header_list)
    if stateless is not None:
        assert [(name, value) for name, value in stateless] == [
            (bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)
        ], "the short way reads what the library reads"
    reader = BlockReader(SERVER.max_header_list)
    try:
        return reader.read(block) == reader.read(block)
    except Violation:
        return False
    except HPACKError as error:
        raise AssertionError("an error of the library") from error


# --- authorities

LOCAL: Final = parse_ip("10.0.0.1")
_AUTHORITIES: Final = (b"10.0.0.1:80", b"[fd00::1]:443", f"{NAME}:80".encode(), b"10.9.9.9:15008")
_POLICIES: Final = (
    PodPolicy(known=True, service_ports=((NAME, 80, 8080),)),
    PodPolicy(known=True, fronts=True),
    PodPolicy(known=True, application_tunnel=ApplicationTunnel(TunnelPreamble.PROXY, 15088)),
)


def _authority_is_judged(data: bytes) -> bool:
    text = data.decode("ascii", "replace")
    accepted = False
    for policy in _POLICIES:
        aim = take_aim(text, LOCAL, policy, None)
        if isinstance(aim, Aim):
            accepted = True
            assert aim.judged.ip == LOCAL, "a pod is reached by its own address only"
            assert aim.dial.ip == LOCAL or aim.dial.ip.is_loopback
    return accepted


# --- TLS


def _tls() -> tuple[tuple[bytes, ...], Callable[[bytes], bool]]:
    authority = Authority()
    uri = "spiffe://cluster.local/ns/a/sa/a"
    fd = authority.descriptor([uri])
    try:
        made = load_credentials(uri, fd, authority.roots, 2e9, 1)
    finally:
        os.close(fd)

    def hello(context: ssl.SSLContext) -> bytes:
        client = TlsSession(context, server=False)
        client.handshake()
        return client.pending()

    older = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    older.check_hostname, older.verify_mode = False, ssl.CERT_NONE
    seeds = (hello(made.client), hello(older))

    def feed(data: bytes) -> bool:
        server = TlsSession(made.server, server=True)
        server.feed(data)
        assert not server.handshake(), "nobody is let in by a hello"
        return True

    return seeds, feed


# --- DNS


def _queries() -> tuple[bytes, ...]:
    made = [dnslib.DNSRecord.question(NAME, kind).pack() for kind in ("A", "AAAA", "SRV")]
    with_opt = dnslib.DNSRecord.question("a.b")
    with_opt.add_ar(dnslib.EDNS0(udp_len=4096))
    return (*made, bytes(with_opt.pack()))


def _query_is_answered(data: bytes) -> bool:
    query = dns.read_query(data)
    for answer in (dns.write_answer(query, ["10.0.0.1", "10.0.0.2"]), dns.write_failure(query)):
        assert answer[:2] == data[:2]
        assert len(answer) <= max(query.limit, 512)
        _, flags, questions, _, _, _ = struct.unpack_from(">6H", answer)
        assert flags & 0x8000
        assert questions == 1
    return True


def _answers() -> tuple[bytes, ...]:
    record = dnslib.DNSRecord.question(NAME)
    record.add_answer(*dnslib.RR.fromZone(f"{NAME} 60 CNAME x.y\nx.y 5 A 10.0.0.1\nx.y 9 A 10.0.0.2"))
    six = dnslib.DNSRecord.question(NAME, "AAAA")
    six.add_answer(*dnslib.RR.fromZone(f"{NAME} 60 AAAA fd00::1"))
    return bytes(record.pack()), bytes(six.pack())


def _answer_is_read(data: bytes) -> bool:
    return dns.read_answer(data).ttl >= 0


# --- discovery


def _discovery_responses() -> tuple[bytes, ...]:
    return tuple((GOLDEN / name).read_bytes() for name in ("000-address.pb", "001-authorization.pb"))


def _response_is_taken(data: bytes) -> bool:
    lazily = open_response(data)
    assert tuple(lazily.resources) == decode_response(data).resources
    client = DeltaClient(ztunnel_node("n1"))
    batch, answer = client.receive(lazily)
    assert answer.error is not None or not batch.refused, "what was refused is said"
    return not batch.refused


def _resources() -> tuple[bytes, ...]:
    found = []
    for response in _discovery_responses():
        for resource in decode_response(response).resources:
            found.append(len(resource.type_url).to_bytes(1, "big") + resource.type_url.encode() + resource.body)
    return tuple(found)


def _resource_is_read(data: bytes) -> bool:
    url = data[1 : 1 + data[0]].decode("ascii", "replace") if data else ""
    decode(url, "", data[1 + len(url) :])
    return True


def _requests() -> tuple[bytes, ...]:
    client = DeltaClient(ztunnel_node("n1"))
    return tuple(encode_request(request) for request in client.open())


def _request_is_read(data: bytes) -> bool:
    return decode_request(data) is not None


# --- ZDS


def _zds_packets() -> tuple[bytes, ...]:
    pod = zds.AddWorkload("uid-1", "web", "shop", "web")
    messages = (pod, zds.KeepWorkload("uid-1"), zds.DelWorkload("uid-1"), zds.SnapshotSent())
    return (
        zds.encode_hello(zds.Hello()),
        zds.encode_ack(zds.Ack()),
        zds.encode_ack(zds.Ack("it did not work")),
        *(zds.encode_request(message) for message in messages),
    )


def _packet_is_read(data: bytes) -> bool:
    accepted = 0
    for read in (zds.decode_hello, zds.decode_request, zds.decode_ack):
        try:
            read(data)
            accepted += 1
        except MeshError:
            continue
    ztunnel, agent = ZtunnelSession(), AgentSession(())
    for say in (lambda: ztunnel.receive(data, 1), lambda: ztunnel.receive(data, 0), lambda: agent.receive(data, 0.0)):
        try:
            say()
        except MeshError:
            continue
    return accepted > 0


# --- PROXY protocol: it is only written, so what is fuzzed are those whom it is about


def _header_is_right(data: bytes) -> bool:
    if len(data) < 37:
        return False
    source, destination = (
        Endpoint(
            IPv4Address(data[at + 1 : at + 5]) if data[at] & 1 else IPv6Address(data[at + 1 : at + 17]),
            int.from_bytes(data[at + 17 : at + 19], "big"),
        )
        for at in (0, 18)
    )
    identity = data[37:5_000].decode("utf-8", "replace")
    assert _read_header(proxy_header(source, destination, identity)) == (
        _six(source.ip),
        _six(destination.ip),
        source.port,
        destination.port,
        identity,
    )
    return True


def _six(ip: IPv4Address | IPv6Address) -> IPv6Address:
    return ip if ip.version == 6 else IPv6Address(f"::ffff:{ip}")


def _read_header(data: bytes) -> tuple[IPv6Address, IPv6Address, int, int, str]:
    """As its specification (section 2.2) says, by another hand than that which wrote it."""
    signature, version, family, length = struct.unpack_from(">12sBBH", data)
    assert signature == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    assert version == 0x21
    assert len(data) == 16 + length
    size = {0x11: 4, 0x21: 16}[family]
    ips = [data[16 + at : 16 + at + size] for at in (0, size)]
    first, second = (_six(IPv4Address(ip) if size == 4 else IPv6Address(ip)) for ip in ips)
    ports = struct.unpack_from(">HH", data, 16 + 2 * size)
    at, identity = 20 + 2 * size, ""
    while at < len(data):
        kind, size = struct.unpack_from(">BH", data, at)
        assert kind == 0xD0
        identity = data[at + 3 : at + 3 + size].decode()
        at += 3 + size
    assert at == len(data)
    return first, second, ports[0], ports[1], identity


def targets() -> tuple[Target, ...]:
    """All of them, ready to be fed."""
    hellos, shake = _tls()
    return (
        Target("frames of a client", CLIENT_SAYS, _server_reads),
        Target("frames of a server", SERVER_SAYS, _client_reads),
        Target("HPACK blocks", _blocks(), _block_is_read),
        Target("CONNECT authorities", _AUTHORITIES, _authority_is_judged),
        Target("TLS hellos", hellos, shake),
        Target("DNS queries", _queries(), _query_is_answered),
        Target("DNS answers", _answers(), _answer_is_read),
        Target("discovery responses", _discovery_responses(), _response_is_taken),
        Target("discovery resources", _resources(), _resource_is_read),
        Target("discovery requests", _requests(), _request_is_read),
        Target("ZDS packets", _zds_packets(), _packet_is_read),
        Target("PROXY headers", (bytes(range(60)), b"\xff" * 80), _header_is_right),
    )
