"""Which OpenSSL ztunnel takes: with folders made here, and with the library that comes with its dependencies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.features import need
from ztunnel.openssl import PACKAGE, SETTING, environment

_ASK = "import ssl; print(*ssl.OPENSSL_VERSION_INFO)"


def plain() -> dict[str, str]:
    """The environment, without what would choose a library."""
    return {key: value for key, value in os.environ.items() if key not in (SETTING, "OPENSSL_CONF", "LD_LIBRARY_PATH")}


def release(env: dict[str, str]) -> tuple[int, ...]:
    done = subprocess.run([sys.executable, "-c", _ASK], env=env, check=True, capture_output=True, text=True)
    return tuple(int(word) for word in done.stdout.split())


def libraries(folder: Path, names: tuple[str, ...] = ("libssl-1a.so.3", "libcrypto-2b.so.3")) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("no library")
    return folder


def test_the_library_that_comes_along_is_taken_only_if_it_is_newer(tmp_path: Path) -> None:
    own = release(plain())
    if wanted := environment(plain(), str(tmp_path)):
        assert release({**plain(), **wanted}) > own
    else:
        assert own >= (3, 5), "the interpreter's own is older than what comes along"


def test_who_has_it_already_does_not_start_afresh_again(tmp_path: Path) -> None:
    env = {**plain(), "LD_LIBRARY_PATH": f"{tmp_path}/openssl:/elsewhere"}
    assert environment(env, str(tmp_path)) == {}
    assert not (tmp_path / "openssl").exists()


def test_without_the_package_the_interpreters_own_stays(tmp_path: Path) -> None:
    assert environment(plain(), str(tmp_path), path=[str(tmp_path / "nothing")]) == {}


@pytest.mark.parametrize(
    "names",
    [
        ("libssl-1a.so.3",),
        ("libcrypto-2b.so.3",),
        ("libssl-1a.so.4", "libcrypto-2b.so.4"),
        ("libssl-1a.so.3", "libssl-9z.so.3", "libcrypto-2b.so.3"),
    ],
    ids=["one missing", "the other missing", "another interface", "two of a kind"],
)
def test_a_package_that_has_not_exactly_both_of_release_3_is_as_good_as_none(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    libraries(tmp_path / f"{PACKAGE}.libs", names)
    assert environment(plain(), str(tmp_path / "run"), path=[str(tmp_path)]) == {}
    assert not (tmp_path / "run").exists()


def test_a_library_that_does_not_load_is_not_taken(tmp_path: Path) -> None:
    libraries(tmp_path / f"{PACKAGE}.libs")
    assert environment(plain(), str(tmp_path / "run"), path=[str(tmp_path)]) == {}
    # It was tried: both are there under the names that the linker asks for.
    assert (tmp_path / "run/openssl/libssl.so.3").resolve() == tmp_path / f"{PACKAGE}.libs/libssl-1a.so.3"
    assert (tmp_path / "run/openssl/libcrypto-2b.so.3").exists()


def test_an_operator_says_which(tmp_path: Path) -> None:
    libraries(tmp_path / f"{PACKAGE}.libs")
    path = [str(tmp_path)]
    run = tmp_path / "run"
    assert environment({**plain(), SETTING: "system"}, str(run), path) == {}
    assert environment({**plain(), "OPENSSL_CONF": "/etc/fips.cnf"}, str(run), path) == {}
    assert not run.exists()
    with pytest.raises(ValueError, match=r"ZTUNNEL_OPENSSL: '/nowhere'"):
        environment({**plain(), SETTING: "/nowhere"}, str(run), path)
    other = libraries(tmp_path / "own", ("libssl.so.3", "libcrypto.so.3"))
    environment({**plain(), SETTING: str(other), "OPENSSL_CONF": "/etc/fips.cnf"}, str(run), path)
    assert (run / "openssl/libssl.so.3").resolve() == other / "libssl.so.3"


def test_links_follow_an_upgrade_of_the_package(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        libraries(tmp_path / folder / f"{PACKAGE}.libs")
        environment(plain(), str(tmp_path / "run"), [str(tmp_path / folder)])
    assert (tmp_path / "run/openssl/libcrypto.so.3").resolve().is_relative_to(tmp_path / "second")


def test_a_run_directory_that_is_made_for_the_links_is_nobody_elses(tmp_path: Path) -> None:
    folder = libraries(tmp_path / "own")
    environment({**plain(), SETTING: str(folder)}, str(tmp_path / "run"))
    assert [(tmp_path / one).stat().st_mode & 0o777 for one in ("run", "run/openssl")] == [0o700, 0o700]


class Asked:
    """`environment` in another process, which has a copy of the packaged libraries; and how often a third was asked."""

    def __init__(self, folder: Path) -> None:
        self.libraries, self.run, self._asked = folder / "own", folder / "run", folder / "asked"
        found = next(
            (Path(one) / f"{PACKAGE}.libs" for one in sys.path if (Path(one) / f"{PACKAGE}.libs").is_dir()), None
        )
        assert found is not None, f"{PACKAGE} is a dependency, and its wheels for Linux carry the libraries"
        shutil.copytree(found, self.libraries)
        self._asked.touch()
        self._python = folder / "python"
        self._python.write_text(f'#!/bin/sh\necho >> {self._asked}\nexec {sys.executable} "$@"\n')
        self._python.chmod(0o755)

    def __call__(self) -> str:
        code = (
            f"import os, sys; sys.executable = {str(self._python)!r}; from ztunnel.openssl import environment;"
            f"print(environment(os.environ, {str(self.run)!r}))"
        )
        env = {**plain(), SETTING: str(self.libraries)}
        return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout

    @property
    def times(self) -> int:
        return len(self._asked.read_text())


def test_a_restart_asks_nobody_again_while_every_file_is_what_it_was(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    first = asked()
    assert asked.times == 1
    assert asked() == first
    assert asked.times == 1


@pytest.mark.parametrize("change", ["library", "link", "interpreter", "own library", "garbage"])
def test_what_was_found_is_not_believed_when_something_has_changed(tmp_path: Path, change: str) -> None:
    asked = Asked(tmp_path)
    first = asked()
    verdict, link = asked.run / "openssl/verdict.json", asked.run / "openssl/libssl.so.3"
    match change:
        case "library":
            os.utime(next(asked.libraries.glob("libcrypto*")), (1, 1))
        case "link":
            link.unlink()
            link.symlink_to(tmp_path / "elsewhere")
        case "interpreter":
            os.utime(tmp_path / "python", (1, 1))
        case "own library":
            need("an OpenSSL beside the interpreter")
            known = json.loads(verdict.read_text())
            for one in known["rests_on"][2:]:
                one[2] += one[0] in known["own"]
            verdict.write_text(json.dumps(known))
        case "garbage":
            verdict.write_text("{")
    assert asked() == first
    assert asked.times == 2
    assert link.resolve().parent == asked.libraries
