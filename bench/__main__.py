"""`./dev bench [NAME...]`: measure, print, and write what was measured. See `--help`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ambient.errors import MeshError
from bench import budgets, envoy, stranger
from bench.arms import Arm, again, bare, interpreted, ours
from bench.cases import CASES
from bench.control import lines as scale_lines
from bench.control import measure as scale
from bench.enforced import enforced
from bench.enforced import lines as enforced_lines
from bench.fair import fair
from bench.fair import lines as fair_lines
from bench.flows import flows
from bench.flows import lines as flow_lines
from bench.footprint import footprints, idle
from bench.judging import judging
from bench.judging import lines as judging_lines
from bench.mesh import known
from bench.mesh import lines as mesh_lines
from bench.refuse import lines as refuse_lines
from bench.refuse import refuse
from bench.report import case_json, case_lines, machine, markdown
from bench.same_node import lines as same_node_lines
from bench.same_node import same_node
from bench.scale import knowing
from bench.slices import alternate
from bench.waypoint import lines as waypoint_lines
from bench.waypoint import waypoint
from bench.waypoint_scale import lines as waypoint_scale_lines
from bench.waypoint_scale import waypoint_scale
from bench.world import World, world

FEWEST_ROUNDS: Final = 7
SLICES: Final = 200
SLICE_S: Final = 0.25
EXTRA: Final = (
    *("memory", "judging", "mesh", "scale", "workloads", "fair", "refuse", "flows", "same-node"),
    *("waypoint-scale", "waypoint"),
)
"""Measured once and not in rounds: PSS of every process, judging many policies, a director and every process that
knows many workloads, a control plane with a large cluster before it; and what a pod that floods its node costs the
others; what it costs that the kernel refuses what policy denies, and that it tells of flows; the kernel path between
pods of one node, beside no mesh; and what a waypoint costs, and a large configuration of one."""
ON_A_CLUSTER: Final = ("enforced",)
"""Measured only when named, on the cluster of KUBECONFIG with the mesh in it: how soon a policy holds on real nodes."""
OURSELVES: Final = frozenset({"interpreted", "itself"})
ENFORCED_ROUNDS: Final = 50


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with 2 when it cannot be understood."""
    names = [*(case.name for case in CASES), *EXTRA, *ON_A_CLUSTER]
    parser = argparse.ArgumentParser(
        prog="dev bench",
        description="measure this mesh beside no mesh and beside another proxy, in turn, in one lab on this machine",
        epilog=f"NAMES: {' '.join(names)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: everything)")
    parser.add_argument(
        "--against",
        default="envoy",
        metavar="envoy|interpreted|itself|none|PATH",
        help="interpreted: our own sources, not compiled; itself: the same again, which must come out as 1; PATH: a "
        "ztunnel that understands Istio's local configuration variables (default: envoy)",
    )
    parser.add_argument(
        "--slices", type=int, default=SLICES, help=f"alternations of the cases, fair, same-node and flows ({SLICES})"
    )
    parser.add_argument("--slice", type=float, default=SLICE_S, help=f"seconds of each of them (default: {SLICE_S})")
    parser.add_argument(
        "--rounds", type=int, default=FEWEST_ROUNDS, help=f"those of the others, {FEWEST_ROUNDS} or more"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement of those (default: 1)")
    parser.add_argument("--no-bare", action="store_true", help="leave out the arm without a mesh of the cases")
    parser.add_argument("--workers", type=int, default=2, help="of our ztunnel and of the other proxy (default: 2)")
    parser.add_argument("--quick", action="store_true", help="cross-node only, 0.3 s each: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and ratio there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--env", action="append", default=[], metavar="[PART:]K=V", help="setting of the mesh's parts")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"no such benchmark: {' '.join(unknown)}; there are {' '.join(names)}")
    if options.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds: at least {FEWEST_ROUNDS}, fewer say nothing")
    if options.slices < FEWEST_ROUNDS:
        parser.error(f"--slices: at least {FEWEST_ROUNDS}, fewer say nothing")
    if options.quick:
        options.seconds, options.slices = 0.3, 20
        options.names = options.names or [
            name for name in names if not name.endswith("-same") and name not in ON_A_CLUSTER
        ]
    return options


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def peer(world: World, options: argparse.Namespace, folder: Path) -> Iterator[Arm | None]:
    """The other proxy, running; None for `--against none`."""
    if options.against == "none":
        yield None
    elif options.against == "itself":
        yield again(world)
    elif options.against == "envoy":
        with envoy.running(world, options.workers, folder) as arm:
            yield arm
    elif options.against == "interpreted":
        with interpreted(options.workers, folder, options.env) as arm:
            yield arm
    else:
        with stranger.running(world, options.workers, folder, Path(options.against).resolve()) as arm:
            yield arm


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Everything that was asked for: as JSON and as lines of Markdown."""
    wanted = options.names or [*(case.name for case in CASES), *EXTRA]
    found: dict[str, Any] = {
        "machine": machine(),
        "options": {
            key: getattr(options, key) for key in ("against", "slices", "slice", "rounds", "seconds", "workers")
        },
        "cases": {},
    }
    if options.against not in OURSELVES | {"none", "envoy"}:
        found["options"]["against"] = Path(options.against).name
    lines: list[str] = []
    if "judging" in wanted:
        verdicts = judging(options.rounds)
        found["judging"] = [asdict(one) for one in verdicts]
        lines += judging_lines(verdicts)
        say("\n".join(lines))
    if "mesh" in wanted:
        meshes = known()
        found["mesh"] = [asdict(one) for one in meshes]
        lines += mesh_lines(meshes)
        say("\n".join(mesh_lines(meshes)))
    if "scale" in wanted:
        (folder / "scale").mkdir()
        large = scale(folder / "scale")
        found["scale"] = asdict(large)
        lines += scale_lines(large)
        say("\n".join(scale_lines(large)))
    if "waypoint-scale" in wanted:
        (folder / "waypoint").mkdir()
        told = waypoint_scale(folder / "waypoint")
        found["waypoint_scale"] = asdict(told)
        lines += waypoint_scale_lines(told)
        say("\n".join(waypoint_scale_lines(told)))
    if "enforced" in wanted:
        held = enforced(ENFORCED_ROUNDS)
        found["enforced"] = asdict(held)
        lines += enforced_lines(held)
        say("\n".join(enforced_lines(held)))
    if set(wanted) <= {"judging", "mesh", "scale", "waypoint-scale", *ON_A_CLUSTER}:
        return found, lines
    with ExitStack() as stack:
        lab = stack.enter_context(world(options.workers, folder, options.env))
        other = stack.enter_context(peer(lab, options, folder))
        proxied = [ours(lab), *([other] if other else [])]
        arms = proxied if options.no_bare else [*proxied, bare(lab)]
        rested = [(arm, idle(arm)) for arm in proxied]
        done = []
        for case in CASES:
            if case.name in wanted:
                samples = alternate(lab, arms, case, options.slices, options.slice)
                done.append((case, samples))
                found["cases"][case.name] = case_json(case, samples)
                say("\n".join(case_lines(case, samples)))
        if done:
            lines += ["", *markdown(done)]
        if "memory" in wanted:
            sizes = [one for arm, before in rested for one in footprints(arm.lab or lab, arm, before, options.seconds)]
            found["memory"] = [asdict(one) for one in sizes]
            table = [
                "",
                "| arm | process | PSS idle | PSS under load | private idle | under load (MiB) |",
                "|---" * 6 + "|",
            ]
            for one in sizes:
                figures = (one.idle.pss, one.loaded.pss, one.idle.private, one.loaded.private)
                table.append(f"| {one.arm} | {one.role} | {' | '.join(f'{kib / 1024:.1f}' for kib in figures)} |")
            lines += table
            say("\n".join(table))
        if "fair" in wanted:
            floods = fair(lab, options.slices, options.slice)
            found["fair"] = asdict(floods)
            lines += fair_lines(floods, options.workers)
            say("\n".join(fair_lines(floods, options.workers)))
        if "refuse" in wanted:
            refusals = refuse(lab, options.rounds, options.seconds)
            found["refuse"] = asdict(refusals)
            lines += refuse_lines(refusals)
            say("\n".join(refuse_lines(refusals)))
        if "same-node" in wanted:
            beside = same_node(lab, options.slices, options.slice)
            found["same_node"] = [asdict(one) for one in beside]
            lines += same_node_lines(beside)
            say("\n".join(same_node_lines(beside)))
        if "waypoint" in wanted:
            hops, costs = waypoint(lab, options.rounds, options.seconds)
            found["waypoint"] = [asdict(one) for one in hops]
            found["waypoint_cpu"] = [asdict(one) for one in costs]
            lines += waypoint_lines(hops, costs)
            say("\n".join(waypoint_lines(hops, costs)))
        if "flows" in wanted:
            telling = flows(lab, options.slices, options.slice)
            found["flows"] = asdict(telling)
            lines += flow_lines(telling)
            say("\n".join(flow_lines(telling)))
        if "workloads" in wanted:
            more = knowing(lab)
            found["workloads"] = more
            table = _knowing_lines(more)
            lines += table
            say("\n".join(table))
    return found, lines


def _knowing_lines(known: dict[str, Any]) -> list[str]:
    lines = ["", f"{known['workloads']} more workloads, acknowledged by every node after {known['seconds']} s", ""]
    lines += ["| process | PSS before | after (MiB) | bytes per workload |", "|---" * 4 + "|"]
    for role, before in known["before"].items():
        after = known["after"].get(role, 0)
        each = (after - before) * 1024 / known["workloads"]
        lines.append(f"| {role} | {before / 1024:.1f} | {after / 1024:.1f} | {each:.0f} |")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, or 1 with a sentence why it could not be measured."""
    options = parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="amb-bench-") as folder:
            found, lines = measure(options, Path(folder))
    except MeshError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    # Budgets are set against another proxy; against ourselves only those without a reference are told.
    other = "" if options.against in OURSELVES else Path(options.against).name
    judged = budgets.verdicts(found, other)
    found["budgets"] = [asdict(one) for one in judged]
    lines += budgets.lines(judged)
    say("\n".join(["", *map(str, judged)]))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
