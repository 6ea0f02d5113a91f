"""The house itself: a skip needs proof, counts are compared, `./dev` and the packages are what the README says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import features

ROOT = Path(__file__).parent.parent


def _inner(tmp_path: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one planted test file with this repository's conftest."""
    (tmp_path / "tests" / "support").mkdir(parents=True)
    for file in ("conftest.py", "support/features.py"):
        (tmp_path / "tests" / file).write_text((ROOT / "tests" / file).read_text())
    (tmp_path / "tests" / "counts.json").write_text(json.dumps({"unit": 1}))
    (tmp_path / "tests" / "test_planted.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("reason", "complaint"),
    [
        ("not today", "without naming"),
        ("missing kernel feature: telepathy: none", "without naming"),
        ("missing kernel feature: ipv6: I say so", "which this kernel has"),
    ],
)
def test_a_skip_without_proof_is_a_complaint(reason: str, complaint: str) -> None:
    assert complaint in features.unproven(f"Skipped: {reason}")


@pytest.mark.parametrize(
    "planted",
    [
        "import pytest\ndef test_x(): pytest.skip('not today')\n",
        "import pytest\n@pytest.mark.skip\ndef test_x(): pass\n",
        "import pytest\npytest.skip('no', allow_module_level=True)\n",
        "import pytest\npytest.importorskip('there_is_no_such_module')\ndef test_x(): pass\n",
    ],
)
def test_a_skip_that_could_run_here_fails_the_run(tmp_path: Path, planted: str) -> None:
    result = _inner(tmp_path, planted)
    assert result.returncode != 0, result.stdout
    assert "without naming a missing kernel feature" in result.stdout


def test_a_run_that_is_told_to_end_takes_down_what_it_has_put_up(tmp_path: Path) -> None:
    planted = """
import pathlib, pytest, signal
@pytest.fixture(scope="module")
def lab():
    pathlib.Path("lab").touch()
    yield
    pathlib.Path("lab").unlink()
def test_x(lab): signal.raise_signal(signal.SIGTERM)
def test_y(lab): pathlib.Path("went-on").touch()
"""
    result = _inner(tmp_path, planted)
    assert result.returncode == pytest.ExitCode.INTERRUPTED, result.stdout
    assert not (tmp_path / "lab").exists()
    assert not (tmp_path / "went-on").exists()


def test_a_run_with_fewer_tests_than_committed_fails(tmp_path: Path) -> None:
    result = _inner(tmp_path, "", "--prove-counts=unit")
    assert result.returncode != 0
    assert "0 unit tests were collected, counts.json says 1" in result.stdout + result.stderr


def test_a_run_with_the_committed_number_of_tests_passes(tmp_path: Path) -> None:
    result = _inner(tmp_path, "def test_x(): pass\n", "--prove-counts=unit")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_the_scripts_are_executable(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111 == 0o111


def test_dev_without_a_known_verb_prints_usage_and_fails() -> None:
    result = subprocess.run(["sh", ROOT / "dev", "dance"], capture_output=True, text=True, check=False, timeout=20)
    assert result.returncode == 2
    assert "./dev VERB" in result.stderr


def test_dev_help_names_every_verb() -> None:
    result = subprocess.run(["sh", ROOT / "dev", "help"], capture_output=True, text=True, check=True, timeout=20)
    for verb in ("demo", "test", "check", "lab", "cluster", "image", "ambient", "bench", "campaign", "counts"):
        assert f"\n  {verb} " in result.stdout


def test_both_programs_have_entry_points() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"ambient": "ambient.cli.main:main", "ztunnel": "ztunnel.__main__:main"}


def test_ci_runs_the_check_and_the_tests() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert [line for line in lines if line.startswith("./dev")] == ["./dev check", "./dev test", "./dev test cluster"]


def test_every_test_beside_the_folders_is_of_a_kind() -> None:
    """A file that no kind names is run by nobody."""
    dev = (ROOT / "dev").read_text()
    found = re.search(r"printf 'tests/test_%s\.py\\n' ([a-z ]+)\n", dev)
    assert found is not None
    assert sorted(found[1].split()) == sorted(
        file.stem.removeprefix("test_") for file in (ROOT / "tests").glob("test_*.py")
    )
