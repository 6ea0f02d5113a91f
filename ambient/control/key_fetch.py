"""Fetches a key set (RFC 7517) that whoever may write in one namespace has named: by HTTPS, and not from anywhere.

A `jwksUri` makes us connect to it. So it is never plain HTTP, redirects are not followed, nothing of ours goes along,
an answer has its limits in size and time, and the address that is dialled, after any name was resolved, is no loopback
or link-local one and none where clouds tell machines their secrets. What came is never repeated in an error: only that
it was no key set.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from ambient.errors import Refused, Unavailable
from ambient.kube.jwt_rules import key_set_complaint
from ambient.model.forbidden import forbidden

MOST_BYTES: Final = 256 << 10
MOST_S: Final = 5.0


class _Checked(AbstractResolver):
    """Names lead only to where may be dialled; one address among them that may not is refused with all."""

    def __init__(self, forbids: Callable[[str], str]) -> None:
        self._forbids = forbids
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if why := self._forbids(one["host"]):
                raise Refused("address", host, why)
        return found

    async def close(self) -> None:
        await self._inner.close()


def trusting(roots: Path | None) -> ssl.SSLContext:
    """The system's authorities, and those of a PEM file; raises OSError."""
    context = ssl.create_default_context()
    if roots is not None:
        context.load_verify_locations(cafile=roots)
    return context


async def fetch_keys(
    url: str, context: ssl.SSLContext, forbids: Callable[[str], str] = forbidden, most_s: float = MOST_S
) -> str:
    """The key set at a URL; raises Refused for one that is not fetched from, Unavailable when it cannot be had."""
    where = _checked(url, forbids)
    connector = aiohttp.TCPConnector(resolver=_Checked(forbids), ssl=context, force_close=True, use_dns_cache=False)
    timeout = aiohttp.ClientTimeout(total=most_s)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            session.get(where, allow_redirects=False, headers={"accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise Unavailable("key set", url, f"the answer has status {answer.status}")
            text = await _body(answer, url)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Unavailable("key set", url, _said(error, most_s)) from None
    if complaint := key_set_complaint(text):
        # Of what came nothing is told: it may be anybody's page.
        raise Unavailable("key set", url, "the answer is no key set" if "[" not in complaint else complaint)
    return text


def _checked(url: str, forbids: Callable[[str], str]) -> URL:
    try:
        where = URL(url)
        host = where.host or ""
    except ValueError:
        raise Refused("key set", url[:200], "is not a URL") from None
    if where.scheme != "https" or not host:
        raise Refused("key set", url[:200], "keys are fetched by https only")
    if where.user or where.password:
        raise Refused("key set", str(where.with_user(None))[:200], "a URL of keys has no user")
    try:
        ip_address(host)
    except ValueError:
        return where
    if why := forbids(host):
        raise Refused("key set", url[:200], why)
    return where


async def _body(answer: aiohttp.ClientResponse, url: str) -> str:
    found = bytearray()
    async for part in answer.content.iter_chunked(16 << 10):
        found += part
        if len(found) > MOST_BYTES:
            raise Unavailable("key set", url, f"the answer is longer than {MOST_BYTES} bytes")
    return found.decode(errors="replace")


def _said(error: Exception, most_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {most_s:g} s"
    return (str(error) or type(error).__name__)[:200]
