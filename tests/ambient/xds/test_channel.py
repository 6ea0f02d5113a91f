"""Channels: who is trusted, what is read anew, and failures in our terms."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ambient.errors import Unavailable
from ambient.xds import channel as channel_module
from ambient.xds.channel import ServerSettings, call_metadata, connected, open_channel, root_changed
from tests.support.control import ControlBench


async def connect(settings: ServerSettings) -> None:
    channel = open_channel(settings)
    try:
        await connected(channel, settings.target, timeout_s=60)
    finally:
        await channel.close(None)


def test_a_server_of_our_root_and_name_is_trusted_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with ControlBench(tmp_path / "a") as bench:
            settings = bench.client()
            await connect(settings)
            other = ControlBench(tmp_path / "b")
            for untrusted in (
                replace(settings, hostname="other.example"),
                replace(settings, root=other.ca / "root-cert.pem"),
            ):
                with pytest.raises(Unavailable, match="can be reached, but its certificate is not trusted"):
                    await connect(untrusted)

    asyncio.run(scenario())


def test_without_another_name_the_targets_own_is_verified(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            await connect(replace(bench.client(), hostname=""))
            await connect(replace(bench.client(), hostname="", target=f"localhost:{bench.port}"))

    asyncio.run(scenario())


def test_a_refused_connection_fails_by_itself_and_not_by_the_time_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            bench.port = free.getsockname()[1]
            with pytest.raises(Unavailable, match="refused: nobody listens there"):
                await connect(bench.client())
            with pytest.raises(Unavailable, match="unreachable: "):
                await connect(replace(bench.client(), target="nowhere.invalid:1"))

    asyncio.run(scenario())


def test_a_server_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            bench.port = mute.getsockname()[1]
            channel = open_channel(bench.client())
            with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
                await connected(channel, "it", timeout_s=0.2)
            await channel.close(None)

    asyncio.run(scenario())


def test_the_token_is_read_for_each_call(tmp_path: Path) -> None:
    token = tmp_path / "token"
    settings = ServerSettings(target="t:1", root=tmp_path / "root", token=token)
    token.write_text("one\n")
    assert ("authorization", "Bearer one") in call_metadata(settings)
    token.write_text("two")
    assert ("authorization", "Bearer two") in call_metadata(settings)
    assert call_metadata(replace(settings, token=None)) == [("clusterid", "Kubernetes")]


def test_missing_files_are_named(tmp_path: Path) -> None:
    settings = ServerSettings(target="t:1", root=tmp_path / "root", token=tmp_path / "token")
    with pytest.raises(Unavailable, match=r"token: .*/token"):
        call_metadata(settings)
    with pytest.raises(Unavailable, match=r"root certificate: .*/root"):
        open_channel(settings)


def test_a_root_without_a_certificate_is_no_root(tmp_path: Path) -> None:
    """gRPC would trust every authority of the machine."""
    empty = tmp_path / "root.pem"
    for content in (b"", b"\n", b"not yet"):
        empty.write_bytes(content)
        with pytest.raises(Unavailable, match="no certificate in it"):
            open_channel(ServerSettings(target="127.0.0.1:1", root=empty))
    with pytest.raises(Unavailable, match="no certificate in it"):
        open_channel(ServerSettings(target="127.0.0.1:1", root=""))


def test_a_token_that_is_no_text_is_named(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(b"\xff\xfe")
    with pytest.raises(Unavailable, match="no text"):
        call_metadata(ServerSettings(target="127.0.0.1:1", root=tmp_path, token=token))


def test_a_proxy_in_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        async with ControlBench(tmp_path) as bench:
            await connect(bench.client())

    asyncio.run(scenario())


def test_root_and_token_may_be_text_instead_of_files(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            settings = bench.client()
            await connect(replace(settings, root=(bench.ca / "root-cert.pem").read_text()))
            with pytest.raises(Unavailable, match="not trusted"):
                await connect(replace(settings, root="SYSTEM"))

    asyncio.run(scenario())
    literal = ServerSettings(target="t:1", root="SYSTEM", token="a.b.c", headers=(("x-team", "mesh"),))
    assert call_metadata(literal) == [
        ("clusterid", "Kubernetes"),
        ("x-team", "mesh"),
        ("authorization", "Bearer a.b.c"),
    ]


def test_without_tls_no_token_is_sent() -> None:
    plain = ServerSettings(target="t:1", root="SYSTEM", token="a.b.c", plaintext=True)
    assert call_metadata(plain) == [("clusterid", "Kubernetes")]


async def turns(count: int) -> None:
    """Let the event loop, and time, go on a little."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        passed = asyncio.Event()
        loop.call_later(0.001, passed.set)
        await passed.wait()


def test_a_replaced_root_is_noticed_and_one_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        root = tmp_path / "root.pem"
        root.write_text("one")
        for change in (lambda: None, root.touch, root.unlink, lambda: root.write_text("one")):
            looking = asyncio.create_task(root_changed(root, look_s=0.001))
            literal = asyncio.create_task(root_changed("PEM", look_s=0.001))
            await turns(20)
            change()
            await turns(20)
            assert not looking.done()
            root.write_text("two")
            async with asyncio.timeout(10):
                await looking
            assert not literal.done()
            literal.cancel()
            root.write_text("one")

    asyncio.run(scenario())


def test_a_dead_connection_is_found_and_large_messages_are_taken_as_istios_ztunnel_does() -> None:
    options = dict(channel_module._OPTIONS)
    assert (options["grpc.keepalive_time_ms"], options["grpc.keepalive_timeout_ms"]) == (30_000, 10_000)
    assert options["grpc.max_receive_message_length"] == 200 << 20
