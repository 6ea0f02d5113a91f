"""Wake-ups by signal, and the ways back to polling."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

from ambient.kube.notify import POLL_S, SAFETY_POLL_S, DirectoryWatch


def nothing() -> None:
    """A watch that nobody waits for."""


def test_a_rename_in_a_covered_directory_wakes(tmp_path: Path) -> None:
    async def main() -> None:
        woken = asyncio.Event()
        watch = DirectoryWatch(asyncio.get_running_loop(), woken.set)
        try:
            assert watch.interval_s == SAFETY_POLL_S
            watch.cover([tmp_path, tmp_path / "missing"])
            for name in ("a", "b"):
                woken.clear()
                (tmp_path / "tmp").write_text("x")
                (tmp_path / "tmp").rename(tmp_path / name)
                async with asyncio.timeout(5):
                    await woken.wait()
        finally:
            watch.close()

    asyncio.run(main())


def test_a_directory_made_again_is_covered_again(tmp_path: Path) -> None:
    async def main() -> None:
        woken = asyncio.Event()
        watch = DirectoryWatch(asyncio.get_running_loop(), woken.set)
        try:
            watched = tmp_path / "d"
            watched.mkdir()
            watch.cover([watched])
            watched.rmdir()
            watched.mkdir()
            watch.cover([watched])
            (watched / "x").touch()
            async with asyncio.timeout(5):
                await woken.wait()
            watch.cover([])
        finally:
            watch.close()

    asyncio.run(main())


def test_only_one_watch_of_a_process_gets_the_signal_and_gives_it_back(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = DirectoryWatch(loop, nothing), DirectoryWatch(loop, nothing)
        assert (first.interval_s, second.interval_s) == (SAFETY_POLL_S, POLL_S)
        second.cover([tmp_path])
        second.close()
        first.close()
        assert first.interval_s == POLL_S
        third = DirectoryWatch(loop, nothing)
        assert third.interval_s == SAFETY_POLL_S
        third.close()

    asyncio.run(main())
    assert signal.getsignal(signal.SIGIO) is signal.SIG_IGN


def test_outside_the_main_thread_it_polls() -> None:
    seen: list[float] = []

    async def main() -> None:
        watch = DirectoryWatch(asyncio.get_running_loop(), nothing)
        seen.append(watch.interval_s)
        watch.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(10)
    assert seen == [POLL_S]
