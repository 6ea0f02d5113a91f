from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ambient.agent import cni_install
from ambient.agent.cni_conf import Entry
from ambient.agent.cni_install import Installation, Places
from ambient.errors import InvalidInput, KernelError, Unavailable
from tests.support.agent_fakes import until

ENTRY = Entry(socket="/s", pass_namespaces=("kube-system",), timeout_s=30)
LIST = b'{"cniVersion":"0.4.0","name":"pods","plugins":[\n {"type":"bridge"},{"type":"portmap"}]}'
SINGLE = b'{ "cniVersion": "0.3.1", "name": "pods", "type": "bridge" }\n'


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("net.d", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "plugin").write_bytes(b"\x7fELF one")
    return Places(configuration=tmp_path / "net.d", programs=tmp_path / "bin", plugin=tmp_path / "plugin")


def put(places: Places, name: str, content: bytes = LIST, mode: int = 0o640) -> Path:
    path = places.configuration / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def types(path: Path) -> list[str]:
    return [plugin["type"] for plugin in json.loads(path.read_bytes())["plugins"]]


def everything(places: Places) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(places.configuration.parent)): (path.read_bytes(), path.stat().st_mode)
        for directory in (places.configuration, places.programs)
        for path in sorted(directory.iterdir())
    }


def test_program_and_entry_are_installed_with_the_modes_they_need(places: Places) -> None:
    path = put(places, "10-bridge.conflist")
    Installation(places, ENTRY).ensure()
    assert types(path) == ["bridge", "portmap", "ambient-cni"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert (places.programs / "ambient-cni").read_bytes() == b"\x7fELF one"
    assert (places.programs / "ambient-cni").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["10-bridge.conflist", "10-bridge.conf", "10-bridge.json"])
def test_install_and_remove_leave_every_byte_and_mode_as_it_was(places: Places, name: str) -> None:
    put(places, name, LIST if name.endswith("list") else SINGLE)
    put(places, "99-loopback.conf", SINGLE, 0o600)
    before = everything(places)
    installation = Installation(places, ENTRY)
    installation.ensure()
    assert everything(places) != before
    installation.remove()
    assert everything(places) == before
    installation.remove()
    assert everything(places) == before


def test_only_the_first_configuration_in_lexical_order_gets_ours(places: Places) -> None:
    first, second = put(places, "05-a.conflist"), put(places, "10-b.conflist")
    Installation(places, ENTRY).ensure()
    assert "ambient-cni" in types(first)
    assert second.read_bytes() == LIST


def test_one_that_comes_before_it_later_gets_ours_too_and_both_are_restored(places: Places) -> None:
    second = put(places, "10-b.conflist")
    installation = Installation(places, ENTRY)
    installation.ensure()
    first = put(places, "05-a.conflist")
    installation.ensure()
    assert "ambient-cni" in types(first)
    installation.remove()
    assert (first.read_bytes(), second.read_bytes()) == (LIST, LIST)


def test_a_broken_configuration_is_passed_over_as_the_runtime_does(places: Places) -> None:
    put(places, "00-broken.conflist", b"{")
    path = put(places, "10-bridge.conflist")
    Installation(places, ENTRY).ensure()
    assert "ambient-cni" in types(path)


def test_a_list_beside_the_single_file_that_becomes_one_is_kept_for_later(places: Places) -> None:
    put(places, "10-x.conf", SINGLE)
    put(places, "10-x.conflist", LIST)
    before = everything(places)
    installation = Installation(places, ENTRY)
    installation.ensure()
    assert types(places.configuration / "10-x.conflist") == ["bridge", "ambient-cni"]
    installation.remove()
    assert everything(places) == before


def test_what_another_agent_writes_over_it_gets_ours_again_and_is_what_remains(places: Places) -> None:
    path = put(places, "10-x.conflist")
    installation = Installation(places, ENTRY)
    installation.ensure()
    newer = LIST.replace(b"portmap", b"bandwidth")
    path.write_bytes(newer)
    installation.ensure()
    assert types(path) == ["bridge", "bandwidth", "ambient-cni"]
    installation.remove()
    assert path.read_bytes() == newer


def test_a_change_made_beside_ours_survives_the_removal(places: Places) -> None:
    path = put(places, "10-x.conflist")
    installation = Installation(places, ENTRY)
    installation.ensure()
    value = json.loads(path.read_bytes())
    value["plugins"].insert(1, {"type": "tuning"})
    path.write_text(json.dumps(value))
    installation.remove()
    assert types(path) == ["bridge", "tuning", "portmap"]
    assert [p.name for p in places.configuration.iterdir()] == ["10-x.conflist"]


def test_an_upgrade_replaces_program_and_entry_and_still_remembers_the_original(places: Places) -> None:
    path = put(places, "10-x.conflist")
    Installation(places, ENTRY).ensure()
    places.plugin.write_bytes(b"\x7fELF two")
    newer = Installation(places, Entry(socket="/new", pass_namespaces=(), timeout_s=9))
    newer.ensure()
    assert (places.programs / "ambient-cni").read_bytes() == b"\x7fELF two"
    assert json.loads(path.read_bytes())["plugins"][-1]["ambient"]["socket"] == "/new"
    newer.remove()
    assert path.read_bytes() == LIST


