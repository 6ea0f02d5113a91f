"""Keys are left with a real agent's custody and come back from it to the next process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from ambient.agent import custody as agent
from ambient.zds import packet
from ambient.zds.custody import MAX_PACKET, List, Put, encode
from tests.support.waiting import eventually
from ztunnel.director.custody import Custody, Secret
from ztunnel.director.memfd import content, sealed

LATER = time.time() + 3600


def nobody(_secrets: Mapping[str, Secret]) -> None:
    """Who takes nothing late."""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "custody.sock"
        self.store = agent.Custody(time.time)
        self.held: dict[str, Secret] = {}
        self.late: dict[str, Secret] = {}
        self.looks = 0
        self.custody = Custody(str(self.path), self._look, self.late.update)
        self.server: asyncio.Future[None] | None = None

    def _look(self) -> list[tuple[str, Secret]]:
        self.looks += 1
        return list(self.held.items())

    async def start(self) -> None:
        self.server = asyncio.ensure_future(agent.serve(self.store, self.path))
        await asyncio.sleep(0)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.cancel()
            await asyncio.gather(self.server, return_exceptions=True)

    def keep(self, identity: str, text: bytes) -> None:
        self.held[identity] = Secret(sealed("t", text), "roots of " + identity, LATER)
        self.custody.changed(identity)


def scenario(test: Callable[[Bench], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def body() -> None:
            bench = Bench(tmp_path)
            running = asyncio.ensure_future(bench.custody.run())
            try:
                await test(bench)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await bench.stop()
                bench.store.close()
                packet.close_all([secret.fd for secret in bench.held.values()])

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@scenario
async def test_what_was_put_comes_back_with_its_roots(bench: Bench) -> None:
    bench.keep("a", b"key a")
    await bench.start()
    await eventually(lambda: len(bench.store) == 1)
    bench.keep("b", b"key b")
    await eventually(lambda: len(bench.store) == 2)
    back = await Custody(str(bench.path), list, nobody).take_back()
    assert {name: content(secret.fd) for name, secret in back.items()} == {"a": b"key a", "b": b"key b"}
    assert back["a"].roots == "roots of a"
    assert back["a"].not_after == LATER
    packet.close_all([secret.fd for secret in back.values()])


@scenario
async def test_what_is_let_go_here_is_let_go_there(bench: Bench) -> None:
    await bench.start()
    bench.keep("a", b"key a")
    await eventually(lambda: len(bench.store) == 1)
    packet.close_all([bench.held.pop("a").fd])
    bench.custody.changed("a")
    await eventually(lambda: len(bench.store) == 0)


@scenario
async def test_a_restarted_agent_gets_everything_again(bench: Bench) -> None:
    await bench.start()
    bench.keep("a", b"key a")
    await eventually(lambda: len(bench.store) == 1)
    await bench.stop()
    bench.store.close()
    assert len(bench.store) == 0
    await bench.start()
    await eventually(lambda: len(bench.store) == 1)


def too_large(bench: Bench) -> float:
    return bench.custody.gauges()["ambient_certificates_too_large_for_custody"]


def test_too_many_roots_are_said_once_shown_for_as_long_and_never_left_in_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("ztunnel.director.custody.RETRY_S", 0.01)
    large = "spiffe://cluster.local/ns/shop/sa/large"

    async def test(bench: Bench) -> None:
        await bench.start()
        bench.keep("a", b"key a")
        await eventually(lambda: len(bench.store) == 1)
        bench.held[large] = Secret(sealed("t", b"key"), "r" * MAX_PACKET, LATER)
        bench.custody.changed(large)
        await eventually(lambda: too_large(bench))
        # A pod would be held at its start for a certificate that ztunnel has.
        await eventually(lambda: not bench.store.lacks("shop", "large"))
        looks = bench.looks
        await eventually(lambda: bench.looks > looks + 3)
        bench.keep("b", b"key b")
        packet.close_all([bench.held.pop(large).fd])
        await eventually(lambda: len(bench.store) == 2)
        assert too_large(bench) == 0

    scenario(test)(tmp_path)
    (told,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert str(tmp_path / "custody.sock") in told
    assert large in told
    assert f"{MAX_PACKET} bytes of roots" in told
    assert f"at most {MAX_PACKET - 1}" in told
    assert "again" in caplog.records[-1].message


@scenario
async def test_the_largest_that_is_left_comes_back(bench: Bench) -> None:
    frame = len(encode(Put("a", LATER, "r" * 70_000))) - 70_000
    bench.held["a"] = Secret(sealed("t", b"key"), "r" * (MAX_PACKET - 1 - frame), LATER)
    await bench.start()
    await eventually(lambda: len(bench.store) == 1)
    back = await Custody(str(bench.path), list, nobody).take_back()
    assert set(back) == {"a"}
    packet.close_all([secret.fd for secret in back.values()])
    packet.close_all([bench.held.pop("a").fd])
    bench.held["a"] = Secret(sealed("t", b"key"), "r" * (MAX_PACKET - frame), LATER)
    bench.custody.changed("a")
    await eventually(lambda: too_large(bench))
    assert len(bench.store.held(os.getuid())[0][0].roots) == MAX_PACKET - 1 - frame


@scenario
async def test_without_an_agent_nothing_comes_back_and_nothing_breaks(bench: Bench) -> None:
    bench.keep("a", b"key a")
    assert await bench.custody.take_back() == {}


@pytest.mark.parametrize("answer", [b"\xc1 what", encode(List())], ids=["junk", "a question of its own"])
def test_an_agent_that_talks_nonsense_gives_nothing(
    tmp_path: Path, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def body() -> None:
        path = tmp_path / "custody.sock"
        listener = packet.listen(path)
        taking = asyncio.ensure_future(Custody(str(path), list, nobody).take_back())
        link = await packet.accept(listener)
        await link.receive(1000)
        await link.send(answer)
        assert await taking == {}
        assert "nothing taken back yet: custody" in caplog.text
        link.close()
        listener.close()

    asyncio.run(body())


@scenario
async def test_an_agent_that_comes_late_is_asked_before_anything_of_ours_is_put_there(bench: Bench) -> None:
    assert await bench.custody.take_back() == {}
    bench.store.put(os.getuid(), Put("kept", LATER, "roots"), sealed("t", b"from before"))
    bench.keep("kept", b"newer")
    await bench.start()
    await eventually(lambda: bench.late)
    assert content(bench.late["kept"].fd) == b"from before"
    packet.close_all([secret.fd for secret in bench.late.values()])
    assert set(bench.late) == {"kept"}
    await eventually(lambda: any(content(fd) == b"newer" for _, fd in bench.store.held(os.getuid())))
