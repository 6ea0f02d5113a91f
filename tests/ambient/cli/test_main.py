"""The table of commands: help for every row, exit codes, errors without a traceback."""

from __future__ import annotations

import argparse

import pytest

from ambient.cli.env import Exit
from ambient.cli.main import COMMANDS, parser_of
from tests.support.cli import FakeMesh, ambient, healthy

PARSED = [name for name, command in COMMANDS.items() if not command.raw]


def test_without_a_command_the_usage_is_shown_and_it_fails() -> None:
    ran = ambient(FakeMesh())
    assert ran.code == Exit.USAGE
    assert "usage: ambient COMMAND" in ran.out


def test_help_lists_every_command() -> None:
    ran = ambient(FakeMesh(), "--help")
    assert ran.code == Exit.OK
    assert all(f"\n  {name} " in ran.out for name in COMMANDS)


@pytest.mark.parametrize("name", PARSED)
def test_every_command_has_help_with_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ambient(FakeMesh(), name, "--help").code == Exit.OK
    shown = capsys.readouterr().out
    assert COMMANDS[name].summary.split()[0] in shown
    assert "examples:" in shown
    for example in COMMANDS[name].examples:
        assert example in shown
        words = example.replace('eval "$(', "").replace(')"', "").split()
        assert isinstance(parser_of(name).parse_args(words[2:]), argparse.Namespace)


DOING = ("completion", "demo", "install", "join", "ticket", "uninstall", "upgrade", "waypoint")


@pytest.mark.parametrize("name", [n for n in PARSED if n not in DOING])
def test_every_read_command_has_table_and_json(name: str) -> None:
    assert any(action.dest == "output" for action in parser_of(name)._actions)


@pytest.mark.parametrize("name", PARSED)
def test_a_wrong_option_is_a_usage_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ambient(FakeMesh(), name, "--no-such-option").code == Exit.USAGE
    assert "usage:" in capsys.readouterr().err


def test_an_unknown_command_is_a_usage_error() -> None:
    ran = ambient(FakeMesh(), "dance")
    assert ran.code == Exit.USAGE
    assert "no command 'dance'" in ran.err


@pytest.mark.parametrize("name", ["workloads", "services", "policies", "certs", "connections", "pods"])
def test_a_mesh_that_does_not_answer_is_one_readable_line(name: str) -> None:
    ran = ambient(FakeMesh(), name)
    assert ran.code == Exit.FAILURE
    assert ran.err.startswith(f"ambient {name}: ")
    assert "does not answer" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("name", ["workloads", "status", "certs"])
def test_a_node_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    ran = ambient(healthy("n1", "n2"), name, "--node", "n7")
    assert ran.code == Exit.FAILURE
    assert "no node 'n7': lab test: it has n1, n2" in ran.err


def test_a_dump_that_is_not_a_dump_is_one_readable_line() -> None:
    mesh = healthy("n1")
    mesh.answers["n1/ztunnel", "/config_dump"] = b"<html>"
    ran = ambient(mesh, "workloads")
    assert ran.code == Exit.FAILURE
    assert "not JSON: config dump of n1" in ran.err
