"""The control plane's own certificate: names, addresses, renewal that new handshakes see."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from ambient.ca.issue import issue_server
from ambient.ca.roots import load_authority, make_root
from ambient.control.issuers import OwnIssuer, Serving
from ambient.control.tls import LIFETIME, ServerCertificate
from ambient.errors import Unavailable
from ambient.model.address import IpAddress
from tests.support.control import ControlBench

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Own(OwnIssuer):
    """Issues under a clock that a test sets."""

    def __init__(self) -> None:
        certificate, key = make_root(NOW)
        files = {"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}
        root = load_authority(files, NOW)
        super().__init__(lambda: root, default=LIFETIME, longest=LIFETIME)
        self.root = root
        self.now = NOW
        self.broken = False

    async def serving(self, names: Sequence[str], addresses: Sequence[IpAddress], life: timedelta) -> Serving:
        if self.broken:
            raise Unavailable("certificate", why="broken")
        issued, key = issue_server(self.root, names, addresses, self.now, life)
        return Serving("".join(issued.chain[:-1]), key, issued.serial, self.now, issued.not_after)


def made(own: Own) -> ServerCertificate:
    return ServerCertificate(own, {"localhost"}, ip_address("127.0.0.1"))


def renewed(certificate: ServerCertificate, own: Own, now: datetime) -> None:
    own.now = now
    asyncio.run(certificate.renew(now))


def test_renewal_is_due_at_half_the_life() -> None:
    own = Own()
    certificate = made(own)
    assert certificate.due(NOW)
    renewed(certificate, own, NOW)
    moment = timedelta(seconds=1)
    assert not certificate.due(NOW + LIFETIME / 2 - moment)
    assert certificate.due(NOW + LIFETIME / 2)
    renewed(certificate, own, NOW + timedelta(hours=13))
    assert not certificate.due(NOW + timedelta(hours=13) + LIFETIME / 2 - moment)


def test_renewal_is_due_when_it_was_made_under_a_clock_that_was_ahead() -> None:
    own = Own()
    certificate = made(own)
    renewed(certificate, own, NOW + timedelta(hours=25))
    assert not certificate.due(NOW + timedelta(hours=25, seconds=-30))
    assert certificate.due(NOW)


def test_what_cannot_be_renewed_stays_in_use_and_due() -> None:
    own = Own()
    certificate = made(own)
    renewed(certificate, own, NOW)
    pair = certificate._pair
    own.broken = True
    with pytest.raises(Unavailable):
        renewed(certificate, own, NOW + LIFETIME)
    assert certificate._pair == pair
    assert certificate.due(NOW + LIFETIME)


def test_a_context_for_other_servers_follows_renewals() -> None:
    async def scenario() -> None:
        own = Own()
        own.now = datetime.now(UTC)
        certificate = made(own)
        await certificate.renew(own.now)
        server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=certificate.context())
        port = server.sockets[0].getsockname()[1]
        seen = []
        for _ in range(2):
            context = ssl.create_default_context(cadata=own.root.roots)
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.close()
            await certificate.renew(own.now)
        server.close()
        assert seen[0] != seen[1]

    asyncio.run(scenario())


async def presented(port: int, root: Path, name: str) -> x509.Certificate:
    context = ssl.create_default_context(cafile=str(root))
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


def test_it_is_valid_by_every_name_and_the_address_and_renewed_without_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            root = bench.ca / "root-cert.pem"
            names = ("istiod.istio-system.svc", "ambient-control.ambient-system.svc", "localhost", "127.0.0.1")
            before = {(await presented(bench.port, root, name)).serial_number for name in names}
            assert len(before) == 1
            bench.new_root()
            await bench.plane.trust.follow()
            after = await presented(bench.port, root, names[0])
            assert after.serial_number not in before

    asyncio.run(scenario())
