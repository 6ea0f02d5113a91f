"""The control plane's own certificate: names, addresses, renewal that new handshakes see."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from ambient.ca.roots import Authority, load_authority, make_root
from ambient.control.tls import LIFETIME, ServerCertificate
from tests.support.control import ControlBench

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def authority() -> Authority:
    certificate, key = make_root(NOW)
    return load_authority({"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}, NOW)


def test_renewal_is_due_at_half_the_life() -> None:
    root = authority()
    certificate = ServerCertificate(lambda: root, {"a"}, ip_address("10.0.0.1"), now=NOW)
    moment = timedelta(seconds=1)
    assert not certificate.due(NOW + LIFETIME / 2 - moment)
    assert certificate.due(NOW + LIFETIME / 2)
    certificate.renew(NOW + timedelta(hours=13))
    assert not certificate.due(NOW + timedelta(hours=13) + LIFETIME / 2 - moment)


def test_renewal_is_due_when_it_was_made_under_a_clock_that_was_ahead() -> None:
    root = authority()
    certificate = ServerCertificate(lambda: root, {"a"}, ip_address("10.0.0.1"), now=NOW + timedelta(hours=25))
    assert not certificate.due(NOW + timedelta(hours=25, seconds=-30))
    assert certificate.due(NOW)


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
            bench.plane.follow_authority()
            after = await presented(bench.port, root, names[0])
            assert after.serial_number not in before

    asyncio.run(scenario())
