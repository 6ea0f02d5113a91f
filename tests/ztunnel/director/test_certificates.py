"""Certificates with a throw-away authority: issued, renewed, taken back, kept through failures, let go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from ambient.errors import Refused, Unavailable
from ambient.xds.key_request import KeyRequest
from ambient.xds.renewal import OUTSTANDING, Priority
from tests.support.authority import Authority, short_authority
from tests.support.waiting import eventually
from ztunnel.director.certificates import Certificates
from ztunnel.director.custody import Secret
from ztunnel.director.memfd import content, sealed

ALICE = "spiffe://cluster.local/ns/shop/sa/alice"
BOB = "spiffe://cluster.local/ns/shop/sa/bob"


@dataclass
class Heard:
    ready: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def certificate_ready(self, identity: str, secret: Secret) -> None:
        assert content(secret.fd)
        self.ready.append(identity)

    def certificate_failed(self, identity: str, why: str) -> None:
        self.failed.append((identity, why))

    def certificate_gone(self, identity: str) -> None:
        self.gone.append(identity)


class Bench:
    def __init__(self) -> None:
        self.authority = Authority()
        self.heard = Heard()
        self.skip = 0.0
        self.certificates = Certificates(
            self.authority.sign, self.heard, clock=lambda: time.time() + self.skip, draw=lambda: 0.5
        )

    async def secret(self, identity: str = ALICE) -> Secret:
        request = KeyRequest(identity)
        issued = request.accept(await self.authority.sign(identity, request.csr_pem), time.time())
        return Secret(sealed("t", issued.secret), issued.roots, issued.not_after)


def scenario(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def body() -> None:
            bench = Bench()
            running = asyncio.ensure_future(bench.certificates.run())
            try:
                await test(bench)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                bench.certificates.close()

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@scenario
async def test_a_wanted_identity_gets_a_certificate_once(bench: Bench) -> None:
    for _ in range(3):
        bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    ((identity, secret),) = bench.certificates.current()
    assert identity == ALICE
    assert secret.roots == bench.authority.root_pem
    assert len(bench.authority.asked) == 1
    (shown,) = bench.certificates.show()
    assert shown.state == "Available"
    assert "PRIVATE" not in shown.chain_pem
    assert "CERTIFICATE" in shown.chain_pem


@scenario
async def test_who_wants_one_and_has_none_is_lacking_it(bench: Bench) -> None:
    assert not bench.certificates.lacking
    bench.certificates.want(ALICE)
    assert bench.certificates.lacking
    await eventually(lambda: bench.heard.ready == [ALICE])
    assert not bench.certificates.lacking


@scenario
async def test_half_of_a_short_life_is_counted_from_its_issue_not_from_the_date_it_bears(bench: Bench) -> None:
    bench.authority.life = timedelta(minutes=2)
    bench.authority.begin = timedelta(minutes=-1)
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    now = time.time()
    assert bench.certificates._schedule.step(now + 20).fetch == ()
    assert bench.certificates._schedule.step(now + 31).fetch == (ALICE,)


@scenario
async def test_it_is_renewed_at_half_life_with_a_new_key(bench: Bench) -> None:
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    first = content(bench.certificates.current()[0][1].fd)
    bench.skip = 31 * 60.0
    bench.certificates.want(BOB)
    await eventually(lambda: bench.heard.ready.count(ALICE) == 2)
    assert content(dict(bench.certificates.current())[ALICE].fd) != first


@scenario
async def test_a_failed_renewal_is_told_to_nobody_while_the_old_one_is_valid(bench: Bench) -> None:
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    bench.authority.failure = Refused("no", "ca", "not today")
    bench.skip = 31 * 60.0
    bench.certificates.want(BOB)
    await eventually(lambda: bench.heard.failed)
    await eventually(lambda: len(bench.authority.asked) >= 3)
    assert [identity for identity, _ in bench.heard.failed] == [BOB]
    assert [identity for identity, _ in bench.certificates.current()] == [ALICE]
    assert set(bench.certificates.failures()) == {BOB}
    bench.skip = 61 * 60.0
    assert bench.certificates.current() == []
    bench.authority.failure, bench.authority.life = None, timedelta(hours=3)
    bench.certificates.hurry()
    await eventually(lambda: bench.heard.ready.count(ALICE) == 2)


@scenario
async def test_what_an_earlier_process_had_is_used_without_asking(bench: Bench) -> None:
    secret = await bench.secret()
    asked = len(bench.authority.asked)
    bench.certificates.offer({ALICE: secret})
    bench.certificates.want(ALICE)
    assert bench.heard.ready == [ALICE]
    bench.certificates.want(BOB)
    await eventually(lambda: BOB in bench.heard.ready)
    assert len(bench.authority.asked) == asked + 1


@scenario
async def test_what_cannot_be_used_is_asked_for_anew(bench: Bench) -> None:
    wrong = await bench.secret(BOB)
    bench.certificates.offer({ALICE: wrong})
    asked = len(bench.authority.asked)
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    assert len(bench.authority.asked) == asked + 1


@scenario
async def test_unwanted_leftovers_are_dropped_once_every_pod_is_known(bench: Bench) -> None:
    bench.certificates.offer({BOB: await bench.secret(BOB)})
    assert [identity for identity, _ in bench.certificates.held()] == [BOB]
    bench.certificates.drop_spares()
    assert bench.heard.gone == [BOB]
    assert bench.certificates.held() == []


@scenario
async def test_an_identity_nobody_has_any_more_is_let_go(bench: Bench) -> None:
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    bench.certificates.keep_only({ALICE})
    assert bench.heard.gone == []
    bench.certificates.keep_only(())
    assert bench.heard.gone == [ALICE]
    assert bench.certificates.show() == []


@scenario
async def test_an_answer_for_somebody_else_is_a_failure(bench: Bench) -> None:
    bench.authority.rename = BOB
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.failed)
    assert BOB in bench.heard.failed[0][1]
    assert bench.certificates.current() == []


@scenario
async def test_identities_that_no_certificate_can_name_are_failures_and_in_nobodys_way(bench: Bench) -> None:
    for n in range(OUTSTANDING):
        bench.certificates.want(f"spiffe://cluster.local/ns/shöp/sa/{n}", Priority.REAL_TIME)
    await eventually(lambda: len(bench.heard.failed) == OUTSTANDING)
    assert "no certificate can be asked for" in bench.heard.failed[0][1]
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])


@scenario
async def test_what_no_worker_could_load_is_a_failure_and_replaces_nothing(bench: Bench) -> None:
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    before = bench.certificates.current()
    # OpenSSL takes no authority with a key as short as this one's.
    bench.authority.between = short_authority()
    bench.certificates.renew_all()
    await eventually(lambda: "key too small" in bench.certificates._failures.get(ALICE, ""))
    assert bench.certificates.current() == before
    assert bench.heard.ready == [ALICE]


@scenario
async def test_what_comes_out_of_custody_late_helps_whoever_is_still_waiting(bench: Bench) -> None:
    kept, other = await bench.secret(ALICE), await bench.secret(BOB)
    bench.authority.failure = Unavailable("no", "ca", "gone")
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.failed)
    bench.certificates.drop_spares()
    bench.certificates.offer({ALICE: kept, BOB: other})
    assert bench.heard.ready == [ALICE]
    assert bench.heard.gone == [BOB]
    assert not bench.certificates.failures()


@scenario
async def test_a_changed_root_brings_new_certificates_with_the_new_roots(bench: Bench) -> None:
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    bench.authority.others = Authority().root_pem
    bench.skip = 11.0
    bench.certificates.renew_all()
    bench.skip = 25.0
    bench.certificates.want(BOB)
    await eventually(lambda: bench.heard.ready.count(ALICE) == 2)
    assert dict(bench.certificates.current())[ALICE].roots == bench.authority.root_pem + bench.authority.others


@contextmanager
def told() -> Iterator[Callable[[str], list[int]]]:
    """The levels of what is logged with a text in it."""
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logging.getLogger("certificates").addHandler(handler)
    try:
        yield lambda text: [one.levelno for one in heard if text in one.getMessage()]
    finally:
        logging.getLogger("certificates").removeHandler(handler)


@scenario
async def test_an_intermediate_that_ends_before_its_leaf_is_published_and_said(bench: Bench) -> None:
    between = Authority("between", timedelta(minutes=40))
    bench.authority.between = between.root_pem
    end = between.root.not_valid_after_utc.timestamp()
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    found = bench.certificates.gauges()
    assert found["ambient_certificate_first_expiry_timestamp_seconds"] == end
    assert (found["ambient_certificates_late"], found["ambient_certificates_expired"]) == (0, 0)
    with told() as levels:
        bench.skip = 27 * 60.0
        bench.certificates.hurry()
        rests = f"certificate for {ALICE} rests on authority O=between, which"
        await eventually(lambda: levels(f"{rests} runs out in 1") == [logging.WARNING])
        assert bench.certificates.gauges()["ambient_certificates_late"] == 1
        assert len(bench.authority.asked) == 1, "a new one may come with the same chain"
        bench.skip = 41 * 60.0
        bench.certificates.hurry()
        await eventually(lambda: levels(f"{rests} has expired") == [logging.ERROR])
    await eventually(lambda: bench.heard.ready == [ALICE, ALICE])
    assert bench.certificates.gauges()["ambient_certificates_expired"] == 1
    bench.certificates.keep_only([])
    assert bench.certificates.gauges() == Certificates(bench.authority.sign, bench.heard).gauges()


@scenario
async def test_what_is_not_renewed_is_published_and_said_before_it_runs_out(bench: Bench) -> None:
    bench.certificates.want(ALICE)
    await eventually(lambda: bench.heard.ready == [ALICE])
    bench.authority.failure = Refused("no", "ca", "not today")
    with told() as levels:
        bench.skip = 50 * 60.0
        bench.certificates.want(BOB)
        await eventually(lambda: levels("was not renewed and runs out in"))
        found = bench.certificates.gauges()
        assert found["ambient_certificates_late"] == 1
        assert found[f'ambient_certificate_expiry_timestamp_seconds{{identity="{ALICE}"}}'] > time.time()
        bench.skip = 61 * 60.0
        bench.certificates.hurry()
        await eventually(lambda: levels("has expired") == [logging.ERROR])
