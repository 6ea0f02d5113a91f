"""Sessions between two memory buffers, and what ends a handshake."""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import Sequence

import pytest

from ambient.errors import ProtocolError
from tests.support.tunnel_certs import Authority
from ztunnel.tls.contexts import Credentials, load_credentials
from ztunnel.tls.session import TlsSession

ALICE = "spiffe://cluster.local/ns/a/sa/alice"


def credentials(authority: Authority, trusted: Authority | None = None, uris: Sequence[str] = (ALICE,)) -> Credentials:
    fd = authority.descriptor(uris)
    try:
        return load_credentials(ALICE, fd, (trusted or authority).roots, 2e9, 1)
    finally:
        os.close(fd)


def shake(client: TlsSession, server: TlsSession, step: int = 0) -> None:
    """Carry the handshake; raises what either side raises."""
    done = [False, False]
    while not all(done):
        for at, (ours, theirs) in enumerate(((client, server), (server, client))):
            done[at] = done[at] or ours.handshake()
            data = ours.pending()
            for offset in range(0, len(data), step or len(data) or 1):
                theirs.feed(data[offset : offset + step] if step else data)


def pair(authority: Authority) -> tuple[TlsSession, TlsSession]:
    made = credentials(authority)
    return TlsSession(made.client, server=False), TlsSession(made.server, server=True)


@pytest.mark.parametrize("step", [0, 1, 1000])
def test_octets_cross_in_both_directions(step: int) -> None:
    client, server = pair(Authority())
    shake(client, server, step)
    buffer = memoryview(bytearray(1 << 16))
    for here, there in ((client, server), (server, client)):
        here.write(b"x" * 50_000)
        there.feed(here.pending())
        got = 0
        while (size := there.read_into(buffer)) > 0:
            got += size
        assert got == 50_000
        assert size == 0


def test_the_session_is_tls_1_3_with_both_certificates() -> None:
    client, server = pair(Authority())
    shake(client, server)
    assert client._object.version() == "TLSv1.3"
    for side in (client, server):
        certificate = side.certificate()
        assert certificate is not None
        assert ("URI", ALICE) in certificate["subjectAltName"]  # type: ignore[operator]


def test_the_client_sends_no_server_name() -> None:
    client, _ = pair(Authority())
    client.handshake()
    hello = client.pending()
    assert b"\x00\x00\x00" not in hello[:6]
    assert client._object.server_hostname is None


def test_an_orderly_end_and_a_corrupt_stream_are_told_apart() -> None:
    client, server = pair(Authority())
    shake(client, server)
    buffer = memoryview(bytearray(100))
    client.close()
    server.feed(client.pending())
    assert server.read_into(buffer) == -1
    client, server = pair(Authority())
    shake(client, server)
    client.write(b"secret")
    data = bytearray(client.pending())
    data[-1] ^= 1
    server.feed(bytes(data))
    with pytest.raises(ProtocolError):
        server.read_into(buffer)


def test_a_session_that_was_let_go_holds_no_memory_and_has_nothing_to_send() -> None:
    client, server = pair(Authority())
    shake(client, server)
    inside, big = weakref.ref(client._object), bytes(1 << 20)
    client.write(big)
    client.release()
    assert inside() is None
    assert client.pending() == b""


def test_a_peer_of_another_authority_is_refused_by_either_side() -> None:
    ours, foreign = Authority(), Authority("foreign")
    with pytest.raises(ProtocolError, match="not verified"):
        shake(
            TlsSession(credentials(foreign, ours).client, server=False),
            TlsSession(credentials(ours).server, server=True),
        )
    with pytest.raises(ProtocolError, match="not verified"):
        shake(
            TlsSession(credentials(ours).client, server=False),
            TlsSession(credentials(foreign, ours).server, server=True),
        )


@pytest.mark.parametrize(("usage", "server"), [("server", False), ("client", True)])
def test_a_certificate_for_the_other_role_is_refused(usage: str, server: bool) -> None:
    authority = Authority()
    fd = os.memfd_create("leaf")
    os.write(fd, authority.leaf([ALICE], usages=[usage]))
    wrong, right = load_credentials(ALICE, fd, authority.roots, 2e9, 1), credentials(authority)
    os.close(fd)
    client_side, server_side = (right, wrong) if server else (wrong, right)
    with pytest.raises(ProtocolError):
        shake(TlsSession(client_side.client, server=False), TlsSession(server_side.server, server=True))


def test_without_a_certificate_or_with_another_protocol_there_is_no_session() -> None:
    authority = Authority()
    made = credentials(authority)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=authority.roots)
    bare.set_alpn_protocols(["h2"])
    with pytest.raises(ProtocolError):
        shake(TlsSession(bare, server=False), TlsSession(made.server, server=True))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ProtocolError):
        shake(TlsSession(old, server=False), TlsSession(made.server, server=True))


def test_a_peer_that_does_not_agree_on_h2_is_refused() -> None:
    made = credentials(Authority())
    made.client.set_alpn_protocols(["http/1.1"])
    with pytest.raises(ProtocolError, match="h2"):
        shake(TlsSession(made.client, server=False), TlsSession(made.server, server=True))
