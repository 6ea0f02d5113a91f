"""`ambient completion bash|zsh`: a script made from the table of commands and their own parsers."""

from __future__ import annotations

import argparse

from ambient.cli.env import Env, Exit
from ambient.cli.lab import build_parser


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(env: Env, args: argparse.Namespace) -> int:
    env.line(script(args.shell, words()))
    return Exit.OK


def words() -> dict[str, list[str]]:
    """Command -> what may follow it: its options, or the lab's verbs."""
    from ambient.cli.main import COMMANDS, parser_of  # main imports commands by name, so not at the top

    found = {}
    for name, command in COMMANDS.items():
        if name == "lab":
            found[name] = [*lab_verbs(), "--name"]
        elif command.raw:
            found[name] = ["--help"]
        else:
            found[name] = [
                word
                for action in parser_of(name)._actions
                for word in (*action.option_strings, *(action.choices or () if not action.option_strings else ()))
            ]
    return found


def lab_verbs() -> list[str]:
    """The verbs of `ambient lab`, from its own parser."""
    actions = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return list(next(actions).choices)


def script(shell: str, follow: dict[str, list[str]]) -> str:
    cases = "\n".join(f"    {name}) words='{' '.join(options)}' ;;" for name, options in follow.items())
    commands = " ".join(follow)
    if shell == "bash":
        return f"""_ambient() {{
  local words current=${{COMP_WORDS[COMP_CWORD]}}
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  [ "$COMP_CWORD" -gt 1 ] || words='{commands}'
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _ambient ambient"""
    return f"""#compdef ambient
_ambient() {{
  local words
  case ${{words[2]:-$2}} in
{cases}
  esac
  (( CURRENT > 2 )) || words='{commands}'
  compadd -- ${{=words}}
  _files
}}
compdef _ambient ambient"""