def test_a_program_that_somebody_took_away_comes_back(places: Places) -> None:
    put(places, "10-x.conflist")
    installation = Installation(places, ENTRY)
    installation.ensure()
    (places.programs / "ambient-cni").unlink()
    installation.ensure()
    assert (places.programs / "ambient-cni").exists()


def test_a_symbolic_link_is_a_symbolic_link_again_afterwards(places: Places, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(LIST)
    path = places.configuration / "10-x.conflist"
    path.symlink_to(target)
    installation = Installation(places, ENTRY)
    installation.ensure()
    assert target.read_bytes() == LIST
    assert "ambient-cni" in types(path)
    installation.remove()
    assert path.is_symlink()
    assert path.read_bytes() == LIST


def test_without_a_configuration_it_says_that_there_is_none_yet(places: Places) -> None:
    with pytest.raises(Unavailable, match="there is none yet"):
        Installation(places, ENTRY).ensure()
    put(places, "10-x.conflist", LIST.replace(b"0.4.0", b"0.2.0"))
    with pytest.raises(Unavailable, match=r"0\.2\.0 is too old"):
        Installation(places, ENTRY).ensure()


def test_without_the_runtimes_directory_no_configuration_is_touched(places: Places) -> None:
    path = put(places, "10-x.conflist")
    places.programs.rmdir()
    with pytest.raises(Unavailable, match="there is no such directory"):
        Installation(places, ENTRY).ensure()
    assert path.read_bytes() == LIST


class Watcher:
    """Looks at the node after every step that changes a directory, as a runtime might."""

    def __init__(self, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = places
        self.seen: list[tuple[bool, bool]] = []
        for name in ("replace", "link"):
            monkeypatch.setattr(cni_install.os, name, self._after(getattr(os, name)))
        monkeypatch.setattr(Path, "unlink", self._after(Path.unlink))

    def _after(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.look()
            return result

        return step

    def look(self) -> None:
        names = sorted(n for n in os.listdir(self.places.configuration) if n.endswith((".conf", ".conflist", ".json")))
        assert names, "a moment without any configuration"
        value = json.loads((self.places.configuration / names[0]).read_bytes())
        named = any(plugin["type"] == "ambient-cni" for plugin in value.get("plugins", []))
        self.seen.append((named, (self.places.programs / "ambient-cni").exists()))


@pytest.mark.parametrize("name", ["10-x.conflist", "10-x.conf"])
def test_at_no_moment_the_configuration_names_a_program_that_is_not_there(
    places: Places, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(places, name, LIST if name.endswith("list") else SINGLE)
    installation = Installation(places, ENTRY)
    with monkeypatch.context() as patch:
        watcher = Watcher(places, patch)
        installation.ensure()
        installation.remove()
    assert (True, True) in watcher.seen
    assert all(there for named, there in watcher.seen if named)


def test_a_removal_in_the_wrong_order_would_be_seen(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sabotage: the program goes first."""
    put(places, "10-x.conflist")
    installation = Installation(places, ENTRY)
    installation.ensure()
    with monkeypatch.context() as patch:
        watcher = Watcher(places, patch)
        (places.programs / "ambient-cni").unlink()
        installation.remove()
    assert (True, False) in watcher.seen


def test_a_removal_that_fails_keeps_the_program_and_says_where(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(places, "10-x.conflist")
    installation = Installation(places, ENTRY)
    installation.ensure()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "no", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(cni_install.os, "replace", refuse)
        with pytest.raises(KernelError, match=r"10-x\.conflist"):
            installation.remove()
    assert (places.programs / "ambient-cni").exists()


async def kept(places: Places, work: Callable[[Installation], Any]) -> None:
    installation = Installation(places, ENTRY)
    task = asyncio.create_task(installation.keep())
    try:
        async with asyncio.timeout(10):
            await work(installation)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_it_waits_for_a_network_and_comes_back_when_it_is_overwritten(places: Places) -> None:
    async def work(installation: Installation) -> None:
        await until(lambda: "none yet" in installation.problem)
        path = put(places, "new")
        os.replace(path, places.configuration / "10-x.conflist")
        path = places.configuration / "10-x.conflist"
        await until(lambda: "ambient-cni" in types(path))
        put(places, "again")
        os.replace(places.configuration / "again", path)
        await until(lambda: "ambient-cni" in types(path))
        assert installation.problem == ""

    asyncio.run(kept(places, work))


def test_a_stopped_agent_leaves_it_in_place(places: Places) -> None:
    path = put(places, "10-x.conflist")

    async def work(installation: Installation) -> None:
        await until(lambda: not installation.problem)

    asyncio.run(kept(places, work))
    assert "ambient-cni" in types(path)


def test_a_chain_that_ours_cannot_work_in_is_an_error_with_its_name(places: Places) -> None:
    put(places, "10-x.conflist", b"[]")
    with pytest.raises((InvalidInput, Unavailable), match=r"10-x\.conflist: is not an object"):
        Installation(places, ENTRY).ensure()
