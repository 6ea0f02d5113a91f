"""`ambient demo`: tells what the mesh does and proves every line of it on real traffic, in a lab of its own."""

from __future__ import annotations

import argparse
import secrets

from ambient.cli.demo.remains import remains
from ambient.cli.demo.stage import Broken, Stage
from ambient.cli.demo.story import CHAPTERS, Scene
from ambient.cli.demo.telling import Telling
from ambient.cli.env import Env, Exit
from ambient.cli.reach import LabReach
from ambient.errors import MeshError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", action="store_true", help="leave the lab up, joined and with its policies, to play with"
    )
    parser.add_argument("--name", metavar="LAB", default="demo", help="name of the lab (default: demo)")


def run(env: Env, args: argparse.Namespace) -> int:
    """0 when every line held, 1 at the first that did not."""
    stage = Stage(args.name)
    tell = Telling(env)
    stage.down()  # of an earlier run that was kept
    scene = Scene(stage, tell, f"secret-{secrets.token_hex(16)}")
    chapters = CHAPTERS[:-1] if args.keep else CHAPTERS
    try:
        for chapter in chapters:
            chapter(scene)
        if not args.keep:
            scene.close()
            _clean_up(stage, tell)
    except MeshError as error:
        env.complain(f"\nambient demo: it does not hold: {error}")
        _leave(env, stage, keep=args.keep)
        return Exit.FAILURE
    finally:
        scene.close()
    env.line(f"\n{tell.lines} lines told and proven in {tell.seconds:.0f} s.")
    if args.keep:
        env.line(_INVITATION.format(lab=stage.lab))
    return Exit.OK


def _leave(env: Env, stage: Stage, *, keep: bool) -> None:
    """After a failure: the end of every log, then no lab unless it is to be kept."""
    for node in LabReach(stage.lab).nodes():
        for part in ("agent", "ztunnel"):
            said = stage.command("lab", "logs", "--name", stage.lab, node, part).out.splitlines()[-5:]
            env.complain(f"--- {node} {part}\n" + "\n".join(said))
    if keep:
        env.complain(f"the lab is still up; end it with: ambient lab down --name {stage.lab}")
    else:
        stage.down()
        env.complain("the lab is down; run with --keep to look into it")


_INVITATION = """The lab is up. Try, as root in the clone:
  ./dev ambient status --name {lab}
  ./dev ambient flows --name {lab} --follow
  ./dev ambient explain --name {lab} shop/batch db.shop:80
  ./dev lab exec --name {lab} shop/web -- curl -s http://db.shop/id
  ./dev lab down --name {lab}"""


def _clean_up(stage: Stage, tell: Telling) -> None:
    tell.chapter("Nothing is left behind")
    stage.down()
    left = remains(stage.lab)
    for kind in ("network namespaces", "pins", "network links", "processes", "control groups", "files"):
        tell.holds(f"no {kind}", kind not in left, ", ".join(left.get(kind, [])[:5]))
    if left:
        raise Broken("clean-up", "", str(left))
