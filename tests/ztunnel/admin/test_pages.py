"""What each path of the three ports answers."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass, field

import pytest

from ztunnel.admin.flows import FlowRing
from ztunnel.admin.http import Request, Response
from ztunnel.admin.pages import Pages, Sources
from ztunnel.director.logs import Logs


@dataclass
class Fake:
    pending: list[str] = field(default_factory=list)
    quits: int = 0
    log: Logs = field(default_factory=lambda: Logs("plain", "info"))

    def pages(self) -> Pages:
        async def config_dump() -> bytes:
            return b"{}"

        async def connections() -> bytes:
            return b"[]"

        def quit_() -> None:
            self.quits += 1

        return Pages(
            Sources(
                config_dump=config_dump,
                connections=connections,
                metrics=lambda exemplars: lambda: b"# exemplars\n# EOF\n" if exemplars else b"# EOF\n",
                pending=lambda: self.pending,
                change_log_level=lambda level, reset: self.log.change(level, reset=reset),
                log_filter=lambda: str(self.log.filter),
                shut_down=quit_,
                flows=FlowRing(),
            )
        )


def admin(fake: Fake, method: str, path: str, *query: tuple[str, str]) -> Response:
    return asyncio.run(fake.pages().admin(Request(method, path, query)))


def test_the_index_links_every_page() -> None:
    body = admin(Fake(), "GET", "/").body
    for page in (b"config_dump", b"logging", b"quitquitquit", b"flows"):
        assert page in body


def test_the_dump_is_json_and_only_for_get() -> None:
    assert admin(Fake(), "GET", "/config_dump") == Response(200, b"{}", "application/json")
    assert admin(Fake(), "POST", "/config_dump").status == 405
    assert admin(Fake(), "GET", "/nothing").status == 404


def test_quitting_needs_post() -> None:
    fake = Fake()
    assert admin(fake, "GET", "/quitquitquit").status == 405
    assert fake.quits == 0
    assert admin(fake, "POST", "/quitquitquit").body == b"shutdown now\n"
    assert fake.quits == 1


def test_the_log_level_is_shown_changed_appended_and_reset() -> None:
    fake = Fake()

    def shown(*query: tuple[str, str]) -> str:
        body = admin(fake, "POST", "/logging", *query).body.decode()
        assert body.startswith("current log level is ")
        return body.removeprefix("current log level is ")

    assert admin(fake, "GET", "/logging").status == 405
    assert shown() == "info\n"
    # What istioctl asks for the level with.
    assert shown(("level", "")) == "info\n"
    assert shown(("level", "debug")) == "debug\n"
    assert shown(("level", "access=off")) == "access=off,debug\n"
    assert shown(("level", "ztunnel::proxy=trace,warn")) == "ztunnel::proxy=trace,access=off,warn\n"
    # What istioctl's --reset sends.
    assert shown(("level", "info"), ("reset", "")) == "info\n"
    assert shown(("level", "dns=debug"), ("reset", "")) == "dns=debug,info\n"
    assert shown(("reset", "")) == "info\n"


@pytest.mark.parametrize(
    "query",
    [("level", "loud"), ("level", "a=loud"), ("level", "=info"), ("level", "dns"), ("lvl", "info")],
)
def test_an_invalid_level_is_refused_with_help_and_changes_nothing(query: tuple[str, str]) -> None:
    fake = Fake()
    response = admin(fake, "POST", "/logging", query)
    assert response.status == 400
    assert b"usage: POST /logging" in response.body
    assert str(fake.log.filter) == "info"


def test_connections_are_json_and_only_for_get() -> None:
    assert admin(Fake(), "GET", "/connections") == Response(200, b"[]", "application/json")
    assert admin(Fake(), "POST", "/connections").status == 405


def test_flows_are_json_lines() -> None:
    assert admin(Fake(), "GET", "/flows", ("last", "5")).status == 200
    assert admin(Fake(), "GET", "/flows", ("follow", "1")).stream is not None
    for bad in (("last", "-1"), ("last", "x"), ("follow", "yes")):
        assert admin(Fake(), "GET", "/flows", bad).status == 400


def test_readiness_names_what_is_pending() -> None:
    fake = Fake(["state manager", "proxy"])
    response = asyncio.run(fake.pages().readiness(Request("GET", "/healthz/ready")))
    assert (response.status, response.body) == (500, b"not ready, pending: state manager, proxy\n")
    fake.pending.clear()
    response = asyncio.run(fake.pages().readiness(Request("GET", "/healthz/ready")))
    assert (response.status, response.body) == (200, b"ready\n")
    assert asyncio.run(fake.pages().readiness(Request("GET", "/"))).status == 404
    assert asyncio.run(fake.pages().readiness(Request("POST", "/healthz/ready"))).status == 405


@pytest.mark.parametrize("path", ["/metrics", "/stats/prometheus"])
def test_metrics_come_as_text_or_openmetrics(path: str) -> None:
    pages = Fake().pages()
    assert asyncio.run(pages.stats(Request("GET", path))).content_type == "text/plain; charset=utf-8"
    modern = Request("GET", path, headers={"accept": "application/openmetrics-text; version=1.0.0"})
    answer = asyncio.run(pages.stats(modern))
    assert answer.content_type == "application/openmetrics-text;charset=utf-8;version=1.0.0"
    assert b"# exemplars" in answer.body
    assert asyncio.run(pages.stats(Request("GET", "/config_dump"))).status == 404


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("", False), ("identity", False), ("gzip;q=0", False)],
)
def test_metrics_are_compressed_for_those_who_take_it(accepted: str, packed: bool) -> None:
    headers = {"accept-encoding": accepted} if accepted else {}
    answer = asyncio.run(Fake().pages().stats(Request("GET", "/metrics", headers=headers)))
    assert (("content-encoding", "gzip") in answer.headers) is packed
    assert (gzip.decompress(answer.body) if packed else answer.body) == b"# EOF\n"
