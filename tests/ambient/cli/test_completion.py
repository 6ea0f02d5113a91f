"""Shell completion knows every command and its options, and the scripts are valid shell."""

from __future__ import annotations

import subprocess

import pytest

from ambient.cli.completion import words
from ambient.cli.main import COMMANDS
from tests.support.cli import FakeMesh, ambient


def test_every_command_has_its_options() -> None:
    found = words()
    assert set(found) == set(COMMANDS)
    assert {"--name", "--output", "-o", "--node"} <= set(found["workloads"])
    assert {"up", "apply", "down"} <= set(found["lab"])
    assert {"bash", "zsh"} <= set(found["completion"])


@pytest.mark.parametrize(
    ("typed", "position", "expected"),
    [
        (["ambient", "wor"], 1, ["workloads"]),
        (["ambient", "flows", "--fol"], 2, ["--follow"]),
        (["ambient", "lab", "do"], 2, ["down"]),
    ],
)
def test_bash_completes_commands_options_and_verbs(typed: list[str], position: int, expected: list[str]) -> None:
    script = ambient(FakeMesh(), "completion", "bash").out
    array = " ".join(typed)
    asked = f'{script}\nCOMP_WORDS=({array}); COMP_CWORD={position}; _ambient; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ran = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, timeout=20)
    assert ran.stdout.split() == expected
    assert ran.stderr == ""


def test_zsh_gets_a_completion_function_with_every_command() -> None:
    script = ambient(FakeMesh(), "completion", "zsh").out
    assert script.startswith("#compdef ambient")
    assert all(f"    {name}) " in script for name in COMMANDS)
