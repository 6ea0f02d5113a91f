"""What each path of the three ports answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from ztunnel.admin.flows import FlowRing
from ztunnel.admin.http import Request, Response
from ztunnel.admin.pages import Pages, Sources
from ztunnel.director.logs import LogFilter


@dataclass
class Fake:
    pending: list[str] = field(default_factory=list)
    quits: int = 0
    log: LogFilter = field(default_factory=lambda: LogFilter("info"))

    def pages(self) -> Pages:
        async def config_dump() -> bytes:
            return b"{}"

        def quit_() -> None:
            self.quits += 1

        return Pages(
            Sources(
                config_dump=config_dump,
                metrics=lambda exemplars: b"# exemplars\n# EOF\n" if exemplars else b"# EOF\n",
                pending=lambda: self.pending,
                change_log_level=lambda level, reset: self.log.change(level, reset=reset),
                log_filter=lambda: self.log.text,
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
    assert admin(fake, "GET", "/logging").status == 405
    assert admin(fake, "POST", "/logging").body == b"current log level is info\n"
    assert admin(fake, "POST", "/logging", ("level", "debug")).body == b"current log level is info,debug\n"
    assert fake.log.level == "debug"
    admin(fake, "POST", "/logging", ("level", "access=off"))
    assert fake.log.text == "info,debug,access=off"
    assert fake.log.level == "debug"
    assert admin(fake, "POST", "/logging", ("level", "info"), ("reset", "")).body == b"current log level is info\n"


@pytest.mark.parametrize("query", [("level", "loud"), ("level", "a=loud"), ("level", "=info"), ("lvl", "info")])
def test_an_invalid_level_is_refused_with_help_and_changes_nothing(query: tuple[str, str]) -> None:
    fake = Fake()
    response = admin(fake, "POST", "/logging", query)
    assert response.status == 400
    assert b"usage: POST /logging" in response.body
    assert fake.log.text == "info"


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
    assert asyncio.run(pages.stats(modern)).content_type.startswith("application/openmetrics-text")
    assert asyncio.run(pages.stats(Request("GET", "/config_dump"))).status == 404
