"""Where key sets are fetched from, and where not: whoever may write a URL must not make us call whom he likes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambient.control.key_fetch import MOST_BYTES, fetch_keys, trusting
from ambient.errors import Refused, Unavailable
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_views import KEYS

OK = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}"
ROOT = Authority()


def anywhere(address: str) -> str:
    return ""


@asynccontextmanager
async def server(answer: str, heard: list[str], folder: Path) -> AsyncIterator[int]:
    """Its port on 127.0.0.1. An empty answer is none."""
    file = folder / "server.pem"
    file.write_bytes(ROOT.leaf([], dns=["localhost"]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
            writer.write(answer.encode())
            await (writer.drain() if answer else reader.read())
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with running:
        yield running.sockets[0].getsockname()[1]


def trusted(folder: Path, authority: Authority = ROOT) -> ssl.SSLContext:
    file = folder / "roots.pem"
    file.write_text(authority.roots)
    return trusting(file)


def fetched(
    answer: str, folder: Path, *, host: str = "127.0.0.1", scheme: str = "https", authority: Authority = ROOT
) -> tuple[str, list[str]]:
    heard: list[str] = []

    async def scenario() -> str:
        async with server(answer, heard, folder) as port:
            url = f"{scheme}://{host}:{port}/keys"
            return await fetch_keys(url, trusted(folder, authority), anywhere, 10.0 if answer else 0.2)

    return asyncio.run(scenario()), heard


def good(text: str = KEYS) -> str:
    return OK.format(len(text), text)


def test_keys_are_fetched_and_nothing_of_ours_goes_along(tmp_path: Path) -> None:
    keys, (heard,) = fetched(good(), tmp_path)
    assert keys == KEYS
    assert heard.startswith("get /keys http/1.1")
    assert not {"authorization", "cookie", "referer"} & {line.partition(":")[0] for line in heard.splitlines()}


def test_by_name_too(tmp_path: Path) -> None:
    assert fetched(good(), tmp_path, host="localhost")[0] == KEYS


ELSEWHERE = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n"
BAD = {
    "a redirect": (ELSEWHERE, "status 302"),
    "an error": ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "status 500"),
    "too much": (good(" " * (MOST_BYTES + 1)), "longer than 262144 bytes"),
    "too much without end": ("HTTP/1.1 200 OK\r\n\r\n" + " " * (MOST_BYTES + 1), "longer than 262144 bytes"),
    "a secret": (good("password=hunter2"), "the answer is no key set"),
    "no keys": (good('{"keys": []}'), "the answer is no key set"),
    "a broken key": (good('{"keys": [{"kty": "RSA"}]}'), r"keys\[0\].n is missing"),
    "no HTTP": ("hello", "key set"),
    "silence": ("", "no answer within 0.2 s"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_key_set(tmp_path: Path, case: str) -> None:
    answer, why = BAD[case]
    with pytest.raises(Unavailable, match=why) as error:
        fetched(answer, tmp_path)
    assert "hunter2" not in str(error.value)


def test_a_server_that_nobody_certified_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="certificate verify failed"):
        fetched(good(), tmp_path, authority=Authority())


@pytest.mark.parametrize("url", ["http://x.example.com/k", "https:///k", "ftp://x/k", "https://a:b@x.example.com/k"])
def test_a_url_that_is_not_fetched_from(url: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as error:
        asyncio.run(fetch_keys(url, trusted(tmp_path)))
    assert "a:b" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_nobody_is_called_at_an_address_that_is_forbidden(host: str, tmp_path: Path) -> None:
    heard: list[str] = []

    async def scenario() -> None:
        async with server(good(), heard, tmp_path) as port:
            await fetch_keys(f"https://{host}:{port}/keys", trusted(tmp_path))

    with pytest.raises(Refused, match="address"):
        asyncio.run(scenario())
    assert heard == []
